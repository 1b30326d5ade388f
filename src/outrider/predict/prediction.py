"""Survival and costs to a speedup, with an interval; and the agreement below which nothing would be gained.

    tokens a step    1 + the sum of survivals, as walking the known texts counts them
    seconds a step   draft(guesses, sequences) + target(rows, sequences) + what is neither
                     and once a text what its first step takes longer, with drafts and without
    speedup          tokens a step * seconds of a plain step / seconds of a step

Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from outrider.predict.costs import Costs, StepSeconds, Timing
from outrider.predict.interval import Estimate, Uncertainty, combined, left_out, spread
from outrider.predict.trace import Trace, Walk, survival_of, walk

# Standard deviation of the logarithm of what seconds timed now and seconds timed later differ by, over and above what
# the rounds show: an allowance, not a measurement.
DRIFT = 0.02


class Leavings(NamedTuple):
    """Logarithms of a speedup with one prompt, and with one round of timing, left out in turn.

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
        drafter, depth, temperature, num_sequences: the setting.
        speedup: over plain decoding.
        tokens_per_step: 1 and the sum of `survival`.
        survival: by depth, of all steps.
        agreement: share of all tokens that would be guessed right at once.
        break_even: the agreement at which this depth would just pay if guesses were right independently of each other;
            None where no agreement would do.
        seconds: of a step, by "draft", "target" and "other".
        plain_seconds: of a plain step.
        num_prompts: that the survival is of.
        leavings: what the interval was made from, for `compare`.
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
        timings: timed settings.
        computed_rows: how many rows the target computes for so many.
        drift: see `DRIFT`.
        name: of these timings, see `Leavings`.
    """

    def __init__(
        self, timings: Sequence[Timing], computed_rows: Callable[[int], int], drift: float = DRIFT, name: str = ""
    ) -> None:
        self._timings = timings
        self._computed_rows = computed_rows
        self._drift = drift
        self._name = name

    def costs(self, temperature: float, num_sequences: int, rounds: frozenset[int] | None = None) -> Costs:
        """Of steps at this temperature, perhaps as if there had been these rounds only."""
        timings = [timing for timing in self._timings if rounds is None or timing.round in rounds]
        return Costs(timings, self._computed_rows, is_greedy=temperature == 0, num_sequences=num_sequences)

    def predict(
        self, drafter: str, traces: Sequence[Trace], depth: int, num_sequences: int, *, num_later: int | None = None
    ) -> Forecast | None:
        """Of texts that one drafter would have drafted at one temperature; None where nothing was timed for it.

        Args:
            drafter: its name.
            traces: of the texts.
            depth, num_sequences: the setting.
            num_later: texts of other prompts that the interval is to hold the speedup of; None: of all such texts.
        """
        temperature = traces[0].temperature
        costs = self.costs(temperature, num_sequences)
        if not costs.is_known:
            return None
        walks = [walk(trace, depth) for trace in traces]
        look_up = math.fsum(trace.look_up_seconds for trace in traces) / len(traces)
        plan = _Plan(walks, look_up)
        speedup = plan.speedup(costs)
        leavings = Leavings(
            plan.without_prompts(costs),
            left_out(
                costs.rounds, lambda rounds: plan.speedup(self.costs(temperature, num_sequences, frozenset(rounds)))
            ),
            self._name,
        )
        prompts = spread(leavings.prompts)
        if num_later is not None:  # those are of chance, too
            prompts = prompts._replace(variance=prompts.variance * (1 + len(traces) / num_later))
        sources = [prompts, spread(leavings.rounds), Uncertainty(self._drift**2, math.inf)]
        seconds = plan.step_seconds(costs)
        survival = survival_of(walks)
        return Forecast(
            drafter=drafter,
            depth=depth,
            temperature=temperature,
            num_sequences=num_sequences,
            speedup=combined(speedup, sources),
            tokens_per_step=1 + math.fsum(survival),
            survival=survival,
            agreement=sum(trace.num_agreed for trace in traces) / sum(len(trace.roots) for trace in traces),
            break_even=break_even(depth, math.fsum(seconds.values()) / costs.plain.total),
            seconds=seconds,
            plain_seconds=costs.plain.total,
            num_prompts=len(traces),
            leavings=leavings,
        )


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


class _Plan:
    """Steps that are known, to be priced."""

    def __init__(self, walks: Sequence[Walk], look_up: float) -> None:
        self._walks = walks
        self._look_up = look_up
        num_steps = sum(each.num_steps for each in walks)
        self._mean_drafted = math.fsum(each.mean_drafted * each.num_steps for each in walks) / num_steps
        self._share_modelled = math.fsum(each.share_modelled * each.num_steps for each in walks) / num_steps

    def speedup(self, costs: Costs) -> float:
        return _ratio(self._seconds(costs))

    def without_prompts(self, costs: Costs) -> tuple[float, ...]:
        return left_out(self._seconds(costs), _ratio)

    def step_seconds(self, costs: Costs) -> dict[str, float]:
        """Of a mean step, by where they go; what a first one takes longer is spread over all."""
        num_steps = sum(each.num_steps for each in self._walks)
        share = len(self._walks) / num_steps
        read = max(self._first(costs) - costs.first_plain, 0.0)
        totals = {"draft": read * share, "target": (self._first(costs) - read) * share, "other": 0.0}
        for each in self._walks:
            for (drafted, is_modelled), count in each.kinds.items():
                step = self._step(costs, drafted, is_modelled=is_modelled)
                totals["draft"] += count * (step.draft + self._look_up) / num_steps
                totals["target"] += count * step.target / num_steps
                totals["other"] += count * step.other / num_steps
        return totals

    def _seconds(self, costs: Costs) -> list[tuple[float, float]]:
        """Plain and speculative seconds of each text."""
        pairs: list[tuple[float, float]] = []
        for each in self._walks:
            seconds = self._first(costs)
            for (drafted, is_modelled), count in each.kinds.items():
                seconds += count * (self._step(costs, drafted, is_modelled=is_modelled).total + self._look_up)
            pairs.append((each.num_emitted * costs.plain.total + costs.first_plain, seconds))
        return pairs

    def _step(self, costs: Costs, drafted: int, *, is_modelled: bool) -> StepSeconds:
        """The other sequences of the step are taken to draft as much as all do on average."""
        others = costs.num_sequences - 1
        mean = (drafted + others * self._mean_drafted) / costs.num_sequences
        asked = 1.0 if is_modelled and drafted else 1.0 - (1.0 - self._share_modelled) ** others
        return costs.step(mean, costs.num_sequences * (1 + mean), asked)

    def _first(self, costs: Costs) -> float:
        return costs.first if self._share_modelled > 0 else costs.first_plain


def _ratio(seconds: Sequence[tuple[float, float]]) -> float:
    return math.fsum(plain for plain, _ in seconds) / math.fsum(speculative for _, speculative in seconds)
