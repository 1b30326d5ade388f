"""Who runs in the next step. Knows token counts and cache blocks; no arrays, no models.

First come, first served. A sequence is admitted when there is room for its text so far and a little more, not for the
longest that it may become. When blocks run short, drafts are left out first; then the sequence that was admitted last
loses its cache and waits again, at the front. The one admitted first never does, and `add` refuses what could not run
alone: so that one finishes, then the next, and nothing waits for ever.

Prompts' chunks and decoding rows never share a step, but for a prompt's last token, its first root, which is computed
with its last chunk where that does not change a bit. When there are both, the two kinds of steps take turns; and so do
prompts that do not all fit into a step of theirs. A prompt may take several chunks if nobody waits for a decoding step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence as Sequences
from typing import Literal, NamedTuple

from outrider.cache.books import CacheBooks, ChunkKey
from outrider.cache.table import BLOCK_SIZE, num_blocks_for
from outrider.errors import ContextError
from outrider.policy.base import Policy
from outrider.request import MAX_DEPTH
from outrider.sequence import ScheduledBatch, ScheduledSequence, Sequence
from outrider.tree import NO_DRAFT, DraftBudget

# Rows of one sequence in a decoding step, with a chain: numerics are probed up to here.
MAX_TILE = MAX_DEPTH + 1
# Rows of a decoding step. Its buffers are declared by this, and where there are so many, guesses no longer pay.
MAX_DECODE_ROWS = 512


class Limits(NamedTuple):
    """What a step may take.

    Attributes:
        max_sequences: running at once.
        max_prefill_tokens: of prompts, in whole chunks; one chunk always may.
        min_rows: rows that a runtime stores for a sequence in a step at least.
        max_root_rows: of a step of prompts that may compute their roots, too, be it one forward or several.
    """

    max_sequences: int
    max_prefill_tokens: int
    min_rows: int
    max_root_rows: int = 0


class Scheduler:
    """Two queues: `waiting` for room, and `running`, in the order in which they were admitted.

    Args:
        policy: sets the draft budgets.
        books: of the target's cache.
        limits: of a step.
        forget: told of a sequence that loses its cache, so that a drafter's memory of it goes too.
    """

    def __init__(self, policy: Policy, books: CacheBooks, limits: Limits, forget: Callable[[Sequence], None]) -> None:
        self.policy = policy
        self.books = books
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._forget = forget
        self._turns: list[Sequence] = []  # the running sequences; those whose prompt was computed last stand behind
        self._last_kind: Literal["prefill", "decode"] = "decode"

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            ContextError: it could not run even alone.
        """
        num_blocks = self._num_blocks(sequence, sequence.num_prompt_tokens + sequence.request.params.max_tokens)
        if num_blocks > (max_blocks := self.books.pool.max_blocks):
            raise ContextError(
                f"the prompt ({sequence.num_prompt_tokens} tokens) with max_tokens "
                f"{sequence.request.params.max_tokens} needs {num_blocks} cache blocks of {BLOCK_SIZE} tokens, but the "
                f"cache may have {max_blocks}: lower max_tokens, or raise max_cache_tokens or the memory limit"
            )
        self.waiting.append(sequence)

    def schedule(self) -> ScheduledBatch | None:
        """The next step's batch, for which there is room; None if nothing is left to do."""
        self._admit()
        while self.running:
            kind, items = self._choose()
            if items := self._with_room(items):
                self._last_kind = kind
                return ScheduledBatch(kind, items)
        return None

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or cancelled sequence, and free all that it held."""
        if sequence in self.running:
            self._stop(sequence)
        else:
            self.waiting.remove(sequence)

    def check(self) -> None:
        """Assert that what runs is what the books hold, and that nobody is in two places."""
        assert len({*self.running, *self.waiting}) == len(self.running) + len(self.waiting)
        assert set(self._turns) == set(self.running)
        assert len(self.running) == len(self._turns) <= self.limits.max_sequences
        assert not any(sequence.num_computed for sequence in self.waiting)
        for sequence in [*self.waiting, *self.running]:
            sequence.check()
        self.books.check(self.running)

    def _admit(self) -> None:
        """Let in who is next, as long as there is room: nobody overtakes."""
        while self.waiting and len(self.running) < self.limits.max_sequences:
            sequence = self.waiting[0]
            num_promised = sum(
                self._num_blocks_soon(each) - len(self.books.table(each).blocks) for each in self.running
            )
            num_needed = self._num_blocks_soon(sequence) - self.books.num_used_blocks(sequence)
            if num_promised + num_needed > self.books.num_obtainable:
                return
            self.waiting.popleft()
            self.running.append(sequence)
            self._turns.append(sequence)
            self.books.admit(sequence)

    def _choose(self) -> tuple[Literal["prefill", "decode"], list[ScheduledSequence]]:
        for sequence in self.running:
            self.books.adopt(sequence)
        prefilling = [sequence for sequence in self._turns if sequence.is_prefilling]
        decoding = [sequence for sequence in self.running if not sequence.is_prefilling]
        if prefilling and not (decoding and self._last_kind == "prefill"):
            return "prefill", self._chunks(prefilling, is_waited_for=bool(decoding))
        return "decode", self._with_budgets(self._tiles(decoding))

    def _chunks(self, sequences: Sequences[Sequence], *, is_waited_for: bool) -> list[ScheduledSequence]:
        """One whole chunk each, as many as the step may take. Who needs what another computes now gets it then.

        Where no text waits for its next token, prompts get what is left as further chunks, the first ones first.
        """
        items: list[ScheduledSequence] = []
        keys: set[ChunkKey] = set()
        awaited: set[ChunkKey | None] = set()
        num_left = self.limits.max_prefill_tokens
        for sequence in sequences:
            key = self.books.key_of_next_chunk(sequence)
            if key in keys:
                awaited.add(key)
                continue
            num_tokens = len(self.books.next_chunk(sequence))
            if items and num_left < num_tokens:
                break
            num_left -= num_tokens
            items.append(ScheduledSequence(sequence, num_tokens, NO_DRAFT))
            keys |= {key} if key else set()
        for place, (sequence, num_tokens, _) in enumerate([] if is_waited_for else items):
            num_next = self.books.num_next(sequence, num_tokens + num_left)
            num_left -= num_next - num_tokens
            items[place] = items[place]._replace(num_tokens=num_next)
        num_roots = min(num_left, self.limits.max_root_rows - sum(item.num_tokens for item in items))
        for place, (sequence, num_tokens, _) in enumerate(items):
            if self.books.key_of_next_chunk(sequence) in awaited:
                continue  # with its root it might end at once, and take along what others are to copy
            if num_roots > 0 and num_tokens == sequence.num_uncomputed - 1:
                num_roots -= 1
                items[place] = items[place]._replace(num_tokens=num_tokens + 1)
        taken = {item.sequence for item in items}
        self._turns.sort(key=taken.__contains__)
        return items

    def _tiles(self, sequences: Sequences[Sequence]) -> list[ScheduledSequence]:
        """All roots; and of texts that lost their cache, as many tokens as the step may take."""
        items: list[ScheduledSequence] = []
        num_left = MAX_DECODE_ROWS - len(sequences)
        for sequence in sequences:
            num_tokens = min(sequence.num_uncomputed, MAX_TILE, 1 + max(0, num_left))
            num_left -= num_tokens - 1
            items.append(ScheduledSequence(sequence, num_tokens, NO_DRAFT))
        return items

    def _with_budgets(self, items: list[ScheduledSequence]) -> list[ScheduledSequence]:
        """Drafts for those that reach their root, as the policy thinks best for all of them together."""
        asked = [place for place, item in enumerate(items) if item.reaches_root]
        budgets = self.policy.plan([items[place].sequence for place in asked]) if asked else []
        for number, place in enumerate(asked):
            num_tokens = items[place].num_tokens
            if num_tokens > 1:
                budgets[number] = budgets[number].cut(max(0, MAX_TILE - num_tokens))
        num_left = MAX_DECODE_ROWS - sum(item.num_tokens for item in items)
        for place, budget, num_nodes in zip(asked, budgets, _shares(budgets, num_left), strict=True):
            items[place] = items[place]._replace(budget=budget.cut(num_nodes))
        return items

    def _with_room(self, items: list[ScheduledSequence]) -> list[ScheduledSequence]:
        """These parts with blocks for all their rows: with fewer drafts if need be, then with fewer sequences."""
        while sum(map(self._num_missing_blocks, items)) > self.books.num_obtainable:
            if not self._leave_out_a_draft(items):
                preempted = self._preempt_last()
                items = [item for item in items if item.sequence is not preempted]
        return items

    def _leave_out_a_draft(self, items: list[ScheduledSequence]) -> bool:
        """Take the draft of the last one whose draft takes blocks; False if there is none."""
        for place in reversed(range(len(items))):
            plain = items[place]._replace(budget=NO_DRAFT)
            if self._num_missing_blocks(plain) < self._num_missing_blocks(items[place]):
                items[place] = plain
                return True
        return False

    def _preempt_last(self) -> Sequence:
        assert len(self.running) > 1, "a sequence has no room, though it was found to fit alone"
        sequence = self.running[-1]
        self._stop(sequence)
        sequence.num_preempted += 1
        self.waiting.appendleft(sequence)
        self._forget(sequence)
        return sequence

    def _stop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._turns.remove(sequence)
        self.books.release(sequence)

    def _num_missing_blocks(self, item: ScheduledSequence) -> int:
        num_rows = max(item.num_tokens + _num_nodes(item.budget), self.limits.min_rows)
        return self.books.table(item.sequence).num_missing_blocks(num_rows)

    def _num_blocks_soon(self, sequence: Sequence) -> int:
        """Blocks for the text and its next few tokens, so that who is let in does not drive itself out at once."""
        longest = sequence.num_prompt_tokens + sequence.request.params.max_tokens
        return self._num_blocks(sequence, min(len(sequence.token_ids) + BLOCK_SIZE, longest))

    def _num_blocks(self, sequence: Sequence, num_tokens: int) -> int:
        """Blocks for the text at this length, with the rows of its last step, which has no draft."""
        return num_blocks_for(num_tokens - 1 + self.limits.min_rows)


def _shares(budgets: Sequences[DraftBudget], num_left: int) -> list[int]:
    """Nodes for each: as many as it may have, or else the largest lose theirs first, down to where all have room."""
    shares = [0] * len(budgets)
    order = sorted(range(len(budgets)), key=lambda number: _num_nodes(budgets[number]))
    for num_done, number in enumerate(order):
        shares[number] = max(0, min(_num_nodes(budgets[number]), num_left // (len(order) - num_done)))
        num_left -= shares[number]
    return shares


def _num_nodes(budget: DraftBudget) -> int:
    """Of the largest tree allowed: it may have more than its longest chain."""
    return budget.max_nodes if budget.limit else 0
