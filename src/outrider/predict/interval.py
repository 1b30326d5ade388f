"""How sure a number is: ratios of sums over prompts, with intervals that hold for few prompts too. Knows numbers only.

An estimate's error has several independent sources (which prompts, which seconds of the clock). Each is measured by
leaving out one unit at a time (the jackknife, Quenouille 1949 and Tukey 1958), and they are added up on the logarithmic
scale with the degrees of freedom of Welch (1947).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Unit = TypeVar("Unit")
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
# Student's quantile where it is steep, by degrees of freedom.
FEW_FREEDOM = ((1, 12.706), (2, 4.303), (3, 3.182))


class Estimate(NamedTuple):
    """A value, and between what it lies with 95 % confidence."""

    value: float
    low: float
    high: float


class Uncertainty(NamedTuple):
    """Of the logarithm of an estimate, from one source: variance, and degrees of freedom it was measured with."""

    variance: float
    freedom: float


def jackknife(units: Sequence[Unit], statistic: Callable[[Sequence[Unit]], float]) -> Uncertainty:
    """How much the logarithm of a positive statistic owes to which units there happen to be.

    One unit says nothing of others: its variance is infinite.
    """
    return spread(left_out(units, statistic))


def left_out(units: Sequence[Unit], statistic: Callable[[Sequence[Unit]], float]) -> tuple[float, ...]:
    """Logarithms of a positive statistic with each unit left out in turn; nothing where there is one only."""
    if len(units) < 2:
        return ()
    return tuple(math.log(statistic([*units[:place], *units[place + 1 :]])) for place in range(len(units)))


def spread(logs: Sequence[float]) -> Uncertainty:
    """What `left_out` says of the whole."""
    count = len(logs)
    if count < 2:
        return Uncertainty(math.inf, 1)
    mean = math.fsum(logs) / count
    return Uncertainty((count - 1) / count * math.fsum((value - mean) ** 2 for value in logs), count - 1)


def combined(value: float, sources: Sequence[Uncertainty]) -> Estimate:
    """The value with an interval that all sources together make."""
    variance = math.fsum(source.variance for source in sources)
    if not math.isfinite(variance):
        return Estimate(value, 0.0, math.inf)
    if variance == 0:
        return Estimate(value, value, value)
    shares = math.fsum(source.variance**2 / source.freedom for source in sources)
    freedom = variance**2 / shares if shares else math.inf
    width = student_quantile(freedom) * math.sqrt(variance)
    return Estimate(value, value * math.exp(-width), value * math.exp(width))


def student_quantile(freedom: float) -> float:
    """What Student's t exceeds in 2.5 % of all cases (Cornish and Fisher's expansion).

    Below 3 it lies between tabulated values: the logarithm on a line over one over the freedom, within 3 %.
    """
    if freedom < FEW_FREEDOM[-1][0]:
        place = 1 / max(freedom, 1.0)
        (fewer, high), (more, low) = FEW_FREEDOM[:2] if freedom < FEW_FREEDOM[1][0] else FEW_FREEDOM[1:]
        return low * (high / low) ** ((place - 1 / more) / (1 / fewer - 1 / more))
    z = 1.959964
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def share_interval(counts: Sequence[tuple[float, float]], *, seed: int = 0) -> Estimate | None:
    """A share of sums, `sum(first) / sum(second)`, with a percentile bootstrap interval over prompts (Efron 1979).

    Args:
        counts: of each prompt, the drawn unit.
        seed: of the resampling.
    """
    values = np.asarray(counts, np.float64).reshape(-1, 2)
    total = values[:, 1].sum()
    if not total:
        return None
    generator = np.random.default_rng(seed)
    chosen = values[generator.integers(len(values), size=(NUM_RESAMPLES, len(values)))].sum(axis=1)
    shares = chosen[:, 0] / np.maximum(chosen[:, 1], 1e-12)
    low, high = np.quantile(shares, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return Estimate(float(values[:, 0].sum() / total), float(low), float(high))
