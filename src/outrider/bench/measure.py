"""What several measurements say together. Knows no models and no clocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A median, and between what it lies with 95 % confidence."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median of independent measurements, with a percentile bootstrap interval (Efron 1979).

    Args:
        values: one for each unit that was drawn independently: each prompt, not each repetition of one.
        seed: of the resampling.
    """
    resampled = np.random.default_rng(seed).choice(np.asarray(values), size=(NUM_RESAMPLES, len(values)))
    low, high = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    return Interval(float(np.median(values)), float(low), float(high))
