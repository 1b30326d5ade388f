"""What several measurements say together. Knows no models and no clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A median, and between what it lies with 95 % confidence."""

    median: float
    low: float
    high: float


class Spread(NamedTuple):
    """Where the middle of many values lies, and what 95 % of them do not exceed."""

    median: float
    p95: float


def median_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median of independent measurements, with a percentile bootstrap interval (Efron 1979).

    Args:
        values: one for each unit that was drawn independently: each prompt, not each repetition of one.
        seed: of the resampling.
    """
    low, high = np.quantile(_resampled_medians(values, np.random.default_rng(seed)), (0.025, 0.975))
    return Interval(float(np.median(values)), float(low), float(high))


def geometric_mean_interval(groups: Sequence[Sequence[float]], *, seed: int = 0) -> Interval:
    """The geometric mean of groups' medians, with a bootstrap interval: each group is resampled by itself.

    Args:
        groups: positive measurements; of each kind of prompt, say.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    logarithms = np.mean([np.log(_resampled_medians(values, generator)) for values in groups], axis=0)
    low, high = np.exp(np.quantile(logarithms, (0.025, 0.975)))
    mean = np.exp(np.mean([np.log(np.median(values)) for values in groups]))
    return Interval(float(mean), float(low), float(high))


def ratios(numerators: Mapping[str, Sequence[float]], denominators: Mapping[str, Sequence[float]]) -> list[float]:
    """For each prompt `numerator / denominator`, each summed over the prompt's rounds.

    A prompt is the unit that is resampled: its rounds repeat the same text, so they are not independent.
    """
    return [sum(numerators[name]) / sum(denominators[name]) for name in numerators]


def paired_ratio(numerators: Mapping[str, Sequence[float]], denominators: Mapping[str, Sequence[float]]) -> Interval:
    """Median over prompts of their `ratios`."""
    return median_interval(ratios(numerators, denominators))


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    return Spread(*map(float, np.quantile(values, (0.5, 0.95)))) if values else None


def _resampled_medians(values: Sequence[float], generator: np.random.Generator) -> NDArray[np.float64]:
    return np.median(generator.choice(np.asarray(values, np.float64), size=(NUM_RESAMPLES, len(values))), axis=1)
