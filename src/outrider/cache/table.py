"""Books of the key-value cache: which blocks hold which sequence's slots. Knows no arrays.

A sequence's slots, in order, and who owns them:

    [0, num_shared)                    whole blocks that other holders may read too; nobody writes them
    [num_shared, num_committed)        tokens of the text; stay until the sequence is released
    [num_committed, num_slots)         reserved by the step that is running: the root, its tree, padding rows
    [num_slots, 32 * len(blocks))      the unused end of the last block; nobody's

A block has as many holders as tables and kept prefixes name it. Only a block that is full of committed slots has more
than one: a call with several rows clears the value rows after its end, up to the end of the block.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

BLOCK_SIZE = 32
# Of an empty cache: a runtime prepares anew after growing, and on the CPU these take no memory until they are written.
FIRST_BLOCKS = 32


class OutOfBlocksError(Exception):
    """A reservation needs more blocks than there may be; the scheduler must not let this happen."""


class BlockPool:
    """The physical blocks, which grow by doubling until there are `max_blocks`.

    A sequence's blocks are taken in the order of memory as far as they are free, since a step reads them one after the
    other: out of order, attention of eight texts takes nearly twice as long (docs/log.md). So whoever begins does so in
    the middle of what is free, which leaves those before room to go on.

    Args:
        max_blocks: the most there may be.
        resize: makes the runtime's arrays as large as told, keeping what they hold.

    Attributes:
        reclaim: frees so many blocks, if it can, that are held only in case they are needed again.
    """

    def __init__(self, max_blocks: int, resize: Callable[[int], None]) -> None:
        self.max_blocks = max_blocks
        self.num_blocks = 0
        self.reclaim: Callable[[int], None] = lambda _: None
        self._resize = resize
        self._num_holders: list[int] = []  # of each block
        self._is_free = bytearray()
        self._grow(min(FIRST_BLOCKS, max_blocks))

    @property
    def num_free(self) -> int:
        return self._is_free.count(True)

    @property
    def num_obtainable(self) -> int:
        """Blocks that `take` can give without reclaiming: the free ones, and those that growing adds."""
        return self.num_free + self.max_blocks - self.num_blocks

    def num_holders(self, block: int) -> int:
        return self._num_holders[block]

    def take(self, count: int, last: int = -1) -> list[int]:
        """Blocks that nobody holds, for one holder, whose last one so far is given.

        Raises:
            OutOfBlocksError: so many cannot be obtained; none was taken.
        """
        if count > self.num_obtainable:
            self.reclaim(count - self.num_obtainable)
        if count > self.num_free:
            self._grow(self.num_blocks + count - self.num_free)
        blocks: list[int] = []
        for num_left in range(count, 0, -1):
            last += 1
            if not 0 < last < self.num_blocks or not self._is_free[last]:
                last = self._beginning(num_left)
            self._num_holders[last], self._is_free[last] = 1, False
            blocks.append(last)
        return blocks

    def _beginning(self, count: int) -> int:
        """Where to begin to take so many blocks: in the middle of the longest row of free ones, if they have room."""
        first, end = max(
            (row.span() for row in re.finditer(b"\x01+", self._is_free)), key=lambda span: span[1] - span[0]
        )
        if not first:  # nobody is before
            return first
        return first + max(0, min((end - first) // 2, end - first - count))

    def share(self, blocks: Iterable[int]) -> None:
        """Count one holder more of each."""
        for block in blocks:
            self._num_holders[block] += 1

    def give_back(self, blocks: Sequence[int]) -> None:
        """Count one holder less of each; those without one are free."""
        for block in blocks:
            self._num_holders[block] -= 1
            assert self._num_holders[block] >= 0, "a cache block was given back by one who did not hold it"
            self._is_free[block] = not self._num_holders[block]

    def check(self, tables: Iterable[BlockTable], kept_blocks: Iterable[int] = ()) -> None:
        """Assert that every block is free, or has as many holders as tables and `kept_blocks` name it."""
        tables = list(tables)
        held = Counter([*kept_blocks, *(block for table in tables for block in table.blocks)])
        for block, num_holders in enumerate(self._num_holders):
            assert num_holders == held.pop(block, 0), f"cache block {block} is not held as often as it counts"
        assert not held, "a block is held that there is not"
        is_free = [not num_holders for num_holders in self._num_holders]
        assert list(self._is_free) == is_free, "a cache block is lost"
        assert len(self._num_holders) == self.num_blocks <= self.max_blocks
        for table in tables:
            table.check()

    def _grow(self, num_needed: int) -> None:
        if num_needed > self.max_blocks:
            raise OutOfBlocksError(f"{num_needed} cache blocks needed, {self.max_blocks} allowed")
        num_blocks = min(max(num_needed, 2 * self.num_blocks), self.max_blocks)
        self._resize(num_blocks)
        self._num_holders += [0] * (num_blocks - self.num_blocks)
        self._is_free += b"\x01" * (num_blocks - self.num_blocks)
        self.num_blocks = num_blocks


class BlockTable:
    """One sequence's blocks, in the order of its slots."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self.blocks: list[int] = []
        self.num_committed = 0
        self.num_slots = 0

    def share(self, blocks: Sequence[int]) -> None:
        """Hold blocks of others too, which are full of the text's next slots."""
        assert self.num_slots == self.num_committed == BLOCK_SIZE * len(self.blocks), "the slots before are not full"
        self._pool.share(blocks)
        self.blocks += blocks
        self.num_committed = self.num_slots = BLOCK_SIZE * len(self.blocks)

    @contextmanager
    def reserve(self, num_rows: int) -> Generator[None]:
        """Room for `num_rows` rows after the committed ones. Whatever `commit` did not keep is free on leaving.

        Raises:
            OutOfBlocksError: the pool has not as many blocks as that takes; nothing was reserved.
        """
        assert self.num_slots == self.num_committed, "a reservation is already open"
        num_missing = self.num_missing_blocks(num_rows)
        if num_missing:
            self.blocks += self._pool.take(num_missing, self.blocks[-1] if self.blocks else -1)
        self.num_slots = self.num_committed + num_rows
        try:
            yield
        finally:
            self._shrink()

    def commit(self, rows: tuple[int, ...]) -> list[tuple[int, int]]:
        """Keep these rows of the open reservation, in this order, as the text's next slots.

        Returns:
            the moves `(from_slot, to_slot)` that bring kept rows together; none for a chain.
        """
        first = self.num_committed
        assert first + max(rows, default=-1) < self.num_slots, "committed a row that was not reserved"
        self.num_committed += len(rows)
        return [(first + row, first + index) for index, row in enumerate(rows) if row != index]

    def release(self, num_kept: int = 0) -> None:
        """Free all slots but the first `num_kept`: the whole sequence's, or a drafter's rejected guesses."""
        assert 0 <= num_kept <= self.num_committed
        self.num_committed = num_kept
        self._shrink()

    def num_missing_blocks(self, num_rows: int) -> int:
        """Blocks that reserving so many rows would take."""
        return max(0, num_blocks_for(self.num_committed + num_rows) - len(self.blocks))

    def _shrink(self) -> None:
        self.num_slots = self.num_committed
        num_kept = num_blocks_for(self.num_committed)
        self._pool.give_back(self.blocks[num_kept:])
        del self.blocks[num_kept:]

    def check(self) -> None:
        assert 0 <= self.num_committed <= self.num_slots <= BLOCK_SIZE * len(self.blocks)
        for block in self.blocks[self.num_committed // BLOCK_SIZE :]:
            assert self._pool.num_holders(block) == 1, "a block that may be written to is shared"


def num_blocks_for(num_slots: int) -> int:
    return -(-num_slots // BLOCK_SIZE)
