"""The last tokens of finished texts, to be found again by any run of four of them. Knows token ids only.

A ring, so that memory is bounded and the oldest token makes room for the newest:

    texts written so far      a a a a a | b b b | c c c c c c |        `|` is a gap, which no text runs across
    places, from the first    0 ...     ^ num_written - num_tokens     ^ num_written
                              forgotten   held
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Sequences
from typing import NamedTuple

RUN_LENGTH = 4
# Beyond this a longer match says no more, and would take longer to compare.
MAX_MATCH_LENGTH = 64
GAP = -1
# Of a token in the ring; and of a run in the index, at most, measured: a table that is as empty as it may be takes 190,
# and the one before it 120 more while it grows.
NUM_TOKEN_BYTES = 4
NUM_ENTRY_BYTES, NUM_GROWTH_BYTES = 190, 120


class RememberedMatch(NamedTuple):
    """The place after an occurrence of a text's ending, and that ending's length."""

    length: int
    end: int


class RememberedTexts:
    """Learns texts and finds where one goes on as another did.

    Args:
        num_tokens: that it holds at most, one gap for each text included.
    """

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self._ring = array("i", [GAP]) * num_tokens
        self._num_written = 0
        # By the hash of a run, the place after its latest occurrence. Runs of one hash are told apart by comparing.
        self._ends: dict[int, int] = {}
        self._readers: dict[int, tuple[int, int]] = {}  # by request: a place, and how long the text was that it fits

    @property
    def num_bytes(self) -> int:
        """Memory taken, estimated."""
        return self.num_tokens * NUM_TOKEN_BYTES + len(self._ends) * NUM_ENTRY_BYTES

    @property
    def max_bytes(self) -> int:
        """Memory that it may come to take."""
        return self.num_tokens * (NUM_TOKEN_BYTES + NUM_ENTRY_BYTES + NUM_GROWTH_BYTES)

    def learn(self, token_ids: list[int]) -> None:
        """Take in a finished text; of one that is too long, its end."""
        for token in (*token_ids[-self.num_tokens :], GAP):
            self._write(token)

    def find(self, reader: int, text: Sequences[int]) -> RememberedMatch:
        """The place whose tokens before it agree longest with the text's ending: 0 long if there is none.

        Either the place where the same reader was last time, moved on by what its text has gained since, or the latest
        occurrence of the ending's last run.
        """
        place, num_read = self._readers.get(reader, (0, len(text)))
        moved = place + len(text) - num_read
        latest = self._ends.get(hash(tuple(text[-RUN_LENGTH:])), 0)
        # Both may fit equally; then the reader stays with the text that it follows.
        found = max(self._match(text, moved), self._match(text, latest), key=lambda match: match.length)
        self._readers[reader] = (found.end, len(text))
        return found if found.length >= RUN_LENGTH else RememberedMatch(0, 0)

    def following(self, place: int, num_tokens: int) -> tuple[int, ...]:
        """What the text that has this place went on with there."""
        found: list[int] = []
        for index in range(place, min(place + num_tokens, self._num_written)):
            if (token := self._ring[index % self.num_tokens]) == GAP:
                break
            found.append(token)
        return tuple(found)

    def forget_reader(self, reader: int) -> None:
        """Forget where in the remembered texts a text stood."""
        self._readers.pop(reader, None)

    def _match(self, text: Sequences[int], end: int) -> RememberedMatch:
        first = max(0, self._num_written - self.num_tokens)
        longest = min(MAX_MATCH_LENGTH, len(text), end - first) if end <= self._num_written else 0
        length = 0
        while length < longest and self._ring[(end - 1 - length) % self.num_tokens] == text[-1 - length]:
            length += 1
        return RememberedMatch(length, end)

    def _write(self, token: int) -> None:
        self._forget(self._num_written - self.num_tokens)
        self._ring[self._num_written % self.num_tokens] = token
        self._num_written += 1
        run = self._run(self._num_written - RUN_LENGTH)
        if GAP not in run:
            self._ends[hash(run)] = self._num_written

    def _forget(self, begin: int) -> None:
        """Drop the oldest run from the index, unless it occurs again."""
        end = begin + RUN_LENGTH
        if begin >= 0 and self._ends.get(key := hash(self._run(begin))) == end:
            del self._ends[key]

    def _run(self, begin: int) -> tuple[int, ...]:
        """The tokens of a run; gaps where none were written yet, or where the ring is too short for it."""
        if begin < 0 or self.num_tokens < RUN_LENGTH:
            return (GAP,)
        return tuple(self._ring[index % self.num_tokens] for index in range(begin, begin + RUN_LENGTH))
