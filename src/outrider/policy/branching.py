"""Whether guesses beside the first ones are worth their rows, and what they cost. Knows no texts and no drafters.

Where the first guess at a place is wrong, the second may be right: then the draft earns one token more. It costs a row,
which within a stair is free; no draft step; and what the target takes to keep branches apart. So the policy's trees are
combs: a chain, and leaves beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence as Sequences
from typing import NamedTuple

from outrider.policy.cost import StepCosts
from outrider.policy.curve import MAX_CHANCE, Curve, Prices, logit, sigmoid
from outrider.policy.plan import Beside, Candidate, Comb, Plan
from outrider.policy.search import DEPTHS, Search
from outrider.policy.survival import FIRST_SIBLINGS
from outrider.policy.track import Source
from outrider.sequence import DecodeStep, DraftWork, Sequence
from outrider.tree import ROOT, DraftBudget, Worth

# Below, scores tell too little to stop by.
LEAST_RESOLUTION = 0.02
# Guesses at one place that the policy asks for at most, whatever a request allows.
MAX_AUTO_CHILDREN = 1 + len(FIRST_SIBLINGS)
# A branch keeps a copy of a part of the text, as if it were so many tokens longer.
BRANCH_TOKENS = 64
# Of a plain step: what a branch of a short text is taken to cost, with the weight of this many steps; each step with
# branches tells, and older ones less.
ASSUMED_BRANCH_SHARE, ASSUMED_WEIGHT, BRANCH_MEMORY = 0.02, 2.0, 0.95
BRANCH_FADING = 0.997  # per plan that does without
# Steps with branches, of which the first make ready what later ones find.
NUM_UNTOLD = 2
MAX_EXCESS = 0.6  # of a step
# A draft with siblings, as against one without: what it takes, and what each says of that.
FACTOR_GAIN, MAX_FACTOR = 0.1, 2.0
# A comb must be this much faster than the best chains to replace them.
COMB_ADVANTAGE = 1.04
MAX_CAPS = 6  # depths that are looked at
NUM_TELLING_SIBLINGS = 12  # places, up to which probes ask for siblings too
# Rows beyond those of the chains, to the end of whose stair siblings are tried.
ROWS_BEYOND = (0, 1, 4, 8)
MAX_STAIR = 16


def _num_kept_apart(step: DecodeStep) -> int:
    """Tokens, for all branches of a step but each tree's first."""
    num_tokens = 0
    for tree, sequence in zip(step.trees, step.sequences, strict=True):
        if not tree.is_chain:
            num_leaves = len(tree) - len({*tree.parents} - {ROOT})
            num_tokens += (num_leaves - 1) * (len(sequence.token_ids) + BRANCH_TOKENS)
    return num_tokens


class BranchCosts:
    """What drafts and targets take longer for branches, at the usual speed."""

    def __init__(self, costs: StepCosts) -> None:
        self.costs = costs
        self._num_seen = 0
        self._weight = self._seconds = 0.0  # squares of tokens kept apart, and their products with seconds
        self._factors: dict[str, float] = {}

    def of_branch(self, length: int, plain_seconds: float) -> float:
        """Seconds of the target for one branch more, on a text of this length."""
        return self.seconds(length + BRANCH_TOKENS, plain_seconds)

    def seconds(self, num_kept_apart: int, plain_seconds: float) -> float:
        """Of the target, for branches that keep so many tokens apart."""
        return num_kept_apart * self._per_token(plain_seconds)

    def of_step(self, step: DecodeStep) -> float:
        """Seconds of the target, for a step's branches."""
        num_kept_apart = _num_kept_apart(step)
        return self.seconds(num_kept_apart, self._plain_seconds(len(step.sequences))) if num_kept_apart else 0.0

    def of_draft(self, source: str) -> float:
        """By what factor a draft takes longer."""
        return self._factors.get(source, 1.0)

    def observe_target(self, step: DecodeStep) -> float:
        """Learn from a step; the seconds that it would have taken without branches."""
        num_kept_apart = _num_kept_apart(step)
        if not num_kept_apart or not self.costs.is_known:
            return step.seconds
        self._num_seen += 1
        if self._num_seen <= NUM_UNTOLD:
            return 0.0
        costs, rows, num_sequences = self.costs, step.num_computed_rows, len(step.sequences)
        usual = costs.target(rows, num_sequences)
        excess = step.seconds / costs.speed - usual - costs.change(rows)
        excess = min(max(excess, -MAX_EXCESS * usual), MAX_EXCESS * usual)
        self._weight = BRANCH_MEMORY * self._weight + num_kept_apart * num_kept_apart
        self._seconds = BRANCH_MEMORY * self._seconds + num_kept_apart * excess
        own = self.seconds(num_kept_apart, self._plain_seconds(num_sequences)) * costs.speed
        return max(step.seconds - own, 0.1 * step.seconds)

    def observe_draft(self, work: DraftWork) -> DraftWork:
        """Learn from a draft with siblings; what it would have been without."""
        factor, costs = self.of_draft(work.source), self.costs
        if not costs.num_drafts(work.source):
            return work
        fixed, step = costs.draft(work.source, work.num_sequences)
        expected = fixed + step * work.num_steps + costs.catch_up(work.source, work.num_caught_up)
        ratio = min(max(work.seconds / costs.speed / max(expected, 1e-12), 0.5), MAX_FACTOR)
        factor = self._factors[work.source] = max(1.0, factor + FACTOR_GAIN * (ratio - factor))
        return work._replace(seconds=work.seconds / factor)

    def fade(self) -> None:
        """What has not been tried for long may have changed."""
        self._weight *= BRANCH_FADING
        self._seconds *= BRANCH_FADING

    def _plain_seconds(self, num_sequences: int) -> float:
        return self.costs.target(self.costs.computed_rows([1] * num_sequences), num_sequences)

    def _per_token(self, plain_seconds: float) -> float:
        assumed = ASSUMED_WEIGHT * BRANCH_TOKENS
        seconds = self._seconds + assumed * ASSUMED_BRANCH_SHARE * plain_seconds
        return max(0.0, seconds / (self._weight + assumed * BRANCH_TOKENS))


class Branching:
    """Puts guesses beside those of plans.

    Args:
        sources: names of those that can make trees.
    """

    def __init__(self, costs: StepCosts, sources: Collection[str]) -> None:
        self.costs = BranchCosts(costs)
        self._sources = frozenset(sources)

    def improve(
        self, plan: Plan, source: Source, search: Search, sequences: Sequences[Sequence], limits: tuple[int, float]
    ) -> Plan:
        """A plan with guesses beside the first ones, if it is better than the one of chains; else that.

        Args:
            limits: on depth, and on the seconds that are lost if nothing is accepted.
        """
        if source.name not in self._sources:
            return plan
        some = [sequences[candidate.place] for candidate in search.candidates]
        if all(sequence.request.max_children == 1 for sequence in some):
            return plan
        beside = [
            Beside(
                candidate.mean_logit,
                source.survival.shifts,
                source.siblings.chances(sequence.request.max_children - 1, is_hopeful=plan.cap > 0),
                self.costs.of_branch(len(sequence.token_ids), search.base.seconds),
            )
            for sequence, candidate in zip(some, search.candidates, strict=True)
        ]
        factor = self.costs.of_draft(source.name)
        found = with_siblings(search, plan, beside, factor, is_comb=source.is_comb, limits=limits)
        if found is None and plan.cap:
            source.siblings.fade()
            self.costs.fade()
        return found or plan

    def probe(self, budget: DraftBudget, source: Source, sequence: Sequence, room: int) -> DraftBudget:
        """A probe that learns of siblings too, where they take no more than the rows that are computed anyway."""
        is_wanted = source.name in self._sources and source.siblings.num_observed < NUM_TELLING_SIBLINGS
        if not is_wanted or sequence.request.max_children == 1 or room < 1:
            return budget
        count = min(sequence.request.max_children, MAX_AUTO_CHILDREN)
        worth = budget.worth._replace(siblings=source.siblings.chances(count - 1, is_hopeful=True))
        return budget._replace(
            max_nodes=budget.max_depth + min(room, (count - 1) * budget.max_depth), max_children=count,
            is_comb=True, worth=worth,
        )  # fmt: skip


def with_siblings(
    search: Search, chains: Plan, beside: list[Beside], factor: float, *, is_comb: bool, limits: tuple[int, float]
) -> Plan | None:
    """The fastest plan of combs, if it is faster than the best of chains.

    Args:
        beside: of each candidate.
        factor: by which a draft takes longer.
        is_comb: whether combs are in force.
        limits: on depth, and on the seconds that are lost if nothing is accepted.
    """
    best: Plan | None = None
    best_rate = chains.rate * (1.0 if is_comb else COMB_ADVANTAGE)
    if not chains.cap:
        best_rate = max(best_rate, search.least_rate(is_drafting=is_comb))
    for cap in _caps(chains.cap, limits[0]):
        depths = search.depths_at(cap)
        if not any(depths):
            break
        sides = sorted(_sides(search.candidates, beside, depths, best_rate), reverse=True)
        first_rows = search.num_rows(depths)
        for num_beside in _nums_beside(search.costs, first_rows, len(sides)):
            comb = Comb(num_beside, sum(side.tokens for side in sides[:num_beside]), factor, beside)
            seconds = sum(side.seconds for side in sides[:num_beside])
            if cap > 1 and search.loss(cap, first_rows + num_beside) + seconds > limits[1]:
                continue
            rate, step_seconds = search.expected_with(depths, comb, seconds)
            if rate > best_rate:
                best, best_rate = Plan(cap, depths, rate, step_seconds, comb=comb), rate
    if best is not None:
        search.price(best)
    return best


def as_comb(budget: DraftBudget, plan: Plan, number: int, rate: float) -> DraftBudget:
    """A candidate's budget, with siblings if the plan has any. Of several texts more are made than are kept."""
    own = plan.comb.beside[number] if plan.comb is not None else None
    if plan.comb is None or own is None or not own.chances:
        return budget
    num_drafting = sum(depth > 0 for depth in plan.depths)
    num_beside = plan.comb.num_beside if num_drafting == 1 else -(-2 * plan.comb.num_beside // num_drafting)
    worth = budget.worth._replace(node_price=0.0, siblings=own.chances, sibling_price=rate * own.seconds)
    return budget._replace(
        max_nodes=budget.max_depth + min(num_beside, len(own.chances) * budget.max_depth),
        worth=worth,
        max_children=1 + len(own.chances),
        is_comb=True,
    )


def worth_of(source: Source, mean: float, prices: Prices, curve: Curve, depth: int) -> Worth:
    """Of guesses on one text, drafted as deep as this."""
    if source.survival.fit.resolution < LEAST_RESOLUTION:  # the plan knows best how deep to go
        least = 0.9 * (curve.tokens[depth] - curve.tokens[depth - 1])
        return Worth(logit(mean), 0.0, mean, min(prices.node, least), 0.0)
    return Worth(*source.survival.fit.line(mean), mean, *prices)


class _Side(NamedTuple):
    """A sibling: what it earns, its price taken off; the tokens, and the seconds for keeping it apart."""

    gain: float
    tokens: float
    seconds: float


def _sides(candidates: list[Candidate], beside: list[Beside], depths: list[int], price: float) -> Iterator[_Side]:
    """Siblings that earn more than it costs to keep them apart."""
    for candidate, own, depth in zip(candidates, beside, depths, strict=True):
        tokens = candidate.curve.tokens
        for place in range(depth):
            chance = min(sigmoid(own.mean_logit + own.shifts[min(place, len(own.shifts) - 1)]), MAX_CHANCE)
            reached = (tokens[place + 1] - tokens[place]) / chance
            left, before = 1.0 - chance, chance
            for sibling in own.chances:
                before = min(left * sibling, before)
                left -= before
                gain = reached * before - price * own.seconds
                if gain > 0:
                    yield _Side(gain, reached * before, own.seconds)


def _caps(chain_cap: int, max_cap: int) -> Iterator[int]:
    """Depths worth a look: a comb is not deeper than the best chain, unless no chain pays."""
    last = DEPTHS.index(chain_cap) if chain_cap else 2
    return (cap for cap in DEPTHS[max(0, last + 1 - MAX_CAPS) : last + 1] if cap <= max_cap)


def _nums_beside(costs: StepCosts, num_rows: int, most: int) -> Iterator[int]:
    """How many siblings fill up the stair that is begun, and those after it."""
    last = 0
    for beyond in ROWS_BEYOND:
        num_beside = min(most, stair_end(costs, num_rows + beyond) - num_rows)
        if num_beside > last:
            yield num_beside
            last = num_beside


def stair_end(costs: StepCosts, num_rows: int) -> int:
    """The most rows that are computed as so many are."""
    computed, end = costs.computed_rows([num_rows]), num_rows
    while end < num_rows + MAX_STAIR and costs.computed_rows([end + 1]) == computed:
        end += 1
    return end
