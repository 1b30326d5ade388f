"""What drafts cost on this machine: learned while decoding. Knows no sequences and no clocks."""

from __future__ import annotations

import math
from typing import Any

# Of a draft step: what computing one token of the text costs, and a drafter of unknown cost in plain steps.
ASSUMED_CATCH_UP_SHARE = 0.05
ASSUMED_DRAFT_SHARE = 0.1
# Twice as many sequences are taken to make a draft step so much dearer, until it is seen.
ASSUMED_GROWTH = 1.12

NUM_FIRST = 3  # drafts, which may be far from what was thought
NUM_PRIOR = 1.5  # drafts, up to which a prior counts
MEMORY = 0.97  # of a draft's costs, per observation
RIDGE = 10.0  # drafts are often all of one depth, which does not tell the two parts apart


class _Line:
    """Seconds of a draft by its steps: a fixed part and a part per step, old observations fading.

    Args:
        slope: at first.
        prior: what a step takes by itself, if known: what one depth alone takes more is shared by the two parts.
    """

    __slots__ = ("_num", "_prior", "_products", "_seconds", "_squares", "_steps", "fixed", "num_added", "slope")

    def __init__(self, slope: float, prior: float | None) -> None:
        self.fixed, self.slope, self._prior, self.num_added = 0.0, slope, prior, 0
        self._num = self._steps = self._squares = self._seconds = self._products = 0.0

    def add(self, steps: int, seconds: float) -> None:
        self.num_added += 1
        self._num = MEMORY * self._num + 1
        self._steps = MEMORY * self._steps + steps
        self._squares = MEMORY * self._squares + steps * steps
        self._seconds = MEMORY * self._seconds + seconds
        self._products = MEMORY * self._products + steps * seconds
        if not self._steps:
            self.fixed, self.slope = self._seconds / self._num, 0.0
            return
        mean_steps, mean_seconds = self._steps / self._num, self._seconds / self._num
        ratio = mean_seconds / mean_steps
        variance = self._squares - self._num * mean_steps * mean_steps
        covariance = self._products - self._num * mean_steps * mean_seconds
        usual = _between(self._prior, ratio) if self._num < NUM_PRIOR else ratio
        self.slope = min(max((covariance + RIDGE * usual) / (variance + RIDGE), 0.0), ratio)
        self.fixed = mean_seconds - self.slope * mean_steps


def _between(prior: float | None, observed: float) -> float:
    """Two thirds of the way, as factors go, where more was observed than was thought."""
    return observed if prior is None else min(math.cbrt(prior * max(observed, 0.0) ** 2), observed)


class DraftCosts:
    """Seconds of one source's drafts at the usual speed, by steps, sequences that draft, and tokens caught up on.

    Args:
        prior: seconds of a draft step before any was seen; None if nothing is known.
    """

    def __init__(self, prior: float | None) -> None:
        self.prior = prior
        self.num_observed = 0
        self.seconds_per_token: float | None = None
        self.largest_chunk = 0
        self._lines: dict[int, _Line] = {}
        self._is_rough = True
        self._chunks = self._no_chunks()
        self._step_of_chunks: float | None = None

    def line(self, num_sequences: int, unknown: float) -> tuple[float, float]:
        """Fixed seconds and seconds per step; a step takes `unknown` where nothing is known."""
        bucket = num_sequences.bit_length()
        if not self._lines:
            return 0.0, self._first_step(unknown, bucket)
        own = self._lines.get(bucket)
        sure = [other for other, line in self._lines.items() if line.num_added >= NUM_FIRST]
        if own is not None and (own.num_added >= NUM_FIRST or not sure):
            return own.fixed, own.slope
        # What is known of fewer or more sequences tells more than a first draft or two, which take longer.
        nearest = min(sure or self._lines, key=lambda other: abs(other - bucket))
        scale = ASSUMED_GROWTH ** (bucket - nearest)
        fixed, slope = self._lines[nearest].fixed * scale, self._lines[nearest].slope * scale
        if own is not None and own.fixed + own.slope < fixed + slope:
            return own.fixed, own.slope
        return fixed, slope

    @property
    def num_chunks(self) -> int:
        """Calls learned from in which it did nothing but catch up."""
        return self._chunks.num_added

    def catch_up(self, num_tokens: int) -> float:
        """Seconds of computing tokens that the drafter has not seen."""
        if self.seconds_per_token is not None:
            return self.seconds_per_token * num_tokens
        return (self.prior or 0.0) * ASSUMED_CATCH_UP_SHARE * num_tokens

    def describe(self) -> dict[str, Any]:
        """Lines by the largest number of sequences that they were seen with."""
        lines = {str(2**bucket - 1): {"fixed": line.fixed, "step": line.slope} for bucket, line in self._lines.items()}
        return {
            "prior": self.prior, "num_observed": self.num_observed,
            "seconds_per_token": self.seconds_per_token, "by_num_sequences": lines,
        }  # fmt: skip

    def observe(self, num_steps: int, num_sequences: int, num_caught_up: int, seconds: float) -> None:
        """Learn from a draft. One with nothing to catch up replaces a first that had.

        A first draft takes longer than later ones will: the prior goes on to count.
        """
        if num_caught_up and not num_steps:
            self._observe_chunk(num_caught_up, seconds)
            return
        bucket = num_sequences.bit_length()
        if not self._lines or (self._is_rough and not num_caught_up):
            self._is_rough = num_caught_up > 0
            slope = seconds / max(num_steps + ASSUMED_CATCH_UP_SHARE * num_caught_up, 1.0)
            if num_steps:
                slope = _between(self.prior, slope)
            self._lines = {bucket: _Line(slope, self.prior)}
            # What takes no draft steps and counts no tokens has, as far as anybody can tell, nothing to catch up on.
            if self.seconds_per_token is None and (num_steps or num_caught_up):
                self.seconds_per_token = ASSUMED_CATCH_UP_SHARE * slope
            self.num_observed += 1
            self._lines[bucket].add(num_steps, slope * max(num_steps, 1))
            return
        self.num_observed += 1
        fixed, slope = self.line(num_sequences, seconds)
        expected = fixed + slope * num_steps
        catching_up = self.catch_up(num_caught_up)
        ratio = seconds / max(expected + catching_up, 1e-12)
        if self.num_observed <= NUM_FIRST and ratio < 0.6:  # the first was slow because it was the first
            self._lines.clear()
        elif bucket in self._lines and self.num_observed > NUM_FIRST:
            ratio = min(max(ratio, 0.5), 2.0)
        line = self._lines.setdefault(bucket, _Line(slope, self.prior))
        line.add(num_steps, expected * ratio)
        if num_caught_up and self.seconds_per_token is not None:
            gain = 0.5 * catching_up / max(expected + catching_up, 1e-12)
            self.seconds_per_token *= 1 + gain * (ratio - 1)

    def _observe_chunk(self, num_tokens: int, seconds: float) -> None:
        """Learn from a call that did nothing but catch up: what a token takes, and about what a draft step will."""
        expected = self._chunks.fixed + self._chunks.slope * num_tokens
        if self.num_chunks < NUM_FIRST and seconds < 0.6 * expected:  # the first was slow because it was the first
            self._chunks, self._step_of_chunks = self._no_chunks(), None
        self._chunks.add(num_tokens, seconds)
        self.seconds_per_token = self._chunks.slope
        self.largest_chunk = max(self.largest_chunk, num_tokens)
        step = seconds / (1 + ASSUMED_CATCH_UP_SHARE * num_tokens)
        self._step_of_chunks = step if self._step_of_chunks is None else min(step, self._step_of_chunks)

    def _no_chunks(self) -> _Line:
        return _Line(0.0, None if self.prior is None else ASSUMED_CATCH_UP_SHARE * self.prior)

    def _first_step(self, unknown: float, bucket: int) -> float:
        """Seconds of a draft step before there was any."""
        if self._step_of_chunks is not None:
            is_sure = self.num_chunks > 1
            return self._step_of_chunks if is_sure else _between(self.prior, self._step_of_chunks)
        return unknown if self.prior is None else self.prior * ASSUMED_GROWTH ** max(bucket - 1, 0)
