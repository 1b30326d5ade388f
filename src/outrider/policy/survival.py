"""How likely guesses are to be accepted, learned while decoding. Knows no costs and no drafters.

Only what verification reached is learned from: what stands after the first mismatch of a chain was never compared.
"""

from __future__ import annotations

import math
from typing import Any

from outrider.policy.curve import MAX_CHANCE, MIN_CHANCE, logit, sigmoid

# A source that was never seen is given this much agreement, with the weight of this many tokens: enough for a try.
FIRST_MEAN, FIRST_WEIGHT = 0.7, 3.0
# What a text's own evidence is weighed against: its source's mean, with the weight of this many tokens. The fast
# estimate leans on it less, or a text that turns bad would be taken for an average one for long.
FAST_WEIGHT, SOURCE_WEIGHT = 2.0, 5.0
# Per token of the text, drafted for or not: texts change character, some of them often.
FAST_MEMORY, SLOW_MEMORY = 0.93, 0.985
TRUST_MEMORY = 0.99  # per guess, of which of the two has told the future better
SOURCE_MEMORY = 0.997  # per guess

NUM_DEPTHS = 8  # told apart; deeper guesses count as the last
DEPTH_WEIGHT = 30.0
MAX_AT_DEPTH = 400.0
SHIFT_GUESSES = 96  # after so many guesses, depths are compared anew

# Of the second guess at a place, the third and so on where those before are wrong: until it is seen, with the weight of
# this many places.
FIRST_SIBLINGS, SIBLING_WEIGHT = (0.3, 0.2, 0.15), 4.0
SIBLING_MEMORY, SIBLING_FADING = 0.98, 0.997  # per place, and per plan that does without

FIT_MEMORY = 0.995
FIT_WEIGHTS, FIT_PRECISION = (0.0, 0.0, 1.0), (4.0, 4.0, 12.0)
MAX_FIT_STEP = 0.5
MIN_FIT_GUESSES, MAX_FIT_GUESSES = 4, 16  # per step: more would take longer than they tell
RESOLUTION_WEIGHT, MAX_RESOLUTION = 40.0, 0.9


class Evidence:
    """What was seen of one source on one text, twice: fading fast and fading slowly as the text goes on.

    Attributes:
        is_silent: whether the source had no guess when it was last asked.
    """

    __slots__ = ("at_token", "hits", "is_silent", "num", "slow_hits", "slow_num")

    def __init__(self, at_token: int) -> None:
        self.hits = self.num = self.slow_hits = self.slow_num = 0.0
        self.at_token = at_token
        self.is_silent = False

    def fade(self, at_token: int) -> None:
        num_passed = at_token - self.at_token
        if num_passed > 0 and self.slow_num:
            kept = FAST_MEMORY**num_passed
            self.hits *= kept
            self.num *= kept
            kept = SLOW_MEMORY**num_passed
            self.slow_hits *= kept
            self.slow_num *= kept
        self.at_token = at_token

    def add(self, num_hits: int, expected: float) -> None:
        """So many were right of as many as `expected` counts for."""
        self.hits += num_hits
        self.slow_hits += num_hits
        self.num += expected
        self.slow_num += expected

    def means(self, usual: float) -> tuple[float, float]:
        """The fast estimate and the slow one, each leaning on what is usual."""
        fast = (self.hits + FAST_WEIGHT * usual) / (self.num + FAST_WEIGHT)
        slow = (self.slow_hits + SOURCE_WEIGHT * usual) / (self.slow_num + SOURCE_WEIGHT)
        return min(max(fast, MIN_CHANCE), MAX_CHANCE), min(max(slow, MIN_CHANCE), MAX_CHANCE)


class Siblings:
    """How often a second guess at a place is right, a third and so on, where those before it are wrong.

    Attributes:
        num_observed: places where the first guess was wrong and others stood beside it.
    """

    def __init__(self) -> None:
        self.num_observed = 0
        self._hits, self._num = [0.0] * len(FIRST_SIBLINGS), [0.0] * len(FIRST_SIBLINGS)

    def observe(self, rank: int | None, num_beside: int) -> None:
        """At a place with so many guesses beside the first, the right one was this far behind it; None is none."""
        self.num_observed += num_beside > 0
        for place in range(min(num_beside if rank is None else rank, len(self._num))):
            self._num[place] = SIBLING_MEMORY * self._num[place] + 1
            self._hits[place] = SIBLING_MEMORY * self._hits[place] + (rank == place + 1)

    def fade(self) -> None:
        """What has not been tried for long may have changed."""
        self._num = [SIBLING_FADING * num for num in self._num]
        self._hits = [SIBLING_FADING * hits for hits in self._hits]

    def chances(self, count: int, *, is_hopeful: bool) -> tuple[float, ...]:
        """Of so many; with hope, what is usual is expected until it is seen, and without, nothing is."""
        usual = FIRST_SIBLINGS if is_hopeful else (0.0,) * len(FIRST_SIBLINGS)
        return tuple(
            (hits + SIBLING_WEIGHT * first) / (num + SIBLING_WEIGHT)
            for hits, num, first in zip(self._hits, self._num, usual, strict=True)
        )[:count]


class ScoreFit:
    """A logistic curve over [1, standardised score, logit of the text's mean], fitted by small Newton steps."""

    def __init__(self) -> None:
        self.weights = list(FIT_WEIGHTS)
        self.score_mean, self.score_scale = 0.0, 1.0
        self._gradient = [0.0, 0.0, 0.0]
        self._curvature = [0.0] * 6  # of the pairs 00, 01, 02, 11, 12, 22
        self._num = self._sum = self._squares = 0.0
        self._difference = self._spread = self._most = 0.0
        self._num_pending = 0

    def add(self, score: float, mean_logit: float, mean: float, outcome: bool) -> None:
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
        weight_place, weight_mean = weight * place, weight * mean_logit
        curvature[0] += weight
        curvature[1] += weight_place
        curvature[2] += weight_mean
        curvature[3] += weight_place * place
        curvature[4] += weight_place * mean_logit
        curvature[5] += weight_mean * mean_logit
        difference = chance - mean
        self._difference = SOURCE_MEMORY * self._difference + difference
        self._spread = SOURCE_MEMORY * self._spread + difference * difference
        self._most = SOURCE_MEMORY * self._most + mean * (1.0 - mean)
        self._num_pending += 1

    def update(self) -> None:
        """Take one Newton step with all that was added since the last, once that is worth it."""
        if self._num_pending < MIN_FIT_GUESSES:
            return
        weights = self.weights
        kept = FIT_MEMORY**self._num_pending
        gradient = [
            slope + (1 - kept) * precision * (usual - weight)
            for slope, precision, usual, weight in zip(self._gradient, FIT_PRECISION, FIT_WEIGHTS, weights, strict=True)
        ]
        for index, step in enumerate(_solve(self._curvature, FIT_PRECISION, gradient)):
            weights[index] += min(max(step, -MAX_FIT_STEP), MAX_FIT_STEP)
        weights[1] = max(weights[1], 0.0)  # a higher score never speaks against a guess
        self._curvature = [kept * value for value in self._curvature]
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
        return min(MAX_RESOLUTION, max(0.0, share) * self._num / (self._num + RESOLUTION_WEIGHT))

    def line(self, mean: float) -> tuple[float, float]:
        """Intercept and slope over raw scores, for a text of this mean."""
        first, second, third = self.weights
        slope = second / self.score_scale
        return first + third * logit(mean) - slope * self.score_mean, slope


class SourceSurvival:
    """What was seen of one source on all texts.

    Attributes:
        num_verified, num_accepted: guesses, ever.
        shifts: of a mean's logit, by depth.
        trust: in the slow estimates against the fast ones, between 0 and 1.
    """

    def __init__(self) -> None:
        self.fit = ScoreFit()
        self.num_verified = self.num_accepted = 0
        self.trust = 0.5
        self.shifts = (0.0,) * NUM_DEPTHS
        self._expected = tuple(range(NUM_DEPTHS + 1))  # hits of an average text, by guesses, in units of its mean
        self._better = self._hits = self._num = 0.0
        self._hits_at, self._num_at = [0.0] * NUM_DEPTHS, [0.0] * NUM_DEPTHS
        self._num_unshifted = self._num_seen = self._num_last = 0

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
        self,
        evidence: Evidence,
        at_token: int,
        num_accepted: int,
        scores: tuple[float, ...] | None,
        *,
        is_cut: bool,
        num_before: int = 0,
    ) -> None:
        """Learn from a chain: `num_accepted` guesses were right, and the next was wrong if the chain `is_cut` there.

        Guesses of a tree that stand below others than the first come as a chain after the `num_before` above them.
        """
        num_verified = num_accepted + is_cut
        if not num_verified:
            return
        fast, slow = evidence.means(self.agreement)
        self._better *= TRUST_MEMORY**num_verified
        self._better += num_accepted * math.log(slow / fast) + is_cut * math.log((1 - slow) / (1 - fast))
        if scores is not None:
            self._fit(fast + self.trust * (slow - fast), scores, num_accepted, num_verified)
        self.trust = sigmoid(self._better)
        kept = SOURCE_MEMORY**num_verified
        self._hits = kept * self._hits + num_accepted
        self._num = kept * self._num + num_verified
        self._count_depths(num_before, num_accepted, num_verified)
        evidence.fade(at_token)
        expected = self._expected_hits(num_before + num_verified)
        evidence.add(num_accepted, expected - self._expected_hits(num_before) if num_before else expected)
        self.num_accepted += num_accepted
        self.num_verified += num_verified
        self._num_seen += num_verified

    def update(self) -> None:
        """Take in what was observed in a step."""
        self.fit.update()
        self._num_last, self._num_seen = self._num_seen, 0
        self._num_unshifted += self._num_last
        if self._num_unshifted < SHIFT_GUESSES:
            return
        self._num_unshifted = 0
        mean = max(self._hits / max(self._num, 1e-9), MIN_CHANCE)
        chances = [
            (hits + DEPTH_WEIGHT * mean) / (num + DEPTH_WEIGHT)
            for hits, num in zip(self._hits_at, self._num_at, strict=True)
        ]
        self.shifts = tuple(round(logit(chance) - logit(mean), 1) for chance in chances)
        self._expected = tuple(sum(chances[:depth]) / mean for depth in range(NUM_DEPTHS + 1))
        if max(self._num_at) > MAX_AT_DEPTH:
            self._hits_at = [0.5 * hits for hits in self._hits_at]
            self._num_at = [0.5 * num for num in self._num_at]

    def describe(self) -> dict[str, Any]:
        """Agreement over all texts, and by depth."""
        usual = logit(self.agreement)
        return {
            "agreement": self.agreement,
            "num_verified": self.num_verified,
            "num_accepted": self.num_accepted,
            "by_depth": [sigmoid(usual + shift) for shift in self.shifts],
            "resolution": self.fit.resolution,
        }

    def _expected_hits(self, num_verified: int) -> float:
        """Of an average text's first so many guesses."""
        num_told = min(num_verified, NUM_DEPTHS)
        return self._expected[num_told] + (num_verified - num_told) * (self._expected[-1] - self._expected[-2])

    def _fit(self, mean: float, scores: tuple[float, ...], num_accepted: int, num_verified: int) -> None:
        """Every so manieth guess of a step, whatever became of it."""
        stride = 1 + self._num_last // MAX_FIT_GUESSES
        mean_logit = logit(mean)
        for depth in range(-self._num_seen % stride, num_verified, stride):
            self.fit.add(scores[depth], mean_logit, mean, depth < num_accepted)

    def _count_depths(self, first: int, num_accepted: int, num_verified: int) -> None:
        hits_at, num_at = self._hits_at, self._num_at
        for depth in range(first, min(first + num_verified, NUM_DEPTHS)):
            num_at[depth] += 1
        for depth in range(first, min(first + num_accepted, NUM_DEPTHS)):
            hits_at[depth] += 1
        deepest = max(first, NUM_DEPTHS)
        num_at[-1] += max(0, first + num_verified - deepest)
        hits_at[-1] += max(0, first + num_accepted - deepest)


def _solve(curvature: list[float], precision: tuple[float, ...], gradient: list[float]) -> tuple[float, float, float]:
    """Of three equations with a symmetric positive matrix, by Cramer's rule."""
    aa, ab, ac, bb, bc, cc = curvature
    aa, bb, cc = aa + precision[0], bb + precision[1], cc + precision[2]
    left, middle, right = bb * cc - bc * bc, ac * bc - ab * cc, ab * bc - ac * bb
    scale = 1 / (aa * left + ab * middle + ac * right)
    first, second, third = gradient
    lower = ab * ac - aa * bc
    return (
        scale * (left * first + middle * second + right * third),
        scale * (middle * first + (aa * cc - ac * ac) * second + lower * third),
        scale * (right * first + lower * second + (aa * bb - ab * ab) * third),
    )
