"""Survival and costs to a speedup, with an interval; and the agreement below which nothing would be gained.

    tokens a step    1 + the sum of survivals, as walking the known texts counts them
    seconds a step   draft(the longest draft) + target(rows of all sequences) + what is neither
                     and what steps take longer when a text begins, with drafts and without,
                     or when the target computes another number of rows than in the step before
    speedup          tokens a step * seconds of a plain step / seconds of a step

Knows numbers only.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from outrider.predict.clock import Later, of_turns, parts_of, pooled
from outrider.predict.costs import Costs, StepSeconds, Timing
from outrider.predict.interval import Estimate, Uncertainty, combined, left_out, spread
from outrider.predict.together import BatchStep, Filling, batch_steps, plain_joinings
from outrider.predict.trace import CHAINS, Trace, Walk, Way, survival_of
from outrider.predict.walks import num_kept_at_once, walks_of

# Standard deviation of the logarithm of what seconds timed now and seconds timed later differ by, over and above what
# the rounds show: an allowance, not a measurement.
DRIFT = 0.02


class Leavings(NamedTuple):
    """Logarithms of a speedup with one prompt, and with one part of the rounds of timing, left out in turn.

    Attributes:
        timed_with: the rounds' name: what was timed in the same rounds was slowed by the same.
    """

    prompts: tuple[float, ...] = ()
    rounds: tuple[float, ...] = ()
    timed_with: str = ""


NOTHING_LEFT_OUT = Leavings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one setting is expected to come to.

    Attributes:
        drafter, depth, temperature, num_sequences: the setting; of trees, `depth` is the number of their nodes.
        speedup: over plain decoding.
        tokens_per_step: 1 and the sum of `survival`.
        survival: by depth, of all steps.
        agreement: share of all tokens that would be guessed right at once; under block verification, of first guesses
            that would be kept.
        break_even: the agreement at which this depth would just pay if guesses were right independently of each other,
            and of trees if more of their misses were of that kind, see `break_even_of_tree`; None where no agreement
            would do.
        seconds: of a step, by "draft", "target" and "other".
        plain_seconds: of a plain step.
        num_prompts: that the survival is of.
        leavings: what the interval was made from, for `compare`.
        way: that drafts are made and kept.
    """

    drafter: str
    depth: int
    temperature: float
    num_sequences: int
    speedup: Estimate
    tokens_per_step: float
    survival: list[float]
    agreement: float
    break_even: float | None
    seconds: dict[str, float]
    plain_seconds: float
    num_prompts: int
    leavings: Leavings = NOTHING_LEFT_OUT
    way: Way = CHAINS


def compare(first: Forecast, second: Forecast, drift: float = DRIFT) -> Estimate:
    """The first one's speedup over the second's, of the same texts: what both owe to a prompt or a round cancels out.

    Where what was left out is not known of both alike, ends are set against ends, which is as wide as it can be.
    """
    value = first.speedup.value / second.speedup.value
    ours, theirs = first.leavings, second.leavings
    if not ours.prompts or len(ours.prompts) != len(theirs.prompts) or first.temperature != second.temperature:
        low = first.speedup.low / second.speedup.high
        return Estimate(value, low, first.speedup.high / second.speedup.low if second.speedup.low else math.inf)
    sources = [spread(_differences(ours.prompts, theirs.prompts)), Uncertainty(drift**2, math.inf)]
    if (ours.timed_with, len(ours.rounds)) == (theirs.timed_with, len(theirs.rounds)):
        sources.append(spread(_differences(ours.rounds, theirs.rounds)))
    else:
        sources += [spread(ours.rounds), spread(theirs.rounds)]
    return combined(value, sources)


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(first, second, strict=True)]


class Predictor:
    """Predictions from one set of timings.

    Args:
        timings: timed settings, of which there are to be no more.
        filling: of the target's rows.
        drift: see `DRIFT`.
        name: of these timings, see `Leavings`.
        way: that drafts are made and kept; the timings are of it, and of plain steps.
    """

    def __init__(
        self,
        timings: Sequence[Timing],
        filling: Filling,
        drift: float = DRIFT,
        name: str = "",
        way: Way = CHAINS,
    ) -> None:
        self._timings = timings
        self._way = way
        self._filling = filling
        self._drift = drift
        self._name = name
        self._costs: dict[tuple[bool, int, frozenset[int] | None], Costs] = {}
        self._of_rounds: dict[int, Uncertainty] = {}

    def costs(self, temperature: float, num_sequences: int, rounds: frozenset[int] | None = None) -> Costs:
        """Of steps at this temperature, perhaps as if there had been these rounds only."""
        is_greedy = temperature == 0
        key = is_greedy, num_sequences, rounds
        if key not in self._costs:
            timings = [timing for timing in self._timings if rounds is None or timing.round in rounds]
            self._costs[key] = Costs(timings, self._filling.computed, is_greedy=is_greedy, num_sequences=num_sequences)
        return self._costs[key]

    def predict(
        self, drafter: str, traces: Sequence[Trace], depth: int, num_sequences: int, *, later: Later | None = None
    ) -> Forecast | None:
        """Of texts that one drafter would have drafted at one temperature; None where nothing was timed for it.

        Args:
            drafter: its name.
            traces: of the texts.
            depth, num_sequences: the setting.
            later: that the interval is to hold the speedup of, when it is measured; None: that of all such texts.
        """
        temperature = traces[0].temperature
        costs = self.costs(temperature, num_sequences)
        if not costs.is_known:
            return None
        by_text = [walks_of(trace, depth, self._way) for trace in traces]
        walks = [walk for each in zip(*by_text, strict=True) for walk in each]
        look_up = math.fsum(trace.look_up_seconds for trace in traces) / len(traces)
        plan = _Plan(walks, len(traces), num_sequences, self._filling, look_up)
        speedup = plan.speedup(costs)
        leavings = Leavings(
            plan.without_prompts(costs),
            left_out(
                parts_of(costs.rounds),
                lambda parts: plan.speedup(self.costs(temperature, num_sequences, frozenset(chain(*parts)))),
            ),
            self._name,
        )
        prompts, turns = spread(leavings.prompts), list[Uncertainty]()
        if later is not None:  # those texts, and the seconds that they are written in, are of chance, too
            prompts = prompts._replace(variance=prompts.variance * (1 + len(traces) / later.num_texts))
            turns = of_turns(self._timings, num_sequences, later)
        sources = [prompts, self._rounds(num_sequences), *turns]
        sources.append(Uncertainty(self._drift**2, math.inf))
        seconds = plan.step_seconds(costs)
        survival = survival_of(walks)
        agreement = sum(num_kept_at_once(trace, self._way) for trace in traces) / sum(map(_num_tokens, traces))
        step_ratio = math.fsum(seconds.values()) / costs.plain.total
        is_tree = self._way.max_children > 1
        return Forecast(
            drafter=drafter,
            depth=depth,
            temperature=temperature,
            num_sequences=num_sequences,
            speedup=combined(speedup, sources),
            tokens_per_step=1 + math.fsum(survival),
            survival=survival,
            agreement=agreement,
            break_even=break_even_of_tree(survival, agreement, step_ratio)
            if is_tree
            else break_even(depth, step_ratio),
            seconds=seconds,
            plain_seconds=costs.plain.total,
            num_prompts=len(traces),
            leavings=leavings,
            way=self._way,
        )

    def _rounds(self, num_sequences: int) -> Uncertainty:
        """What a speedup with so many sequences owes to which rounds there were: as all settings show it together.

        Where there was one round only, it is taken for as sure as one was of the nearest number of sequences.
        """
        if num_sequences not in self._of_rounds:
            timed = {timing.num_sequences for timing in self._timings}
            for nearest in sorted(timed, key=lambda each: abs(each - num_sequences)):
                found, num_rounds = self._rounds_shown(nearest)
                if nearest != num_sequences:
                    found = found._replace(variance=found.variance * num_rounds)
                self._of_rounds[num_sequences] = found
                if math.isfinite(found.variance):
                    break
        return self._of_rounds[num_sequences]

    def _rounds_shown(self, num_sequences: int) -> tuple[Uncertainty, int]:
        """By the rounds of so many sequences; and how many they are."""
        timings = [timing for timing in self._timings if timing.num_sequences == num_sequences]
        rounds = sorted({timing.round for timing in timings})
        parts, found = parts_of(rounds), list[Uncertainty]()
        for is_greedy in {timing.is_greedy for timing in timings}:
            depths = {timing.depth for timing in timings if timing.is_greedy == is_greedy} - {0}
            temperature = 0.0 if is_greedy else 1.0
            if depths and self.costs(temperature, num_sequences).is_known:
                found.append(pooled(parts, partial(self._ratios, temperature, num_sequences, sorted(depths))))
        if not found:
            return Uncertainty(math.inf, 1), len(rounds)
        variance = math.fsum(each.variance for each in found) / len(found)
        return Uncertainty(variance, math.fsum(each.freedom for each in found)), len(rounds)

    def _ratios(
        self, temperature: float, num_sequences: int, depths: Sequence[int], parts: Sequence[Sequence[int]]
    ) -> list[float]:
        """Of a plain step's seconds to those of each depth, as if there had been these rounds only."""
        costs = self.costs(temperature, num_sequences, frozenset(chain(*parts)))
        plain = costs.plain.total
        return [plain / costs.step(depth, num_sequences * (depth + 1)).total for depth in depths]


def _num_tokens(trace: Trace) -> int:
    return len(trace.roots)


def break_even(depth: int, step_ratio: float) -> float | None:
    """The agreement at which a chain of this depth earns its price.

    Args:
        depth: guesses a step, each right with the same probability, whatever the others are.
        step_ratio: seconds of a step with drafts over those of a plain step.
    """
    if step_ratio > depth + 1:
        return None
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        tokens = math.fsum(middle**power for power in range(depth + 1))
        low, high = (middle, high) if tokens < step_ratio else (low, middle)
    return high


def break_even_of_tree(survival: Sequence[float], agreement: float, step_ratio: float) -> float | None:
    """The agreement at which a tree earns its price, if misses at all depths become more as those of first guesses do.

    Args:
        survival: by depth, as it is.
        agreement: as it is.
        step_ratio: as of `break_even`.
    """
    kept = [deeper / before for before, deeper in pairwise([1.0, *survival]) if deeper]
    low, high = 0.0, 1.0

    def tokens(wanted: float) -> float:
        misses = (1 - wanted) / max(1 - agreement, 1e-9)
        chances = (max(1 - (1 - each) * misses, 0.0) for each in kept)
        return 1 + math.fsum(accumulate(chances, operator.mul))

    if tokens(high) < step_ratio:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tokens(middle) < step_ratio else (low, middle)
    return high


class _Plan:
    """Texts and the steps that they take part in, to be priced.

    Args:
        walks: of all texts, perhaps of all of them again.
        num_texts: texts.
        num_sequences: at once.
        filling: of the target's rows.
        look_up: seconds of a step that go into guesses that no model makes.
    """

    def __init__(
        self, walks: Sequence[Walk], num_texts: int, num_sequences: int, filling: Filling, look_up: float
    ) -> None:
        self._num_texts = num_texts
        self._num_emitted = tuple(each.num_emitted for each in walks)
        self._joinings = plain_joinings(self._num_emitted, num_sequences)
        self._steps = batch_steps(walks, num_sequences, filling)
        self._look_up = look_up
        self._change_seconds = filling.change_seconds
        self._asks_model = any(each.asks_model for each in walks)

    def speedup(self, costs: Costs) -> float:
        return _ratio(self._seconds(costs))

    def without_prompts(self, costs: Costs) -> tuple[float, ...]:
        return left_out(self._seconds(costs), _ratio)

    def step_seconds(self, costs: Costs) -> dict[str, float]:
        """Of a mean step, by where they go."""
        num_steps = sum(each.total() for each in self._steps)
        totals = {"draft": 0.0, "target": 0.0, "other": 0.0}
        prices = self._prices(costs)
        for each in self._steps:
            for step, count in each.items():
                for stage, seconds in prices[step]._asdict().items():
                    totals[stage] += count * seconds / num_steps
        return totals

    def _seconds(self, costs: Costs) -> list[tuple[float, float]]:
        """Plain and speculative seconds of each text: of all steps that it takes part in, the whole."""
        prices, plain = self._prices(costs), costs.plain.total
        of_walks = [
            (
                num_emitted * plain + num_joined * costs.first_plain,
                math.fsum(count * prices[step].total for step, count in steps.items()),
            )
            for num_emitted, num_joined, steps in zip(self._num_emitted, self._joinings, self._steps, strict=True)
        ]
        parts = (of_walks[text :: self._num_texts] for text in range(self._num_texts))
        return [(math.fsum(plain for plain, _ in part), math.fsum(own for _, own in part)) for part in parts]

    def _prices(self, costs: Costs) -> dict[BatchStep, StepSeconds]:
        found: dict[BatchStep, StepSeconds] = {}
        # With texts that begin, the target goes over from a prompt's rows once, and a draft model reads each prompt.
        read = max(costs.first - costs.first_plain, 0.0) if self._asks_model else 0.0
        for step in {step for each in self._steps for step in each}:
            price = costs.step(step.num_drafted, step.num_rows, step.num_draft_steps)
            found[step] = price._replace(
                draft=price.draft + self._look_up + step.num_joined * read,
                target=price.target + bool(step.num_joined) * costs.first_plain + step.is_change * self._change_seconds,
            )
        return found


def _ratio(seconds: Sequence[tuple[float, float]]) -> float:
    return math.fsum(plain for plain, _ in seconds) / math.fsum(speculative for _, speculative in seconds)
