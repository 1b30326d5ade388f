"""Which depths are fastest for a batch as a whole. Knows costs and survivals; no texts and no drafters.

A plan's rate is the tokens that a step is expected to add over the seconds that it is expected to take. The best one
need not be found node by node: target costs are a staircase, so that whole plans are compared, one for each limit on
depth. What the rate of the best plan makes a second worth, in tokens, is the price at which drafters stop by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from typing import NamedTuple

from outrider.policy.cost import StepCosts
from outrider.policy.survival import Curve, Prices

DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
NUM_WORSE = 4  # plans in a row, after which deeper ones are not looked at
# A plan must be this much better than the one in force, so that noise does not make decisions flap.
DEPTH_ADVANTAGE = 1.01
START_ADVANTAGE = 1.02
# Steps after which a plan is taken to be replaced, by which the cost of changing to it is divided.
USUAL_NUM_STEPS = 16


class Candidate(NamedTuple):
    """A sequence that may be drafted for.

    Attributes:
        place: in the batch.
        curve: what drafts for it come to.
        limit: on depth.
        is_drafted: whether the plan in force drafts for it.
        entry_seconds: of the drafter's catching up, for each step that it would serve.
    """

    place: int
    curve: Curve
    limit: int
    is_drafted: bool
    entry_seconds: float


class Base(NamedTuple):
    """The step without what is to be decided.

    Attributes:
        num_rows: of each sequence.
        seconds: that the step takes; `draft_seconds` of them are drafts that the policy does not decide about.
        computed: rows that the target computes.
    """

    num_rows: list[int]
    seconds: float
    computed: int

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return len(self.num_rows) / self.seconds


@dataclass(slots=True)
class Plan:
    """One source's part in steps to come.

    Attributes:
        cap: the limit on depth that was best; 0 is no draft.
        depths: of each candidate.
        rate: tokens per second that are expected.
        node_seconds, step_seconds: of a row, and of a draft step for each sequence that it serves.
        saved_seconds: of a row that is saved by stopping early.
    """

    cap: int
    depths: list[int]
    rate: float
    node_seconds: float = 0.0
    step_seconds: float = 0.0
    saved_seconds: float = 0.0

    def prices(self, rate: float) -> Prices:
        """What a row and a draft step must earn where a second earns so many tokens."""
        return Prices(rate * self.node_seconds, rate * (self.step_seconds + self.saved_seconds))

    def gain(self, place: int, curve: Curve, rate: float) -> float:
        """Tokens that drafting for a candidate is expected to earn, its price taken off."""
        depth = self.depths[place]
        seconds = self.node_seconds * curve.rows[depth] + self.step_seconds * sum(curve.reaches[1 : depth + 1])
        return curve.tokens[depth] - rate * seconds


class Search:
    """Compares plans of one source for one batch.

    Args:
        offered: share of the steps in which the source has a guess at all.
    """

    def __init__(
        self, costs: StepCosts, source: str, base: Base, candidates: list[Candidate], offered: float = 1.0
    ) -> None:
        self.costs = costs
        self.base = base
        self.offered = offered
        self.candidates = candidates
        self.fixed, self.step = costs.draft(source, max(1, len(candidates)))
        self._reaches = self._any_reaches()

    def best(self, last_cap: int, max_cap: int) -> Plan:
        """The fastest plan."""
        best = Plan(0, [0] * len(self.candidates), self.base.rate)
        best_rate = best.rate * (1.0 if last_cap else START_ADVANTAGE)
        num_worse = 0
        for cap in DEPTHS:
            if cap > max_cap or num_worse == NUM_WORSE:
                break
            num_worse += 1
            for depths in self._depths(cap):
                rate = self._rate(depths)
                worth = rate * (DEPTH_ADVANTAGE if cap == last_cap else 1.0)
                if worth > best_rate:
                    best, best_rate, num_worse = Plan(cap, depths, rate), worth, 0
        if best.cap:
            self._cost(best)
        return best

    def _depths(self, cap: int) -> list[list[int]]:
        """Depths worth trying within a cap: all as deep as it, and each as deep as its survivals justify."""
        even = [min(cap, candidate.limit, len(candidate.curve.tokens) - 1) for candidate in self.candidates]
        if not any(even):
            return []
        if len(even) == 1:
            return [even]
        full = self._target(even)
        price = self.base.rate * (full - self.base.seconds) / sum(even)
        justified = [_justified(candidate, depth, price) for candidate, depth in zip(self.candidates, even, strict=True)]
        plans = [even] if justified == even or not any(justified) else [justified, even]
        leaving_out = [depth if own else 0 for depth, own in zip(even, justified, strict=True)]
        return plans if leaving_out in plans or not any(leaving_out) else [*plans, leaving_out]

    def _rate(self, depths: list[int]) -> float:
        """Tokens per second that are expected."""
        tokens, expected_rows, entry, num_rows = float(len(self.base.num_rows)), 0.0, 0.0, 0
        for candidate, depth in zip(self.candidates, depths, strict=True):
            if depth:
                tokens += candidate.curve.tokens[depth]
                expected_rows += candidate.curve.rows[depth]
                entry += candidate.entry_seconds
                num_rows += depth
        seconds = self._target(depths)
        share = expected_rows / num_rows
        if share < 0.999:
            seconds = self._expected_target(depths, seconds, share)
        seconds += entry + self.fixed + self.step * sum(self._reaches[: max(depths)])
        if self.costs.change_seconds:
            seconds += self.costs.change_seconds * self._chance_of_change(depths, share)
        plain_tokens, plain_seconds = len(self.base.num_rows), self.base.seconds
        tokens = plain_tokens + self.offered * (tokens - plain_tokens)
        return tokens / (plain_seconds + self.offered * (seconds - plain_seconds))

    def _target(self, depths: list[int]) -> float:
        num_rows = list(self.base.num_rows)
        for candidate, depth in zip(self.candidates, depths, strict=True):
            num_rows[candidate.place] += depth
        computed = self.costs.computed_rows(num_rows)
        return self.base.seconds + self.costs.target(computed) - self.costs.target(self.base.computed)

    def _expected_target(self, depths: list[int], full: float, share: float) -> float:
        """Where drafts stop early: exact for a single sequence, in between for several."""
        if len(depths) > 1:
            usual, least = _shortened(depths, share), _shortened(depths, max(0.0, 2 * share - 1))
            return (self._target(least) + 2 * self._target(usual) + full) / 4
        rows = self.candidates[0].curve.rows
        seconds, before = 0.0, self.base.seconds
        for depth in range(1, depths[0] + 1):
            after = self._target([depth])
            seconds += (rows[depth] - rows[depth - 1]) * (after - before)
            before = after
        return self.base.seconds + seconds

    def _chance_of_change(self, depths: list[int], share: float) -> float:
        """How often the number of rows computed would change, from step to step and now."""
        num_rows = list(self.base.num_rows)
        for candidate, depth in zip(self.candidates, depths, strict=True):
            num_rows[candidate.place] += depth
        computed = self.costs.computed_rows(num_rows)
        now = 1 / USUAL_NUM_STEPS if computed != self.costs.last_rows else 0.0
        is_flat = self.costs.computed_rows([1 + int(share * (rows - 1)) for rows in num_rows]) == computed
        return now + (0.0 if is_flat else 2 * share * (1 - share))

    def _any_reaches(self) -> list[float]:
        """For each depth the chance that some candidate's draft takes its step."""
        if len(self.candidates) == 1:
            return list(self.candidates[0].curve.reaches[1:])
        none: list[float] = []
        for candidate in self.candidates:
            for depth, reach in enumerate(candidate.curve.reaches[1:]):
                if depth == len(none):
                    none.append(1.0)
                none[depth] *= 1 - reach
        return [1 - chance for chance in none]

    def _cost(self, plan: Plan) -> None:
        """Note what rows and steps of a plan take."""
        full = self._target(plan.depths)
        plan.node_seconds = max(0.0, full - self.base.seconds) / sum(plan.depths)
        # Where several draft, a step is taken for others anyway: whether to go so deep is the cap's to say.
        plan.step_seconds = self.step / sum(depth > 0 for depth in plan.depths) ** 2
        plan.saved_seconds = self._saved(plan, full)

    def _saved(self, plan: Plan, full: float) -> float:
        """Seconds that stopping early saves for a row less: none within a stair."""
        if len(plan.depths) == 1:
            return plan.node_seconds if self._target([1]) < full else 0.0
        share = self._share(plan.depths)
        usual = _shortened(plan.depths, share)
        num_saved = sum(plan.depths) - sum(usual)
        return min(max(0.0, full - self._target(usual)) / num_saved, plan.node_seconds) if num_saved else 0.0

    def _share(self, depths: list[int]) -> float:
        """Of the nodes allowed, those that are expected."""
        drafted = [(candidate, depth) for candidate, depth in zip(self.candidates, depths, strict=True) if depth]
        return sum(candidate.curve.rows[depth] for candidate, depth in drafted) / sum(depths)


def _shortened(depths: list[int], share: float) -> list[int]:
    """As many rows less, spread evenly."""
    shortened: list[int] = []
    owed = 0.0
    for depth in depths:
        owed += depth * share
        shortened.append(min(depth, int(owed + 0.5)))
        owed -= shortened[-1]
    return shortened


def _justified(candidate: Candidate, depth: int, price: float) -> int:
    """The deepest depth whose last node pays for its row; sequences drafted for already are left alone for longer."""
    if candidate.is_drafted:
        price *= 0.95
    tokens, rows = candidate.curve.tokens, candidate.curve.rows
    while depth and tokens[depth] - tokens[depth - 1] < price * (rows[depth] - rows[depth - 1]):
        depth -= 1
    return depth


def break_even(costs: StepCosts, source: str, base: Base, places: Sequences[int]) -> float | None:
    """The least agreement, the same at each depth and for each of these sequences, at which some depth beats plain.

    None if even a drafter that is always right would lose.
    """
    fixed, step = costs.draft(source, len(places))
    plain = costs.target(base.computed)
    least: float | None = None
    for depth in DEPTHS:
        num_rows = list(base.num_rows)
        for place in places:
            num_rows[place] += depth
        extra = costs.target(costs.computed_rows(num_rows)) - plain + fixed + step * depth
        wanted = extra * base.rate / len(places)
        if _num_survivors(1.0 if least is None else least, depth) > wanted:
            least = _agreement_for(wanted, depth, 1.0 if least is None else least)
    return least


def _num_survivors(agreement: float, depth: int) -> float:
    return float(depth) if agreement == 1 else agreement * (1 - agreement**depth) / (1 - agreement)


def _agreement_for(wanted: float, depth: int, high: float) -> float:
    """The agreement at which a draft of this depth earns so many tokens, by halving."""
    low = 0.0
    while high - low > 1e-4:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _num_survivors(middle, depth) > wanted else (middle, high)
    return high
