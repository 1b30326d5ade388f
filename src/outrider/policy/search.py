"""Which depths are fastest for a batch as a whole. Knows costs and survivals; no texts and no drafters.

A plan's rate is the tokens that a step is expected to add over the seconds that it is expected to take. The best one
need not be found node by node: target costs are a staircase, so that whole plans are compared, one for each limit on
depth. What a second is worth in tokens at the rate of the best plan is the price at which drafters stop by themselves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Sequences

from outrider.policy.cost import StepCosts
from outrider.policy.plan import Base, Candidate, Comb, Plan, Settled

DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
NUM_WORSE = 3  # plans in a row, after which deeper ones are not looked at
NUM_SHALLOWER = 3  # than the plan in force, that are looked at
# A plan must be this much better than the one in force, so that noise does not make decisions flap.
DEPTH_ADVANTAGE = 1.01
# What a source that does not draft must be expected to gain, to start.
START_ADVANTAGE = 0.02
# The same for several sequences, to go on and to start: there, the best plan is often one that looks too good.
SHARED_ADVANTAGE, SHARED_START_ADVANTAGE = 0.03, 0.04
# Steps after which a plan is taken to be replaced, by which the cost of changing to it is divided.
USUAL_NUM_STEPS = 16
# A source that seldom has a guess costs as seldom: it is judged as if it had one at least so often.
LEAST_OFFERED = 0.25
# Of steps in which drafts of several sequences keep few rows, as many as usual, and all.
VARIANTS = (1, 2, 1)


class Search:
    """Compares plans of one source for one batch.

    Args:
        offered: share of the sequences and steps in which the source's drafts are taken, others having none better; of
            a text alone, of the steps that these leave.
        trust: how much of what a plan promises to gain it is taken to keep; 0 is nothing.
    """

    def __init__(
        self,
        costs: StepCosts,
        source: str,
        base: Base,
        candidates: list[Candidate],
        offered: float = 1.0,
        trust: float = 1.0,
    ) -> None:
        self.costs = costs
        plain = costs.target(base.computed, base.num_sequences)
        self.base = base
        # Of the target in a step in which no cheaper source has a guess, and none is made.
        self._idle = self._beside_settled(base.computed, plain)
        self.base = base._replace(seconds=base.seconds + self._idle - plain)
        self.candidates = candidates
        self.fixed, self.step = costs.draft(source, len(candidates))
        # Where a cheaper source drafts already, there is as much to think about without this one: it is in the base.
        is_thought = base.num_drafted > 0 or base.settled is not None
        self._thinking = 0.0 if is_thought else costs.thinking.beyond_idle(base.num_sequences)
        self._offered = offered
        self._trust = trust
        # A step is paid for if one sequence needs it, however many do without.
        self._payers = (1 - (1 - offered) ** len(candidates)) / offered
        self._reaches = self._any_reaches()
        self._places = tuple(candidate.place for candidate in candidates)

    def best(self, last_cap: int, max_cap: int, max_loss: float) -> Plan:
        """The fastest plan in which no more than `max_loss` seconds are lost if nothing is accepted."""
        best = Plan(0, [0] * len(self.candidates), self.base.rate)
        best_rate = self.least_rate(is_drafting=last_cap > 0)
        num_worse = 0
        first = DEPTHS.index(last_cap) - NUM_SHALLOWER if last_cap else 0
        for cap in DEPTHS[max(0, first) :]:
            if cap > max_cap or num_worse == NUM_WORSE:
                break
            num_worse += 1
            for depths in self._depths(cap):
                loss = self._target(depths) - self.base.seconds + self._thinking + self.fixed + self.step * cap
                if cap > 1 and loss > max_loss:
                    continue
                rate, _ = self._expected(depths, max(self._offered, LEAST_OFFERED))
                worth = rate * (DEPTH_ADVANTAGE if cap == last_cap else 1.0)
                if worth > best_rate:
                    best, best_rate, num_worse = Plan(cap, depths, rate), worth, 0
        if best.cap:
            best.rate, best.seconds = self._expected(best.depths, self._offered)
            self.price(best)
        return best

    def least_rate(self, *, is_drafting: bool) -> float:
        """Tokens per second that a plan must promise to be better than the step without it."""
        if not self._trust:
            return math.inf
        if self.base.num_sequences == 1:
            return self.base.rate * (1.0 if is_drafting else 1.0 + START_ADVANTAGE)
        return self.base.rate * (1 + (SHARED_ADVANTAGE if is_drafting else SHARED_START_ADVANTAGE) / self._trust)

    def depths_at(self, cap: int) -> list[int]:
        """As deep as a cap, as far as each candidate allows."""
        return [min(cap, candidate.limit, candidate.curve.depth) for candidate in self.candidates]

    def num_rows(self, depths: Sequences[int]) -> int:
        """Wanted of the target."""
        return sum(self.base.num_rows) + sum(depths)

    def loss(self, cap: int, num_rows: int) -> float:
        """Seconds that are lost if nothing is accepted."""
        return self._beyond_idle(num_rows) + self._thinking + self.fixed + self.step * cap

    def expected_with(self, depths: list[int], comb: Comb, seconds: float) -> tuple[float, float]:
        """Tokens per second, and seconds of a step, of chains with siblings, which take so many seconds more.

        Drafts that stop early are not reckoned with: others' siblings take their rows.
        """
        num_rows = self.num_rows(depths) + comb.num_beside
        tokens, offered = comb.tokens, max(self._offered, LEAST_OFFERED)
        seconds += self._beyond_idle(num_rows)
        seconds += self.costs.change(self.costs.computed_rows([num_rows])) / USUAL_NUM_STEPS
        seconds += comb.factor * self._payers * (self.fixed + self.step * sum(self._reaches[: max(depths)]))
        for candidate, depth in zip(self.candidates, depths, strict=True):
            if depth:
                tokens += candidate.curve.tokens[depth]
                seconds += candidate.entry_seconds
        seconds = self.base.seconds + self._thinking + offered * seconds
        return (self.base.num_tokens + offered * tokens) / seconds, seconds

    def _beyond_idle(self, num_rows: int) -> float:
        """Seconds of the target that so many rows take longer."""
        computed = self.costs.computed_rows([num_rows])
        return self._beside_settled(computed, self.costs.target(computed, self.base.num_sequences)) - self._idle

    def _depths(self, cap: int) -> list[list[int]]:
        """Depths worth trying within a cap: as deep as it, as survivals justify, or as it where any depth pays."""
        even = self.depths_at(cap)
        if not any(even):
            return []
        if len(even) == 1:
            return [even]
        price = self.base.rate * (self._target(even) - self.base.seconds) / sum(even)
        own = [_justified(candidate, depth, price) for candidate, depth in zip(self.candidates, even, strict=True)]
        if own == even or not any(own):
            return [even]
        some = [depth if justified else 0 for depth, justified in zip(even, own, strict=True)]
        return [own, even] if some in (own, even) else [own, even, some]

    def _expected(self, depths: list[int], offered: float) -> tuple[float, float]:
        """Tokens per second, and seconds of a step."""
        tokens, expected_rows, entry, num_rows, num_drafting = 0.0, 0.0, 0.0, 0, 0
        for candidate, depth in zip(self.candidates, depths, strict=True):
            if depth:
                tokens += candidate.curve.tokens[depth]
                expected_rows += candidate.curve.rows[depth]
                entry += candidate.entry_seconds
                num_rows += depth
                num_drafting += 1
        any_offered = 1 - (1 - offered) ** num_drafting
        target = self._usual_target(depths, expected_rows / num_rows * offered / any_offered)
        seconds = any_offered * target + (1 - any_offered) * self._idle_target(depths, target, any_offered)
        seconds += offered * (self.costs.change(self._computed(depths)) / USUAL_NUM_STEPS + entry)
        seconds += self._thinking + any_offered * (self.fixed + self.step * sum(self._reaches[: max(depths)]))
        return (self.base.num_tokens + offered * tokens) / seconds, seconds

    def _idle_target(self, depths: list[int], drafted: float, any_offered: float) -> float:
        """Of a step in which nobody has a guess: the runtime stays at the rows of steps that have, or changes twice."""
        return min(drafted, self.base.seconds + 2 * any_offered * self._change(depths))

    def _target(self, depths: Sequences[int]) -> float:
        """Seconds of the step with these guesses, what makes them left out."""
        key = (*self._places, *depths)
        found = self.base.known.get(key)
        if found is None:
            computed = self._computed(depths)
            found = self.base.known[key] = computed, self.costs.target(computed, self.base.num_sequences)
        return self.base.seconds + (self._beside_settled(*found) - self._idle)

    def _beside_settled(self, computed: int, seconds: float) -> float:
        """Of a forward of so many rows, where steps with a cheaper source's drafts come between.

        The runtime stays at these steps' rows, in which a few more guesses are for nothing, or changes twice.
        """
        settled = self.base.settled
        if settled is None:
            return seconds
        staying = self.costs.target(max(computed, settled.computed))
        return min(staying, seconds + 2 * settled.offered * self.costs.change_between(computed, settled.computed))

    def _computed(self, depths: Sequences[int]) -> int:
        num_rows = list(self.base.num_rows)
        for candidate, depth in zip(self.candidates, depths, strict=True):
            num_rows[candidate.place] += depth
        return self.costs.computed_rows(num_rows)

    def _usual_target(self, depths: list[int], share: float) -> float:
        """Where drafts may stop early and verify this share of their rows.

        The runtime does not follow each draft where changes are dear: it stays at the rows of the longest.
        """
        full = self._target(depths)
        if share >= 0.999:
            return full
        changes = 2 * share * (1 - share) if len(depths) == 1 else self._change_chance(depths, share)
        return min(full, self._varying_target(depths, full, share) + changes * self._change(depths))

    def _change_chance(self, depths: list[int], share: float) -> float:
        """That two steps of several sequences compute different numbers of rows, as they vary below."""
        weights = Counter[int]()
        for shortened, weight in zip(_variants(depths, share), VARIANTS, strict=True):
            weights[self._computed(shortened)] += weight
        return 1 - sum(weight**2 for weight in weights.values()) / sum(VARIANTS) ** 2

    def _varying_target(self, depths: list[int], full: float, share: float) -> float:
        """The mean over how many rows there are: exact for a single sequence, about right for several."""
        if len(depths) > 1:
            seconds = [self._target(shortened) for shortened in _variants(depths, share)]
            return sum(weight * each for weight, each in zip(VARIANTS, seconds, strict=True)) / sum(VARIANTS)
        rows = self.candidates[0].curve.rows
        seconds = before = self.base.seconds
        for depth in range(1, depths[0] + 1):
            after = self._target((depth,))
            seconds += (rows[depth] - rows[depth - 1]) * (after - before)
            before = after
        return seconds

    def _change(self, depths: list[int]) -> float:
        return self.costs.change_between(self._computed(depths), self.base.computed)

    def _any_reaches(self) -> list[float]:
        """For each depth the chance that some candidate's draft takes its step."""
        if len(self.candidates) == 1:
            return list(self.candidates[0].curve.reaches[1:])
        counts = Counter(id(candidate.curve) for candidate in self.candidates)
        curves = {id(candidate.curve): candidate.curve for candidate in self.candidates}
        none = [1.0] * max(curve.depth for curve in curves.values())
        for key, curve in curves.items():
            for depth in range(curve.depth):
                none[depth] *= (1 - curve.reaches[depth + 1]) ** counts[key]
        return [1 - chance for chance in none]

    def price(self, plan: Plan) -> None:
        """Note what rows and steps of a plan take, and what it settles for dearer sources."""
        if self.base.num_sequences == 1:
            num_rows = self.num_rows(plan.depths) + (plan.comb.num_beside if plan.comb else 0)
            own = Settled(self.costs.computed_rows([num_rows]), self._offered)
            plan.settled = max(own, self.base.settled or own, key=lambda each: each.offered)
        full = self._target(plan.depths)
        num_drafting = sum(depth > 0 for depth in plan.depths)
        plan.node_seconds = max(0.0, full - self.base.seconds) / sum(plan.depths)
        plan.saved_seconds = self._saved(plan, full)
        plan.shared_seconds = self.step * self._payers / num_drafting
        # Where several draft, a step is likely to be taken for another: how deep to go is for the cap to say.
        plan.step_seconds = self.step / num_drafting**2

    def _saved(self, plan: Plan, full: float) -> float:
        """Seconds that stopping early saves for a row less: none within a stair, or where changes are dear."""
        num_rows = sum(plan.depths)
        expected = sum(
            candidate.curve.rows[depth] for candidate, depth in zip(self.candidates, plan.depths, strict=True)
        )
        if num_rows - expected < 1e-3 * num_rows:
            return plan.node_seconds
        saved = full - self._usual_target(plan.depths, expected / num_rows)
        return min(saved / (num_rows - expected), plan.node_seconds)


def _variants(depths: list[int], share: float) -> list[list[int]]:
    """Drafts of several sequences that keep this share of their rows: few, as many as usual, all."""
    return [_shortened(depths, max(0.0, 2 * share - 1)), _shortened(depths, share), depths]


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
    plain = costs.target(base.computed, base.num_sequences)
    least: float | None = None
    for depth in DEPTHS:
        num_rows = list(base.num_rows)
        for place in places:
            num_rows[place] += depth
        extra = costs.target(costs.computed_rows(num_rows), base.num_sequences) - plain + fixed + step * depth
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
