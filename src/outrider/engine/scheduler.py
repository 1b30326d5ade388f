"""Who runs in the next step. Knows token counts and cache blocks; no arrays, no models.

First come, first served. A sequence is admitted when the cache has room for the longest text that it may become, so
nothing that runs is ever without room. Prompts are computed first, each in chunks at fixed multiples from position 0;
then all running sequences decode together.
"""

from __future__ import annotations

from collections import deque

from outrider.cache.table import num_blocks_for
from outrider.errors import ContextError
from outrider.policy.base import Policy
from outrider.sequence import ScheduledBatch, ScheduledSequence, Sequence
from outrider.tree import DraftBudget


class Scheduler:
    """Two queues: `waiting` for room, and `running`.

    Args:
        policy: sets the draft budgets.
        max_sequences: running at once.
        max_blocks: cache blocks for all running sequences.
        prefill_chunk: tokens of a prompt per step.
        min_rows: rows that a runtime stores for a sequence in a step at least.
    """

    def __init__(
        self, policy: Policy, *, max_sequences: int, max_blocks: int, prefill_chunk: int, min_rows: int
    ) -> None:
        self.policy = policy
        self.max_sequences = max_sequences
        self.max_blocks = max_blocks
        self.prefill_chunk = prefill_chunk
        self.min_rows = min_rows
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._num_promised_blocks = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            ContextError: it could not run even alone.
        """
        if (num_blocks := self._num_blocks(sequence)) > self.max_blocks:
            raise ContextError(
                f"the prompt ({sequence.num_prompt_tokens} tokens) with max_tokens "
                f"{sequence.request.params.max_tokens} needs {num_blocks} cache blocks, but the cache may have "
                f"{self.max_blocks}: lower max_tokens, or raise max_cache_tokens"
            )
        self.waiting.append(sequence)

    def schedule(self) -> ScheduledBatch | None:
        """The next step's batch; None if nothing is left to do."""
        self._admit()
        if prefilling := [sequence for sequence in self.running if sequence.is_prefilling]:
            return ScheduledBatch("prefill", [self._chunk(sequence) for sequence in prefilling])
        if self.running:
            budgets = self.policy.plan(self.running)
            items = [ScheduledSequence(*pair) for pair in zip(self.running, [1] * len(self.running), budgets)]
            return ScheduledBatch("decode", items)
        return None

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._num_promised_blocks -= self._num_blocks(sequence)
        else:
            self.waiting.remove(sequence)

    def check(self) -> None:
        """Assert that promises add up and stay within the cache."""
        assert self._num_promised_blocks == sum(map(self._num_blocks, self.running)) <= self.max_blocks
        assert len(self.running) <= self.max_sequences
        for sequence in [*self.waiting, *self.running]:
            sequence.check()

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_sequences:
            num_blocks = self._num_blocks(self.waiting[0])
            if self._num_promised_blocks + num_blocks > self.max_blocks:
                return
            self._num_promised_blocks += num_blocks
            self.running.append(self.waiting.popleft())

    def _num_blocks(self, sequence: Sequence) -> int:
        """Blocks for the longest text and the rows of its last step."""
        num_slots = sequence.num_prompt_tokens + sequence.request.params.max_tokens
        return num_blocks_for(num_slots + max(sequence.request.depth + 1, self.min_rows))

    def _chunk(self, sequence: Sequence) -> ScheduledSequence:
        """Up to the next multiple of the chunk length, leaving the prompt's last token as the first root."""
        end = min((sequence.num_computed // self.prefill_chunk + 1) * self.prefill_chunk, len(sequence.token_ids) - 1)
        return ScheduledSequence(sequence, end - sequence.num_computed, DraftBudget(0, 0))
