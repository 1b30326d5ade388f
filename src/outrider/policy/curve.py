"""What a draft is expected to come to, depth by depth, given that its drafter stops by scores. Knows numbers only."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

MAX_CHANCE = 0.995
MIN_CHANCE = 0.005
# A depth that is expected to add fewer tokens is not looked at.
LEAST_TOKENS = 0.006


def logit(chance: float) -> float:
    """The inverse of `sigmoid`, away from its ends."""
    chance = min(max(chance, MIN_CHANCE), MAX_CHANCE)
    return math.log(chance / (1.0 - chance))


def sigmoid(exponent: float) -> float:
    """Between 0 and 1."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, exponent))))


class Prices(NamedTuple):
    """Tokens that one row more, and one draft step more with what rows it costs, must earn."""

    node: float
    step: float

    def rounded(self) -> Prices:
        """Prices a fifth apart are as good as equal."""
        return Prices(_rounded(self.node), _rounded(self.step))


class Curve(NamedTuple):
    """A draft on one text, by its largest depth; place 0 is no draft.

    Attributes:
        tokens, rows: accepted tokens, and nodes that are verified, as expected.
        reaches: chance that the draft step of this depth is taken.
    """

    tokens: tuple[float, ...]
    rows: tuple[float, ...]
    reaches: tuple[float, ...]

    @property
    def depth(self) -> int:
        """The deepest that is worth a look."""
        return len(self.tokens) - 1


@lru_cache(maxsize=8192)
def curve_of(mean_logit: float, shifts: tuple[float, ...], resolution: float, prices: Prices, max_depth: int) -> Curve:
    """Of a source whose guesses are right with this logit, shifted by depth.

    A path's survival is taken to be log-normal. Its mean is the product of the means; its second moment is that of
    guesses whose scores settle the share `resolution` of what is uncertain about them.
    """
    tokens, rows, reaches = [0.0], [0.0], [1.0]
    mean = sigmoid(mean_logit)
    variance = math.log(1 + resolution * (1 - mean) / mean)
    least_step, least_node = max(prices.step / mean, 1e-9), max(prices.node, 1e-9)
    log_survival = 0.0
    for depth in range(1, max_depth + 1):
        chance = min(sigmoid(mean_logit + shifts[min(depth, len(shifts)) - 1]), MAX_CHANCE)
        before, log_survival = log_survival, log_survival + math.log(chance)
        reach, kept, gained = 1.0, 1.0, math.exp(log_survival)
        if depth > 1 and variance > 1e-4:
            earned, reach = _above(before, (depth - 1) * variance, least_step)
            kept_earned, kept = _above(log_survival, depth * variance, least_node)
            reach = min(reach, reaches[-1])
            kept, gained = min(reach, kept), min(chance * earned, kept_earned)
        if gained < LEAST_TOKENS:
            break
        tokens.append(tokens[-1] + gained)
        rows.append(rows[-1] + kept)
        reaches.append(reach)
    return Curve(tuple(tokens), tuple(rows), tuple(reaches))


def _above(log_mean: float, variance: float, least: float) -> tuple[float, float]:
    """Of a log-normal number: its expectation where it is at least `least`, and the chance of that."""
    width = math.sqrt(2 * variance)
    distance = (log_mean - 0.5 * variance - math.log(least)) / width
    return 0.5 * math.exp(log_mean) * math.erfc(-(distance + variance / width)), 0.5 * math.erfc(-distance)


def _rounded(price: float) -> float:
    return 0.0 if price < 1e-4 else math.exp(round(math.log(price) * 5) / 5)
