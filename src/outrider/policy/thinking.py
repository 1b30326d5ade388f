"""What deciding and asking take, which is no draft and no forward, and yet part of the step. Knows seconds only.

Where nobody is drafted for there is little to think about. So what thinking takes more where somebody is, drafting must
earn: with a fast target and many texts that is as much as a draft model takes.
"""

from __future__ import annotations

GAIN = 0.02  # of a step, once many were seen: plans are made in some of them only
# Of what thinking takes with drafts, what it is held to take without until that is seen.
IDLE_SHARE = 0.3
# A step counts for at most so many times what was thought, and the first one, in which much is done once for all, for
# nothing. Else one bad moment could end drafting, and with it what would put the estimate right.
MAX_GROWTH = 2.0
# Of what thinking is held to take more with drafts, what each step without them forgets, so that it is seen anew; and
# of the steps that it was seen in, so that it is soon known again.
FORGOTTEN, FORGOTTEN_STEPS = 0.001, 0.02
LEAST_STEPS = 4


class Thinking:
    """Seconds of thinking per step, by the number of sequences and whether any of them is drafted for."""

    def __init__(self) -> None:
        self._means: dict[tuple[int, bool], tuple[float, float]] = {}

    def beyond_idle(self, num_sequences: int) -> float:
        """Seconds that thinking takes longer in a step with drafts; 0 until it is known."""
        drafting, _ = self._means.get((num_sequences.bit_length(), True), (0.0, 0))
        return max(0.0, drafting - self.idle(num_sequences))

    def idle(self, num_sequences: int) -> float:
        """Seconds of a step in which nobody is drafted for."""
        size = num_sequences.bit_length()
        drafting, _ = self._means.get((size, True), (0.0, 0))
        idle, _ = self._means.get((size, False), (IDLE_SHARE * drafting, 0))
        return idle

    def observe(self, num_sequences: int, seconds: float, *, is_drafting: bool) -> None:
        """A step was thought about for so long."""
        size = num_sequences.bit_length()
        if not is_drafting:
            mean, num = self._means.get((size, True), (0.0, 0))
            num_left = max(min(num, LEAST_STEPS), num * (1 - FORGOTTEN_STEPS))
            self._means[size, True] = mean - FORGOTTEN * self.beyond_idle(num_sequences), num_left
        mean, num = self._means.get((size, is_drafting), (0.0, 0))
        if num > 1:
            mean += max(GAIN, 1 / num) * (min(seconds, MAX_GROWTH * mean) - mean)
        elif num:
            mean = seconds
        self._means[size, is_drafting] = mean, num + 1
