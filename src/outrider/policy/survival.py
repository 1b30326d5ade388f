"""How likely guesses are to be accepted, learned while decoding. Knows no costs and no drafters.

Only what verification reached is learned from: what stands after the first mismatch of a chain was never compared.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

# A source that was never seen is given this much agreement, with the weight of this many tokens: enough for a try.
FIRST_MEAN = 0.7
FIRST_WEIGHT = 3.0
# What a sequence's own evidence is weighed against: its source's mean, with the weight of this many tokens.
SOURCE_WEIGHT = 5.0
# Per token of the text, drafted for or not: texts change character, some of them often.
FAST_MEMORY, SLOW_MEMORY = 0.93, 0.985
TRUST_MEMORY = 0.99  # per guess, of which of the two has told the future better
SOURCE_MEMORY = 0.997  # per guess
MAX_SHIFT_DEPTH = 8
SHIFT_WEIGHT = 30.0
MAX_CHANCE = 0.995
MIN_CHANCE = 0.005

FIT_MEMORY = 0.995
PRIOR_PRECISION = (4.0, 4.0, 12.0)
PRIOR_WEIGHTS = (0.0, 0.0, 1.0)
MAX_STEP = 0.5
RESOLUTION_WEIGHT = 40.0


def logit(chance: float) -> float:
    """The inverse of `sigmoid`, away from its ends."""
    chance = min(max(chance, MIN_CHANCE), MAX_CHANCE)
    return math.log(chance / (1.0 - chance))


def sigmoid(exponent: float) -> float:
    """Between 0 and 1."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, exponent))))


class Evidence:
    """What was seen of one source on one text, twice: fading fast and fading slowly as the text goes on."""

    __slots__ = ("at_token", "hits", "num", "slow_hits", "slow_num")

    def __init__(self, at_token: int) -> None:
        self.hits = self.num = self.slow_hits = self.slow_num = 0.0
        self.at_token = at_token

    def fade(self, at_token: int) -> None:
        if at_token > self.at_token:
            kept = FAST_MEMORY ** (at_token - self.at_token)
            self.hits *= kept
            self.num *= kept
            kept = SLOW_MEMORY ** (at_token - self.at_token)
            self.slow_hits *= kept
            self.slow_num *= kept
            self.at_token = at_token

    def means(self, usual: float) -> tuple[float, float]:
        """The fast estimate and the slow one, each leaning on what is usual."""
        lean = SOURCE_WEIGHT * usual
        return (
            min(max((self.hits + lean) / (self.num + SOURCE_WEIGHT), MIN_CHANCE), MAX_CHANCE),
            min(max((self.slow_hits + lean) / (self.slow_num + SOURCE_WEIGHT), MIN_CHANCE), MAX_CHANCE),
        )


class ScoreFit:
    """A logistic curve over [1, standardised score, logit of the sequence's mean], fitted by small Newton steps."""

    def __init__(self) -> None:
        self.weights = list(PRIOR_WEIGHTS)
        self._gradient = [0.0, 0.0, 0.0]
        self._curvature = [0.0] * 6  # 00, 01, 02, 11, 12, 22
        self._num = self._sum = self._squares = 0.0
        self.score_mean, self.score_scale = 0.0, 1.0
        self._difference = self._spread = self._most = 0.0
        self._num_pending = 0

    def add(self, score: float, mean_logit: float, outcome: bool) -> None:  # noqa: FBT001
        """One guess that was verified."""
        self._num = SOURCE_MEMORY * self._num + 1
        self._sum = SOURCE_MEMORY * self._sum + score
        self._squares = SOURCE_MEMORY * self._squares + score * score
        if self._num == 1:
            self.score_mean = score
        place = min(max((score - self.score_mean) / self.score_scale, -4.0), 4.0)
        first, second, third = self.weights
        chance = sigmoid(first + second * place + third * mean_logit)
        error, weight = outcome - chance, max(chance * (1.0 - chance), 0.01)
        gradient, curvature = self._gradient, self._curvature
        gradient[0] += error
        gradient[1] += error * place
        gradient[2] += error * mean_logit
        curvature[0] += weight
        curvature[1] += weight * place
        curvature[2] += weight * mean_logit
        weight_place = weight * place
        curvature[3] += weight_place * place
        curvature[4] += weight_place * mean_logit
        curvature[5] += weight * mean_logit * mean_logit
        mean = sigmoid(mean_logit)
        difference = chance - mean
        self._difference = SOURCE_MEMORY * self._difference + difference
        self._spread = SOURCE_MEMORY * self._spread + difference * difference
        self._most = SOURCE_MEMORY * self._most + mean * (1.0 - mean)
        self._num_pending += 1

    def update(self) -> None:
        """Take one Newton step with all that was added since the last."""
        if not self._num_pending:
            return
        weights, curvature = self.weights, self._curvature
        prior = PRIOR_PRECISION
        gradient = [
            slope + precision * (usual - weight) * (1 - FIT_MEMORY**self._num_pending)
            for slope, precision, usual, weight in zip(self._gradient, prior, PRIOR_WEIGHTS, weights, strict=True)
        ]
        steps = _solve(curvature, prior, gradient)
        for index, step in enumerate(steps):
            weights[index] += min(max(step, -MAX_STEP), MAX_STEP)
        weights[1] = max(weights[1], 0.0)  # a higher score never speaks against a guess
        kept = FIT_MEMORY**self._num_pending
        self._curvature = [kept * value for value in curvature]
        self._gradient = [0.0, 0.0, 0.0]
        self._num_pending = 0
        self.score_mean = self._sum / self._num
        variance = self._squares / self._num - self.score_mean * self.score_mean
        self.score_scale = math.sqrt(variance) if variance > 1e-12 else 1.0

    @property
    def resolution(self) -> float:
        """The share of what is uncertain about a guess that its score settles: 0 is nothing, 1 all of it."""
        if not self._num:
            return 0.0
        share = (self._spread - self._difference * self._difference / self._num) / max(self._most, 1e-9)
        return min(0.9, max(0.0, share) * self._num / (self._num + RESOLUTION_WEIGHT))

    def line(self, mean: float) -> tuple[float, float]:
        """Intercept and slope over raw scores, for a sequence of this mean."""
        first, second, third = self.weights
        slope = second / self.score_scale
        return first + third * logit(mean) - slope * self.score_mean, slope


class SourceSurvival:
    """What was seen of one source on all texts."""

    def __init__(self) -> None:
        self.fit = ScoreFit()
        self.has_scores = False
        self.num_accepted = 0
        self.num_verified = 0
        self.trust = 0.5  # in the slow estimate
        self._better = 0.0
        self._hits = self._num = 0.0
        self._hits_at = [0.0] * MAX_SHIFT_DEPTH
        self._num_at = [0.0] * MAX_SHIFT_DEPTH
        # Of the mean's logit, by depth; evidence is weighed by what is usual at its depth.
        self.shifts: tuple[float, ...] = (0.0,) * MAX_SHIFT_DEPTH
        self._factors: tuple[float, ...] = (1.0,) * MAX_SHIFT_DEPTH
        self._num_since_factors = 0

    @property
    def agreement(self) -> float:
        """How often a guess is accepted, over all texts of late."""
        return (self._hits + FIRST_WEIGHT * FIRST_MEAN) / (self._num + FIRST_WEIGHT)

    def mean(self, evidence: Evidence, at_token: int) -> float:
        """How often a guess is accepted on one text."""
        evidence.fade(at_token)
        fast, slow = evidence.means(self.agreement)
        return fast + self.trust * (slow - fast)

    def hope(self, evidence: Evidence, at_token: int) -> float:
        """What the mean may well turn out to be: a standard deviation above the estimate."""
        mean = self.mean(evidence, at_token)
        return mean + math.sqrt(mean * (1 - mean) / (evidence.slow_num + SOURCE_WEIGHT + 1))

    def observe(
        self, evidence: Evidence, at_token: int, num_accepted: int, scores: tuple[float, ...] | None, *, is_cut: bool
    ) -> None:
        """Learn from a chain: `num_accepted` guesses were right, and the next was wrong if the chain `is_cut` there."""
        num_verified = num_accepted + is_cut
        fast, slow = evidence.means(self.agreement)
        kept = TRUST_MEMORY**num_verified
        self._better = kept * self._better + num_accepted * math.log(slow / fast)
        if is_cut:
            self._better += math.log((1 - slow) / (1 - fast))
        if scores is not None:
            self.has_scores = True
            mean_logit = logit(fast + self.trust * (slow - fast))
            for depth in range(num_verified):
                self.fit.add(scores[depth], mean_logit, depth < num_accepted)
        self.trust = sigmoid(self._better)
        kept = SOURCE_MEMORY**num_verified
        self._hits = kept * self._hits + num_accepted
        self._num = kept * self._num + num_verified
        evidence.fade(at_token)
        factors, last = self._factors, MAX_SHIFT_DEPTH - 1
        expected = 0.0
        for depth in range(num_verified):
            place = min(depth, last)
            self._num_at[place] = SOURCE_MEMORY * self._num_at[place] + 1
            self._hits_at[place] = SOURCE_MEMORY * self._hits_at[place] + (depth < num_accepted)
            expected += factors[place]
        evidence.num += expected
        evidence.slow_num += expected
        evidence.hits += num_accepted
        evidence.slow_hits += num_accepted
        self.num_accepted += num_accepted
        self.num_verified += num_verified
        self._num_since_factors += num_verified

    def describe(self) -> dict[str, Any]:
        """Agreement over all texts, and how it changes with depth."""
        return {
            "agreement": self.agreement,
            "num_verified": self.num_verified,
            "num_accepted": self.num_accepted,
            "by_depth": [sigmoid(logit(self.agreement) + shift) for shift in self.shifts],
            "resolution": self.fit.resolution,
        }

    def update(self) -> None:
        """Take in what was observed in a step."""
        self.fit.update()
        if self._num_since_factors >= 32:
            self._num_since_factors = 0
            mean = self._hits / max(self._num, 1e-9)
            if mean > MIN_CHANCE:
                by_depth = [
                    (hits + SHIFT_WEIGHT * mean) / (num + SHIFT_WEIGHT)
                    for hits, num in zip(self._hits_at, self._num_at, strict=True)
                ]
                self.shifts = tuple(round(logit(chance) - logit(mean), 1) for chance in by_depth)
                self._factors = tuple(chance / mean for chance in by_depth)


class Curve(NamedTuple):
    """What a draft on one text is expected to come to, by its largest depth; place 0 is no draft.

    Attributes:
        tokens, rows: accepted tokens, and nodes that are verified.
        reaches: chance that the draft step of this depth is taken.
    """

    tokens: tuple[float, ...]
    rows: tuple[float, ...]
    reaches: tuple[float, ...]


class Prices(NamedTuple):
    """Tokens that one row more, and one draft step more with its row, must earn."""

    node: float
    step: float

    def rounded(self) -> Prices:
        """Prices a tenth apart are as good as equal."""
        return Prices(_rounded(self.node), _rounded(self.step))


@lru_cache(maxsize=4096)
def curve_of(
    mean: float, resolution: float, prices: Prices, shifts: tuple[float, ...], max_depth: int, least: float
) -> Curve:
    """Of a drafter that stops by its scores, up to where a depth more is expected to add less than `least` tokens.

    The survival of a path is taken to be log-normal: its mean is the product of the means, its second moment that of
    guesses whose scores settle the share `resolution` of what is uncertain.
    """
    tokens, rows, reaches = [0.0], [0.0], [1.0]
    variance = math.log(1 + resolution * (1 - mean) / mean)
    log_survival, mean_logit = 0.0, logit(mean)
    for depth in range(1, max_depth + 1):
        chance = sigmoid(mean_logit + shifts[min(depth, len(shifts)) - 1])
        if depth == 1:
            reach, kept, gained = 1.0, 1.0, chance
        elif variance < 1e-4:
            reach, kept, gained = 1.0, 1.0, math.exp(log_survival) * chance
        else:
            least_before = max(prices.step / mean, 1e-9)
            earned, reach = _above(log_survival, (depth - 1) * variance, least_before)
            earned_kept, kept = _above(log_survival + math.log(chance), depth * variance, max(prices.node, 1e-9))
            reach = min(reach, reaches[-1])
            kept, gained = min(reach, kept), min(chance * earned, earned_kept)
        log_survival += math.log(chance)
        if gained < least:
            break
        tokens.append(tokens[-1] + gained)
        rows.append(rows[-1] + kept)
        reaches.append(reach)
    return Curve(tuple(tokens), tuple(rows), tuple(reaches))


def _above(log_mean: float, variance: float, least: float) -> tuple[float, float]:
    """Of a log-normal number: its expectation where it is at least `least`, and the chance of that."""
    width = math.sqrt(2 * variance)
    distance = (log_mean - 0.5 * variance - math.log(least)) / width
    return (
        math.exp(log_mean) * 0.5 * math.erfc(-(distance + variance / width)),
        0.5 * math.erfc(-distance),
    )


def _rounded(price: float) -> float:
    return 0.0 if price < 1e-4 else math.exp(round(math.log(price) * 10) / 10)


def _solve(curvature: list[float], precision: tuple[float, ...], gradient: list[float]) -> tuple[float, float, float]:
    """Of three equations with a symmetric positive matrix, by Cramer's rule."""
    aa, ab, ac, bb, bc, cc = curvature
    aa, bb, cc = aa + precision[0], bb + precision[1], cc + precision[2]
    left, middle, right = bb * cc - bc * bc, ac * bc - ab * cc, ab * bc - ac * bb
    scale = 1 / (aa * left + ab * middle + ac * right)
    first, second, third = gradient
    return (
        scale * (left * first + middle * second + right * third),
        scale * (middle * first + (aa * cc - ac * ac) * second + (ab * ac - aa * bc) * third),
        scale * (right * first + (ab * ac - aa * bc) * second + (aa * bb - ab * ab) * third),
    )
