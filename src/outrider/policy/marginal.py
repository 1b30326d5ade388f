"""Drafts as long as it pays: the depths that make the whole batch fastest, at costs and survivals learned meanwhile.

A guess is worth its row, and a draft step its time, if the tokens that they are expected to add are at least what the
time would earn otherwise: that rate is the price of everything (Dinkelbach's rule for the best ratio of tokens to
seconds). A source that does not pay is asked again now and then, for a bounded share of the time.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from typing import Any

from outrider.policy.account import Account
from outrider.policy.base import Policy
from outrider.policy.cost import StepCosts
from outrider.policy.fixed import fixed_budget
from outrider.policy.search import Base, Candidate, Plan, Search, break_even
from outrider.policy.survival import Curve, Evidence, Prices, SourceSurvival, curve_of, logit
from outrider.request import MAX_DEPTH
from outrider.sequence import DecodeStep, Decision, Sequence
from outrider.tree import NO_DRAFT, DraftBudget, TokenTree, Worth

REPLAN_STEPS = 3
YOUNG = 24  # guesses verified, up to which a source is thought about in every step
PROVEN = 8  # guesses accepted, from which on a source is trusted with a prompt's catching up
# Steps in which a row and a step cost next to nothing, as a share of a plain step.
NEXT_TO_NOTHING = 0.02
LEAST_TOKENS = 0.004
LEAST_RESOLUTION = 0.02
LEAST_OFFERED = 0.25

PROBE_TOKENS, MAX_PROBE_TOKENS = 6, 192
YOUNG_PROBES = 48
PROBE_PATIENCE = 4  # steps between looks at probes that could not be afforded
MIN_DECIDED_TOKENS = 12
MAX_DECISIONS = 32
# Share of what drafting gains that plain steps may cost, which are made to compare with.
REFERENCE_SHARE = 0.003
MIN_REFERENCE_STEPS, MAX_REFERENCE_STEPS = 12, 300


class _Source:
    """One source, over all texts."""

    __slots__ = ("cap", "interval", "name", "offered", "prices", "survival")

    def __init__(self, name: str) -> None:
        self.name = name
        self.survival = SourceSurvival()
        self.cap = 0
        self.prices = Prices(0.0, 0.0)
        self.interval = PROBE_TOKENS
        self.offered = 1.0


class _Track:
    """One source on one text."""

    __slots__ = ("budget", "decided", "depth", "evidence", "interval", "is_probing", "next_probe", "num_seen", "pending")

    def __init__(self, at_token: int, interval: int) -> None:
        self.evidence = Evidence(at_token)
        self.depth = 0
        self.num_seen = 0  # tokens of the text that the drafter has computed
        self.interval = PROBE_TOKENS
        self.next_probe = at_token + interval
        self.is_probing = False
        self.budget = NO_DRAFT
        self.decided: int | None = None
        self.pending: Decision | None = None


class _Text:
    """All sources on one text, and the budget that comes of it."""

    __slots__ = ("budget", "tracks")

    def __init__(self, tracks: list[_Track]) -> None:
        self.tracks = tracks
        self.budget = NO_DRAFT

    def compose(self) -> None:
        budgets = [track.budget for track in self.tracks]
        if len(budgets) == 1:
            self.budget = budgets[0]
        else:
            depth = max(budget.max_depth for budget in budgets)
            best = max(budgets, key=lambda budget: budget.gain)
            self.budget = DraftBudget(depth, depth, best.worth, best.gain, tuple(budgets))


class AutoPolicy(Policy):
    """The marginal-value rule over the batch.

    Args:
        costs: of steps, as far as known; learned on.
        sources: names of those that draft, in the order of a cascade's members.
    """

    name = "auto"

    def __init__(self, costs: StepCosts, sources: tuple[str, ...]) -> None:
        self.costs = costs
        self.account = Account()
        self._sources = [_Source(name) for name in sources]
        self._index = {name: index for index, name in enumerate(sources)}
        self._texts: dict[int, _Text] = {}
        self._planned: list[int] = []
        self._open: list[int] = []
        self._base = Base([], 0.0, 0)
        self._countdown = 0
        self._probe_wait = 0
        self._num_since_plain = 0
        self._reference_steps: float = MAX_REFERENCE_STEPS
        self._is_probing = False

    # ------------------------------------------------------------------ plan
    def plan(self, sequences: Sequences[Sequence]) -> list[DraftBudget]:
        texts = [self._text(sequence) for sequence in sequences]
        planned = [sequence.request.request_id for sequence in sequences]
        self._countdown -= 1
        if planned != self._planned or self._countdown <= 0:
            self._planned = planned
            self._replan(sequences, texts)
        if self._is_reference_due():
            return [self._without_plan(sequence) for sequence in sequences]
        self._is_probing = False
        if self._open:
            self._start_probes(sequences, texts)
        return [_within(sequence, text.budget) for sequence, text in zip(sequences, texts, strict=True)]

    def _text(self, sequence: Sequence) -> _Text:
        text = self._texts.get(sequence.request.request_id)
        if text is None:
            at_token = len(sequence.token_ids)
            tracks = [
                _Track(at_token, source.interval if source.survival.num_verified >= YOUNG else 0)
                for source in self._sources
            ]
            text = self._texts[sequence.request.request_id] = _Text(tracks)
        return text

    def _replan(self, sequences: Sequences[Sequence], texts: list[_Text]) -> None:
        is_young = any(source.survival.num_verified < YOUNG for source in self._sources)
        self._countdown = 1 if is_young else REPLAN_STEPS
        if not self.costs.is_known:  # the first step shows what plain decoding costs
            self._open = []
            return
        self._base = self._base_of(sequences)
        self._open = [
            place
            for place, sequence in enumerate(sequences)
            if sequence.request.depth == "auto" and sequence.draft_fault is None and sequence.num_tokens_left > 1
        ]
        found = [self._search(index, sequences, texts) for index in range(len(self._sources))]
        rate = max((plan.rate for plan, _ in found), default=0.0)
        for text in texts:
            for track in text.tracks:
                track.is_probing = False
        gain = 1 - self._base.rate / rate if found else 0.0
        self._reference_steps = min(max(gain / REFERENCE_SHARE, MIN_REFERENCE_STEPS), MAX_REFERENCE_STEPS)
        for index, (plan, candidates) in enumerate(found):
            self._settle(index, plan, candidates, rate, sequences, texts)
        for text in texts:
            text.compose()

    def _base_of(self, sequences: Sequences[Sequence]) -> Base:
        num_rows, num_fixed, deepest = [], 0, 0
        for sequence in sequences:
            depth = 0 if sequence.request.depth == "auto" else fixed_budget(sequence, 0).limit
            num_rows.append(1 + depth)
            num_fixed += depth > 0
            deepest = max(deepest, depth)
        computed = self.costs.computed_rows(num_rows)
        seconds = self.costs.target(computed)
        if deepest:
            fixed, step = self.costs.draft(self._sources[-1].name, num_fixed)
            seconds += fixed + step * deepest
        return Base(num_rows, seconds, computed)

    def _search(
        self, index: int, sequences: Sequences[Sequence], texts: list[_Text]
    ) -> tuple[Plan, list[Candidate]]:
        """The best plan of one source alone."""
        source = self._sources[index]
        nothing = Plan(0, [], self._base.rate)
        if self.account.is_overdrawn:
            return nothing, []
        places = self._affordable(index, sequences, texts)
        if not places:
            return nothing, []
        survival = source.survival
        max_cap = min(self._first_cap(source.name) + 4 * survival.num_accepted, self._safe_cap(source.name))
        for _ in range(2):
            candidates = [self._candidate(index, place, sequences[place], texts[place]) for place in places]
            search = Search(self.costs, source.name, self._base, candidates, max(source.offered, LEAST_OFFERED))
            plan = search.best(source.cap, max_cap)
            if not plan.cap:
                break
            before, source.prices = source.prices, plan.prices(plan.rate)
            if survival.fit.resolution < LEAST_RESOLUTION or _is_near(before, source.prices):
                break
        source.cap = plan.cap
        return plan, candidates

    def _first_cap(self, name: str) -> int:
        """Of a source's first drafts: even if it were ten times slower than thought, they would take about a step."""
        _, step = self.costs.draft(name, len(self._open))
        if not self.costs.num_drafts(name):
            step *= 10
        return max(1, int(self._base.seconds / max(step, 1e-12)))

    def _safe_cap(self, name: str) -> int:
        """The depth at which a draft in vain would not cost much more than may be lost."""
        _, step = self.costs.draft(name, len(self._open))
        return max(1, int((self.account.balance + 0.5) * self._base.seconds / max(step, 1e-12)))

    def _affordable(self, index: int, sequences: Sequences[Sequence], texts: list[_Text]) -> list[int]:
        """Who may be drafted for: a source that has not proven itself does not get to compute many long prompts."""
        source = self._sources[index]
        if source.survival.num_accepted >= PROVEN:
            return self._open
        if not self.costs.num_drafts(source.name):  # one shows what it costs
            return self._open[:1]
        left = self.account.balance * self._base.seconds
        places: list[int] = []
        for place in self._open:
            seconds = self._entry_seconds(index, sequences[place], texts[place].tracks[index])
            is_first = not places and not source.survival.num_verified
            if seconds <= left or (is_first and seconds <= 0.1 * sequences[place].num_tokens_left * self._base.seconds):
                places.append(place)
                left -= seconds
        return places

    def _entry_seconds(self, index: int, sequence: Sequence, track: _Track) -> float:
        """Of the drafter catching up with a text."""
        num_behind = len(sequence.token_ids) - track.num_seen - 2
        return self.costs.catch_up(self._sources[index].name, num_behind) if num_behind > 0 else 0.0

    def _candidate(self, index: int, place: int, sequence: Sequence, text: _Text) -> Candidate:
        source, track = self._sources[index], text.tracks[index]
        num_left = sequence.num_tokens_left
        curve = self._curve(source, source.survival.mean(track.evidence, len(sequence.token_ids)))
        entry = self._entry_seconds(index, sequence, track) / max(4.0, 0.5 * num_left)
        return Candidate(place, curve, min(MAX_DEPTH, num_left - 1), track.depth > 0, entry)

    def _curve(self, source: _Source, mean: float) -> Curve:
        resolution = source.survival.fit.resolution
        if resolution < LEAST_RESOLUTION:
            return curve_of(round(mean, 2), 0.0, Prices(0.0, 0.0), source.survival.shifts, MAX_DEPTH, LEAST_TOKENS)
        return curve_of(
            round(mean, 2), round(resolution, 1), source.prices.rounded(), source.survival.shifts, MAX_DEPTH,
            LEAST_TOKENS,
        )  # fmt: skip

    def _settle(
        self, index: int, plan: Plan, candidates: list[Candidate], rate: float,
        sequences: Sequences[Sequence], texts: list[_Text],
    ) -> None:  # fmt: skip
        """Give each text its budget for this source, and note what changed."""
        depths = {candidate.place: number for number, candidate in enumerate(candidates)}
        source = self._sources[index]
        prices = plan.prices(rate)
        for place in self._open:
            sequence, track = sequences[place], texts[place].tracks[index]
            number = depths.get(place)
            depth = plan.depths[number] if number is not None and plan.cap else 0
            if track.depth and not depth:
                track.interval = PROBE_TOKENS
                is_young = source.survival.num_verified < YOUNG_PROBES
                track.next_probe = len(sequence.token_ids) + (0 if is_young else PROBE_TOKENS)
            track.depth = depth
            if depth:
                worth = self._worth(source, track, sequence, prices, candidates[number].curve, depth)
                track.budget = DraftBudget(depth, depth, worth, plan.gain(number, candidates[number].curve, rate))
            else:
                track.budget = NO_DRAFT
            self._decide(index, sequence, track)

    def _worth(
        self, source: _Source, track: _Track, sequence: Sequence, prices: Prices, curve: Curve, depth: int
    ) -> Worth:
        survival = source.survival
        mean = survival.mean(track.evidence, len(sequence.token_ids))
        if survival.fit.resolution < LEAST_RESOLUTION:  # the plan knows best
            least = 0.9 * (curve.tokens[depth] - curve.tokens[depth - 1])
            return Worth(logit(mean), 0.0, mean, min(prices.node, least), 0.0)
        return Worth(*survival.fit.line(mean), mean, *prices)

    # ------------------------------------------------------------- decisions
    def _decide(self, index: int, sequence: Sequence, track: _Track) -> None:
        """Note a change of mind once it has lasted, as of when it came."""
        was_drafting = bool(track.decided)
        if (track.depth > 0) == was_drafting and track.decided is not None:
            track.pending = None
            return
        if track.pending is None or (track.pending.depth > 0) != (track.depth > 0):
            track.pending = self._decision(index, sequence, track)
        is_first = track.decided is None and track.depth > 0
        if is_first or sequence.num_output_tokens - track.pending.at_token >= MIN_DECIDED_TOKENS:
            self._record(sequence, track)

    def _decision(self, index: int, sequence: Sequence, track: _Track) -> Decision:
        source = self._sources[index]
        mean = source.survival.mean(track.evidence, len(sequence.token_ids))
        least = break_even(self.costs, source.name, self._base, self._open)
        return Decision(sequence.num_output_tokens, track.depth, source.name, mean, least)

    def _record(self, sequence: Sequence, track: _Track) -> None:
        assert track.pending is not None
        if len(sequence.decisions) == MAX_DECISIONS:
            sequence.decisions.pop()
        sequence.decisions.append(track.pending)
        track.decided, track.pending = track.pending.depth, None

    # ---------------------------------------------------------------- probes
    def _start_probes(self, sequences: Sequences[Sequence], texts: list[_Text]) -> None:
        if self._probe_wait:
            self._probe_wait -= 1
            return
        for index, source in enumerate(self._sources):
            due, nearly = [], []
            for place in self._open:
                track = texts[place].tracks[index]
                if not track.depth:
                    late = len(sequences[place].token_ids) - track.next_probe
                    if late >= 0:
                        due.append(place)
                    elif late >= -track.interval // 2:
                        nearly.append(place)
            if due:
                due.sort(key=lambda place: self._entry_seconds(index, sequences[place], texts[place].tracks[index]))
                self._probe(index, due, nearly, sequences, texts)

    def _probe(
        self, index: int, due: list[int], nearly: list[int], sequences: Sequences[Sequence], texts: list[_Text]
    ) -> None:
        if not self._may_pay(index):
            for place in due:
                texts[place].tracks[index].next_probe = len(sequences[place].token_ids) + MAX_PROBE_TOKENS
            return
        if not self.costs.num_drafts(self._sources[index].name):
            if any(texts[place].tracks[index].depth for place in self._open):
                return
            due, nearly = due[:1], []
        places = [*due, *nearly]
        while True:
            depth, seconds = self._probe_cost(index, places, sequences, texts)
            if self.account.affords(seconds / self._base.seconds):
                break
            if len(places) == 1:
                self._probe_wait = PROBE_PATIENCE
                return
            places = places[: (len(places) + 1) // 2]
        source = self._sources[index]
        self._is_probing = True
        for place in places:
            track = texts[place].tracks[index]
            mean = source.survival.mean(track.evidence, len(sequences[place].token_ids))
            track.is_probing = True
            track.budget = DraftBudget(depth, depth, Worth(mean=mean), mean)
            texts[place].compose()

    def _may_pay(self, index: int) -> bool:
        name = self._sources[index].name
        if self.costs.num_drafts(name) < 3:
            return True
        least = break_even(self.costs, name, self._base, self._open)
        return least is not None and least < 0.97

    def _probe_cost(
        self, index: int, places: list[int], sequences: Sequences[Sequence], texts: list[_Text]
    ) -> tuple[int, float]:
        """Depth and seconds of a probe."""
        name = self._sources[index].name
        fixed, step = self.costs.draft(name, len(places))
        entry = sum(self._entry_seconds(index, sequences[place], texts[place].tracks[index]) for place in places)
        rows = list(self._base.num_rows)
        for place in places:
            rows[place] += 2
        plain = self.costs.target(self._base.computed)
        if step <= NEXT_TO_NOTHING * plain and self.costs.computed_rows(rows) == self._base.computed:
            return 2, fixed + 2 * step + entry
        for place in places:
            rows[place] -= 1
        return 1, fixed + step + entry + self.costs.target(self.costs.computed_rows(rows)) - plain

    def _is_reference_due(self) -> bool:
        """Whether to make a plain step, because what drafting is compared with has long not been seen."""
        return self._num_since_plain >= self._reference_steps

    def _without_plan(self, sequence: Sequence) -> DraftBudget:
        return NO_DRAFT if sequence.request.depth == "auto" else _within(sequence, NO_DRAFT)

    # --------------------------------------------------------------- observe
    def observe(self, step: DecodeStep) -> None:
        if not step.sequences:
            return
        if len(step.num_rows) == len(step.sequences):
            self._learn_costs(step)
        is_probe = self._is_probing
        num_accepted = self._learn_survival(step)
        if self.costs.is_known and self._base.seconds:
            self._book(step, num_accepted, is_probe=is_probe)
        for source in self._sources:
            source.survival.update()

    def _learn_costs(self, step: DecodeStep) -> None:
        rows = self.costs.computed_rows(step.num_rows)
        self._num_since_plain = 0 if rows == self._base.computed else self._num_since_plain + 1
        self.costs.observe_target(rows, step.seconds)
        num_drafting = sum(len(tree) > 0 for tree in step.trees)
        if not num_drafting or step.draft_seconds <= 0:
            return
        index = max(
            (self._index.get(name, -1) for name, tree in zip(step.sources, step.trees, strict=True) if len(tree)),
            default=-1,
        )
        if index >= 0:
            self.costs.observe_draft(
                self._sources[index].name, num_steps=step.num_draft_steps, num_sequences=num_drafting,
                num_caught_up=step.num_caught_up, seconds=step.draft_seconds,
            )  # fmt: skip

    def _learn_survival(self, step: DecodeStep) -> int:
        """Take in what verification said; tokens accepted where this policy decided."""
        num_accepted = 0
        for place, sequence in enumerate(step.sequences):
            budget, tree = step.budgets[place], step.trees[place]
            if budget.max_depth <= 0:
                continue
            text = self._texts.get(sequence.request.request_id)
            if text is None:
                continue
            verdict = step.verdicts[place]
            if sequence.request.depth == "auto":
                num_accepted += verdict.num_accepted
            index = self._index.get(step.sources[place], 0 if len(self._sources) == 1 else -1)
            at_token = len(sequence.token_ids)
            if index >= 0 and len(tree):
                source, track = self._sources[index], text.tracks[index]
                scores, is_cut = step.scores[place], verdict.num_accepted < len(tree)
                if not tree.is_chain:
                    scores, is_cut = _main_line(tree, scores, verdict.path)
                track.num_seen = at_token
                source.survival.observe(track.evidence, at_token, verdict.num_accepted, scores, is_cut=is_cut)
            for other, track in enumerate(text.tracks):
                asked = track.budget.max_depth > 0
                if asked:
                    has_offered = other == index and len(tree) > 0
                    source = self._sources[other]
                    source.offered += 0.05 * (has_offered - source.offered)
                    if track.is_probing:
                        self._end_probe(source, track, at_token, has_offered, verdict.num_accepted)
                        text.compose()
        return num_accepted

    def _end_probe(self, source: _Source, track: _Track, at_token: int, has_offered: bool, num_accepted: int) -> None:
        track.is_probing = False
        track.budget = NO_DRAFT
        if not has_offered:
            track.next_probe = at_token + 1
        elif num_accepted:
            track.interval = source.interval = PROBE_TOKENS
            track.next_probe = at_token
            self._countdown = 0
        else:
            least = break_even(self.costs, source.name, self._base, self._open)
            if (
                source.survival.num_verified < YOUNG_PROBES
                and least is not None
                and source.survival.hope(track.evidence, at_token) > least
            ):
                track.next_probe = at_token
                return
            track.interval = min(2 * track.interval, MAX_PROBE_TOKENS)
            source.interval = min(2 * source.interval, MAX_PROBE_TOKENS // 4)
            track.next_probe = at_token + track.interval

    def _book(self, step: DecodeStep, num_accepted: int, *, is_probe: bool) -> None:
        """Enter what drafting gained or lost."""
        if not any(
            budget.max_depth > 0 and sequence.request.depth == "auto"
            for budget, sequence in zip(step.budgets, step.sequences, strict=True)
        ):
            self.account.enter(0.0)
            return
        rows = self.costs.computed_rows(step.num_rows)
        target = self.costs.target(rows) - self.costs.target(self._base.computed)
        draft = step.draft_seconds / self.costs.speed
        if step.num_caught_up and not is_probe:  # an investment, decided on as such
            name = self._sources[-1].name
            if self._sources[-1].survival.num_accepted >= PROVEN:
                draft = max(0.0, draft - self.costs.catch_up(name, step.num_caught_up))
        lost = (draft + target) / self._base.seconds
        self.account.enter(num_accepted / len(step.sequences) - lost, lost, is_probe=is_probe)

    def release(self, sequence: Sequence) -> None:
        text = self._texts.pop(sequence.request.request_id, None)
        for track in text.tracks if text else ():
            if track.pending is not None:
                self._record(sequence, track)

    def describe(self) -> dict[str, Any]:
        """What was learned, for a result's provenance."""
        return {
            "name": self.name,
            "costs": self.costs.describe(),
            "sources": {source.name: source.survival.describe() for source in self._sources},
        }


def _within(sequence: Sequence, budget: DraftBudget) -> DraftBudget:
    """Never beyond the request's end; what the request asked for goes first."""
    if sequence.request.depth != "auto":
        return fixed_budget(sequence, 0)
    if sequence.draft_fault is not None:
        return NO_DRAFT
    return _cut(budget, sequence.num_tokens_left - 1)


def _cut(budget: DraftBudget, limit: int) -> DraftBudget:
    if budget.max_depth <= limit:
        return budget
    limit = max(0, limit)
    members = tuple(_cut(member, limit) for member in budget.members)
    return budget._replace(max_depth=limit, max_nodes=min(limit, budget.max_nodes), members=members)


def _is_near(prices: Prices, others: Prices) -> bool:
    return all(abs(price - other) <= 0.2 * max(price, other) for price, other in zip(prices, others, strict=True))


def _main_line(
    tree: TokenTree, scores: tuple[float, ...] | None, path: tuple[int, ...]
) -> tuple[tuple[float, ...] | None, bool]:
    """A tree seen as the chain that verification went along, ending in the surest of the guesses that were wrong."""
    last = path[-1] if path else -1
    wrong = [node for node, parent in enumerate(tree.parents) if parent == last]
    if scores is None:
        return None, bool(wrong)
    line = [scores[node] for node in path]
    if wrong:
        line.append(max(scores[node] for node in wrong))
    return tuple(line), bool(wrong)
