"""What a policy remembers of sources and texts between steps, and what it puts on record. Knows no costs."""

from __future__ import annotations

import math
from typing import NamedTuple

from outrider.policy.curve import Prices
from outrider.policy.survival import Evidence, Siblings, SourceSurvival
from outrider.sequence import Decision, Hindsight, Sequence
from outrider.tree import NO_DRAFT, ROOT, DraftBudget, TokenTree

FIRST_PROBE_TOKENS = 6
# Of a logit, by which what is thought of a text's guesses has moved when it is news.
NEWS = 0.25
# A change of mind that does not last so many tokens is not put on record.
MIN_DECIDED_TOKENS = 12
MAX_DECISIONS = 32
OFFER_GAIN = 0.05
MIN_SHARE_OFFERED = 1e-3  # below 1e-16 the chance that anybody has a guess would be zero, and is divided by


class Source:
    """One source, over all texts.

    Attributes:
        offered: share of the drafts asked for that were made and taken, of late, where no cheaper source's was.
        silence: share of those asked for right after one of the same text that was not made, that were not made either.
        cap: depth of the plan in force; 0 is none.
        is_comb: whether the plan in force has guesses beside the first ones.
        prices: of the last plan that drafted.
        rate: tokens a second that a row or a draft step of it has to earn.
        siblings: what is known of guesses beside the first ones.
        probe_tokens: that a new text waits for its first probe, if the source does not pay.
        num_invested: plain steps that it took to read texts before any guess of it was verified.
        looks_back: whether it can tell what it would have guessed.
    """

    __slots__ = (
        "_num_silent", "cap", "is_comb", "looks_back", "name", "num_asked", "num_invested", "offered", "prices",
        "probe_tokens", "rate", "siblings", "silence", "survival",
    )  # fmt: skip

    def __init__(self, name: str, *, looks_back: bool = False) -> None:
        self.name = name
        self.looks_back = looks_back
        self.survival = SourceSurvival()
        self.siblings = Siblings()
        self.offered = self.silence = 1.0
        self._num_silent = 0
        self.num_asked = 0
        self.num_invested = 0.0
        self.cap = 0
        self.is_comb = False
        self.prices = Prices(0.0, 0.0)
        self.rate = 0.0
        self.probe_tokens = FIRST_PROBE_TOKENS

    def note_offer(self, evidence: Evidence, is_made: bool) -> None:
        """A draft was asked for, and made or not."""
        self.num_asked += 1
        if evidence.is_silent:
            self._num_silent += 1
            self.silence += max(OFFER_GAIN, 1 / (self._num_silent + 1)) * ((not is_made) - self.silence)
        evidence.is_silent = not is_made
        self.offered = max(self.offered + OFFER_GAIN * (is_made - self.offered), MIN_SHARE_OFFERED)

    def learn(
        self,
        evidence: Evidence,
        at_token: int,
        tree: TokenTree,
        scores: tuple[float, ...] | None,
        path: tuple[int, ...],
    ) -> None:
        """What verification said of a draft. A tree is seen as the first guesses of the places that it went through."""
        if tree.is_chain:
            self.survival.observe(evidence, at_token, len(path), scores, is_cut=len(path) < len(tree))
            return
        places = places_along(tree, path)
        for place in places:
            if place.rank != 0:
                self.siblings.observe(place.rank, place.num_beside)
        begin = 0
        while begin < len(places):
            end = next((index for index in range(begin, len(places)) if places[index].rank != 0), len(places))
            line = None if scores is None else tuple(scores[place.first] for place in places[begin : end + 1])
            is_cut = end < len(places)
            self.survival.observe(evidence, at_token, end - begin, line, is_cut=is_cut, num_before=begin)
            begin = end + 1

    def look(self, evidence: Evidence, at_token: int, told: Hindsight, *, is_asked: bool = True) -> None:
        """What it would have guessed of a text, taken as chains, each up to a guess that was wrong or to none.

        A chain is a draft that it would have offered, as is a place without a guess one that it would not; what comes
        along with a draft, unasked, tells only whether guesses are right.
        """
        chain_begin = num_guesses = 0

        def end_chain(*, is_cut: bool) -> None:
            nonlocal chain_begin
            scores = None if told.scores is None else told.scores[chain_begin:num_guesses]
            num_hits = num_guesses - chain_begin - is_cut
            self.survival.observe(evidence, at_token, num_hits, scores, is_cut=is_cut)
            chain_begin = num_guesses

        for outcome in told.outcomes:
            if is_asked and num_guesses == chain_begin:
                self.note_offer(evidence, outcome is not None)
            num_guesses += outcome is not None
            if not outcome:
                end_chain(is_cut=outcome is False)
        end_chain(is_cut=False)


class Track:
    """One source on one text.

    Attributes:
        depth: planned; 0 is no draft.
        budget: that follows from the plan, or from a probe.
        is_served: whether the source may ever have a guess here.
        planned_logit: of the chance that a guess is right, when it was last planned with; infinite before.
        num_seen: tokens of the text that the drafter has computed.
        has_offered: whether it ever made a draft here.
        is_probing: whether the step that is planned has a guess of it that is a probe.
        probe_at, probe_tokens: length of the text at which a probe is due; tokens to the next one if that is in vain,
            or if it is a look.
    """

    __slots__ = (
        "_decided", "_pending", "budget", "depth", "evidence", "has_offered", "is_probing", "is_served", "num_seen",
        "planned_logit", "probe_at", "probe_tokens",
    )  # fmt: skip

    def __init__(self, at_token: int, wait: int, *, is_served: bool) -> None:
        self.evidence = Evidence(at_token)
        self.is_served = is_served
        self.planned_logit = math.inf
        self.depth = 0
        self.budget = NO_DRAFT
        self.num_seen = 0
        self.has_offered = False
        self.is_probing = False
        self.probe_at, self.probe_tokens = at_token + wait, FIRST_PROBE_TOKENS
        self._decided: int | None = None
        self._pending: Decision | None = None

    def is_news(self) -> bool:
        """Whether the plan differs from what is on record or about to be."""
        known = self._decided if self._pending is None else self._pending.depth
        return known is None or (known > 0) != (self.depth > 0)

    def consider(self, decision: Decision) -> None:
        """Have a change of mind put on record, as of now, if it lasts."""
        is_back = self._decided is not None and (self._decided > 0) == (decision.depth > 0)
        self._pending = None if is_back else decision

    def record(self, sequence: Sequence) -> None:
        """Put on record what has lasted, or is the first that drafts; nothing of a source that has no guesses here."""
        pending = self._pending
        if pending is None or (pending.depth and not self.has_offered):
            return
        has_lasted = sequence.num_output_tokens - pending.at_token >= MIN_DECIDED_TOKENS
        if not has_lasted and (self._decided is not None or not pending.depth):
            return
        if len(sequence.decisions) == MAX_DECISIONS:
            sequence.decisions.pop()
        sequence.decisions.append(pending)
        self._decided, self._pending = pending.depth, None


class Text:
    """All sources on one text, and the budget that comes of it."""

    __slots__ = ("budget", "tracks")

    def __init__(self, tracks: list[Track]) -> None:
        self.tracks = tracks
        self.budget = NO_DRAFT

    def compose(self) -> None:
        """Set the budget: a cascade's limits are the most that a member may do."""
        budgets = [track.budget for track in self.tracks]
        if len(budgets) == 1:
            self.budget = budgets[0]
            return
        best = max(budgets, key=lambda budget: budget.gain)
        depth, num_nodes = (max(limits) for limits in zip(*(budget[:2] for budget in budgets), strict=True))
        looks_back = any(budget.looks_back for budget in budgets)
        self.budget = DraftBudget(depth, num_nodes, best.worth, best.gain, tuple(budgets), looks_back=looks_back)


def within(budget: DraftBudget, limit: int) -> DraftBudget:
    """The budget, and its members', cut to a depth."""
    if budget.max_depth <= limit:
        return budget
    limit = max(0, limit)
    members = tuple(within(member, limit) for member in budget.members)
    is_chain = budget.max_nodes == budget.max_depth
    max_nodes = min(limit, budget.max_nodes) if is_chain or not limit else budget.max_nodes
    return budget._replace(max_depth=limit, max_nodes=max_nodes, members=members)


class Place(NamedTuple):
    """Where verification went through a tree.

    Attributes:
        first: the node that is the first guess there.
        rank: of the guess that was right, 0 for the first; None if all were wrong.
        num_beside: guesses beside the first.
    """

    first: int
    rank: int | None
    num_beside: int


def places_along(tree: TokenTree, path: tuple[int, ...]) -> list[Place]:
    """From the root on, as far as there were guesses."""
    places: list[Place] = []
    for parent, right in zip((ROOT, *path), (*path, None), strict=True):
        guesses = [node for node, above in enumerate(tree.parents) if above == parent]
        if guesses:
            rank = None if right is None else guesses.index(right)
            places.append(Place(guesses[0], rank, len(guesses) - 1))
    return places
