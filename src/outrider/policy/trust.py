"""How far plans for several texts keep what they promise, as measured. Knows numbers only.

The plan that looks best of many is one that looks better than it is more often than not, and where texts share steps,
these have costs that no estimate knows of. What is discounted is what a plan gains over plain decoding, not its whole
rate: a plan that drafts little can be wrong by little.
"""

from __future__ import annotations

# What is thought of a promised gain before any was seen, and its weight: the same promise, in tokens of each text.
FIRST, FIRST_WEIGHT = 0.9, 6.0
# Of what was seen, what a step keeps that drafts, and one that does not.
MEMORY, IDLE_MEMORY = 0.99, 0.998
# A plan whose gain is believed to less than this is not made.
LEAST = 0.1
# A step that took so many times a plain one says nothing of plans.
MAX_SECONDS = 4.0


class Trust:
    """Gains made over gains promised, by the number of sequences; a single one's plans are believed."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}

    def of(self, num_sequences: int) -> float:
        """What a plan's gain over plain decoding is to be multiplied by."""
        if num_sequences == 1:
            return 1.0
        made, promised = self._sums.get(num_sequences.bit_length(), (0.0, 0.0))
        share = (FIRST * FIRST_WEIGHT + made) / (FIRST_WEIGHT + promised)
        return min(share, 1.0) if share >= LEAST else 0.0

    def enter(self, num_sequences: int, tokens: float, gain: float, plain_steps: float) -> None:
        """A step of a plan.

        Args:
            num_sequences: that took part.
            tokens: that each of them got, on average.
            gain: of the plan over plain decoding, as promised: 0.5 is half as many tokens more in the same time.
            plain_steps: that its seconds would have served for.
        """
        if plain_steps < MAX_SECONDS:
            self._add(num_sequences, tokens - plain_steps, gain * plain_steps, MEMORY)

    def idle(self, num_sequences: int) -> None:
        """A step without a plan: what was seen of earlier ones holds less and less."""
        self._add(num_sequences, 0.0, 0.0, IDLE_MEMORY)

    def _add(self, num_sequences: int, made: float, promised: float, memory: float) -> None:
        bucket = num_sequences.bit_length()
        before = self._sums.get(bucket, (0.0, 0.0))
        self._sums[bucket] = memory * before[0] + made, memory * before[1] + promised
