"""Asks again where drafting does not pay, as often as may be afforded. Knows costs and texts; no drafters."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from typing import NamedTuple

from outrider.policy.account import Account
from outrider.policy.branching import Branching, stair_end
from outrider.policy.cost import StepCosts
from outrider.policy.curve import logit
from outrider.policy.entry import Chunks, Entry
from outrider.policy.losses import LookCosts
from outrider.policy.plan import Base
from outrider.policy.search import break_even
from outrider.policy.track import FIRST_PROBE_TOKENS, NEWS, Source, Text, Track
from outrider.sequence import MAX_TOLD, DecodeStep, Sequence
from outrider.tree import NO_DRAFT, DraftBudget, Worth

MAX_PROBE_TOKENS = 192
MAX_NEW_TEXT_TOKENS = 48
# A text that somebody may look back on has so many tokens at least, and so many come between two looks at most: reading
# them takes a draft model time. Where it takes none, looks are more frequent.
FIRST_LOOK_TOKENS, MAX_LOOK_TOKENS, MAX_FREE_LOOK_TOKENS = 8, 96, MAX_TOLD
# Guesses verified, up to which a source is asked again at once while it may well turn out to pay.
YOUNG = 48
PATIENCE = 4  # steps between looks at probes that could not be afforded
# Share of a plain step that is next to nothing.
NEXT_TO_NOTHING = 0.02
# And of what a look may take whatever was spent on others before; and of what looks at all texts may take for none of
# them to be put off for long.
UNNOTICED, FREE_LOOKS = 0.002, 0.08
# Whoever is right more often than this may as well be always right.
ALWAYS = 0.97
NUM_SURE = 3  # drafts, after which a cost is believed
FIRST_SHARE = 0.3  # of what the first drafts took, that later ones may turn out to take


class Round(NamedTuple):
    """Who decodes now; a policy decides about those at `places`."""

    sequences: Sequences[Sequence]
    texts: list[Text]
    base: Base
    places: list[int]
    least: dict[str, float | None]

    def served(self, index: int) -> list[int]:
        """Places for which a source may have guesses."""
        return [place for place in self.places if self.texts[place].tracks[index].is_served]

    def break_even(self, costs: StepCosts, source: str) -> float | None:
        """The agreement that a source needs to pay in this batch; see `search.break_even`."""
        if source not in self.least:
            self.least[source] = break_even(costs, source, self.base, self.places)
        return self.least[source]


class Prober:
    """Plans drafts whose purpose is to learn.

    Attributes:
        is_probing: whether the step planned last has any.
    """

    def __init__(
        self, costs: StepCosts, account: Account, entry: Entry, branching: Branching, looks: LookCosts
    ) -> None:
        self.costs = costs
        self.looks = looks
        self.branching = branching
        self.account = account
        self.entry = entry
        self.is_probing = False
        self._wait = 0
        self._num_quiet = 0  # steps in which nobody will be due, if all texts grow by a token

    def wake(self) -> None:
        """Texts may have joined, grown by several tokens or been given up on: anybody may be due."""
        self._num_quiet = 0

    def start(self, sources: list[Source], step: Round) -> None:
        """Set budgets for the probes that are due and can be afforded."""
        self.is_probing = False
        if self._wait or self._num_quiet:
            self._wait, self._num_quiet = max(0, self._wait - 1), max(0, self._num_quiet - 1)
            return
        soonest = -MAX_PROBE_TOKENS
        for index, source in enumerate(sources):
            due: list[int] = []
            nearly: list[int] = []
            for place in step.places:
                track = step.texts[place].tracks[index]
                if track.is_served and not track.depth:
                    num_late = len(step.sequences[place].token_ids) - track.probe_at
                    soonest = max(soonest, num_late)
                    if num_late >= 0:
                        due.append(place)
                    elif num_late >= -track.probe_tokens // 2:
                        nearly.append(place)
            if due and source.looks_back:
                self._look(index, source, due, step)
            elif due:
                self._probe(index, source, due, nearly, step)
        self._num_quiet = max(0, -soonest - 1)

    def end(self, source: Source, track: Track, at_token: int, num_accepted: int | None, step: Round) -> None:
        """A probe was verified; `num_accepted` is None where there was no guess."""
        self.wake()
        track.is_probing = False
        track.budget = NO_DRAFT
        if num_accepted is None:
            track.probe_at = at_token + 1
        elif num_accepted:
            track.probe_tokens = source.probe_tokens = FIRST_PROBE_TOKENS
            track.probe_at = at_token
        elif source.survival.num_verified < YOUNG and self._may_be_good(source, track, at_token, step):
            track.probe_at = at_token
        else:
            track.probe_tokens = min(2 * track.probe_tokens, MAX_PROBE_TOKENS)
            track.probe_at = at_token + track.probe_tokens
            source.probe_tokens = min(2 * source.probe_tokens, MAX_NEW_TEXT_TOKENS)

    def stop(self, source: Source, track: Track, at_token: int) -> None:
        """Drafting was given up on a text."""
        if source.looks_back:
            track.probe_at = at_token + max(track.probe_tokens, FIRST_LOOK_TOKENS)
            return
        track.probe_tokens = FIRST_PROBE_TOKENS
        track.probe_at = at_token + (0 if source.survival.num_verified < YOUNG else FIRST_PROBE_TOKENS)

    def _look(self, index: int, source: Source, due: list[int], step: Round) -> None:
        """Have the source read texts and tell what it would have guessed: no row of the target, and many guesses."""
        if not self._may_pay(source, step):
            self._put_off(index, due, step)
            return
        budget = DraftBudget(0, 0, max_catch_up=self.entry.limit(source, step.base.seconds), looks_back=True)
        each = self.looks.seconds(source.name, len(due))
        left = max(self.account.probe_balance, UNNOTICED) * step.base.seconds
        left -= 0.0 if each else sum(self.costs.draft(source.name, len(due)))
        reading = {
            place: self.entry.seconds(source, step.sequences[place], step.texts[place].tracks[index]) for place in due
        }
        for number, place in enumerate(sorted(due, key=reading.__getitem__)):
            if not number and not source.survival.num_verified:  # nobody would ever know it
                left = max(left, self.entry.loan(source, step.sequences[place].num_tokens_left) * step.base.seconds)
            left -= each + self.entry.until_told(source, reading[place], step.base.seconds)
            if left < 0:
                if not number:
                    self._wait = PATIENCE
                    self.looks.doubt(source.name, len(due))
                break
            step.texts[place].tracks[index].budget = budget
            step.texts[place].compose()

    def look_over(
        self, step: DecodeStep, sources: list[Source], texts: dict[int, Text], chunks: Chunks, round_: Round
    ) -> bool:
        """Learn from what was read in a step; whether some source may well pay where it does not draft."""
        is_hopeful = False
        if not step.hindsight and not any(budget.looks_back for budget in step.budgets):
            return is_hopeful
        for sequence, budget in zip(step.sequences, step.budgets, strict=True):
            request_id, at_token = sequence.request.request_id, len(sequence.token_ids)
            text = texts.get(request_id)
            for index, track in enumerate(text.tracks if text else ()):
                source, own = sources[index], budget.of_member(index)
                for told in step.hindsight:
                    if (told.source, told.request_id) == (source.name, request_id):
                        source.look(track.evidence, at_token, told, is_asked=own.looks_back)
                if not own.looks_back:
                    continue
                if track.budget.looks_back:  # else it was planned anew meanwhile
                    track.budget = NO_DRAFT
                if not chunks.take(source, track, at_token, own.max_catch_up):  # else a part was read
                    track.num_seen = at_token
                    is_hopeful |= self._looked(source, track, at_token, round_)
            if text:
                text.compose()
        return is_hopeful

    def _looked(self, source: Source, track: Track, at_token: int, step: Round) -> bool:
        """A text was read, and its source has learned from it; whether it may well pay there."""
        least, mean = step.break_even(self.costs, source.name), source.survival.mean(track.evidence, at_token)
        is_renewed = least is not None and mean > least and self.account.renew()
        num_texts = len(step.sequences)
        each = self.looks.seconds(source.name, num_texts) or sum(self.costs.draft(source.name, 1))
        is_free = num_texts * each <= FREE_LOOKS * step.base.seconds
        track.probe_tokens = min(2 * track.probe_tokens, MAX_FREE_LOOK_TOKENS if is_free else MAX_LOOK_TOKENS)
        track.probe_at = at_token + track.probe_tokens
        is_news = abs(logit(mean) - track.planned_logit) > NEWS
        return is_renewed or (is_news and self._may_be_good(source, track, at_token, step))

    def _put_off(self, index: int, due: list[int], step: Round) -> None:
        for place in due:
            step.texts[place].tracks[index].probe_at = len(step.sequences[place].token_ids) + MAX_PROBE_TOKENS

    def _probe(self, index: int, source: Source, due: list[int], nearly: list[int], step: Round) -> None:
        if not self._may_pay(source, step):
            self._put_off(index, due, step)
            return
        entry = {
            place: self.entry.seconds(source, step.sequences[place], step.texts[place].tracks[index])
            for place in (*due, *nearly)
        }
        places = [*sorted(due, key=entry.__getitem__), *nearly]
        if not self.costs.num_drafts(source.name):  # one shows what it costs
            if any(step.texts[place].tracks[index].depth for place in step.places):
                return
            places = places[:1]
        depth = self._affordable_depth(source, places[:1], entry, step.base)
        if not depth:
            self._wait = PATIENCE
            return
        while len(places) > 1:
            deeper = self._affordable_depth(source, places, entry, step.base)
            if deeper:
                depth = deeper
                break
            places = places[: (len(places) + 1) // 2]
        self.is_probing = True
        max_catch_up = self.entry.limit(source, step.base.seconds)
        rows = sum(step.base.num_rows) + depth * len(places)
        room = (stair_end(self.costs, rows) - rows) // len(places)
        for place in places:
            text = step.texts[place]
            track = text.tracks[index]
            mean = source.survival.mean(track.evidence, len(step.sequences[place].token_ids))
            track.is_probing = True
            budget = DraftBudget(depth, depth, Worth(mean=mean), mean, max_catch_up=max_catch_up)
            track.budget = self.branching.probe(budget, source, step.sequences[place], room)
            text.compose()

    def _affordable_depth(self, source: Source, places: list[int], entry: dict[int, float], base: Base) -> int:
        """Of a probe of all these texts; 0 if it would cost too much."""
        depth, seconds = self._cost(source, places, base)
        if self.costs.num_drafts(source.name) < NUM_SURE:
            seconds *= FIRST_SHARE
        reading = sum(entry[place] for place in places)
        seconds += self.entry.until_told(source, reading, base.seconds)
        return depth if self.account.affords(seconds / base.seconds) else 0

    def _cost(self, source: Source, places: list[int], base: Base) -> tuple[int, float]:
        """Depth and seconds of a probe; it goes one deeper where that is next to free."""
        fixed, step = self.costs.draft(source.name, len(places))
        plain = self.costs.target(base.computed, base.num_sequences)
        seconds = [0.0, 0.0]
        for depth in (1, 2):
            rows = list(base.num_rows)
            for place in places:
                rows[place] += depth
            computed = self.costs.computed_rows(rows)
            is_higher = computed > max(base.computed, self.costs.prepared_rows or 0)
            change = 2 * self.costs.change_between(computed, base.computed) * is_higher
            seconds[depth - 1] = fixed + depth * step + self.costs.target(computed, base.num_sequences) - plain + change
        depth = 2 if seconds[1] <= NEXT_TO_NOTHING * plain else 1
        return depth, max(0.0, seconds[depth - 1])

    def _may_pay(self, source: Source, step: Round) -> bool:
        num_drafts = self.costs.num_drafts(source.name)
        if num_drafts < NUM_SURE and (num_drafts or not self.costs.is_told(source.name)):
            return True
        least = step.break_even(self.costs, source.name)
        return least is not None and least < ALWAYS

    def _may_be_good(self, source: Source, track: Track, at_token: int, step: Round) -> bool:
        least = step.break_even(self.costs, source.name)
        return least is not None and source.survival.hope(track.evidence, at_token) > least
