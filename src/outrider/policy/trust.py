"""How far plans for several sequences keep what they promise, as measured. Knows numbers only.

The plan that looks best of many is one that looks better than it is more often than not, and where texts share steps,
these have costs that no estimate knows of. Where drafting gains little, that decides.
"""

from __future__ import annotations

# What several sequences do to a step is known less well, and their drafts take the host's time too.
DOUBT_BY_SEQUENCE, MAX_DOUBT = 0.015, 0.045
# Steps that count for as much as what is thought beforehand.
NUM_PRIOR = 40
# Of what was seen, what a step keeps that drafts, and one that does not.
MEMORY, IDLE_MEMORY = 0.99, 0.998
LEAST = 0.75
# A step that took so many times a plain one says nothing of plans.
MAX_SECONDS = 4.0


class Trust:
    """Progress made over progress promised, by the number of sequences; a single one's plans are believed."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}

    def of(self, num_sequences: int) -> float:
        """What a plan's rate is to be multiplied by."""
        if num_sequences == 1:
            return 1.0
        made, promised = self._sums.get(num_sequences.bit_length(), (0.0, 0.0))
        doubt = min(DOUBT_BY_SEQUENCE * (num_sequences - 1), MAX_DOUBT)
        return min(max((NUM_PRIOR / (1 + doubt) + made) / (NUM_PRIOR + promised), LEAST), 1.0)

    def enter(self, num_sequences: int, tokens: float, gain: float, plain_steps: float) -> None:
        """A step of a plan.

        Args:
            num_sequences: that took part.
            tokens: that each of them got, on average.
            gain: of the plan over plain decoding, as promised.
            plain_steps: that its seconds would have served for.
        """
        if plain_steps < MAX_SECONDS:
            self._add(num_sequences, tokens, gain * plain_steps, MEMORY)

    def idle(self, num_sequences: int) -> None:
        """A step without a plan: what was seen of earlier ones holds less and less."""
        self._add(num_sequences, 0.0, 0.0, IDLE_MEMORY)

    def _add(self, num_sequences: int, made: float, promised: float, memory: float) -> None:
        bucket = num_sequences.bit_length()
        before = self._sums.get(bucket, (0.0, 0.0))
        self._sums[bucket] = memory * before[0] + made, memory * before[1] + promised
