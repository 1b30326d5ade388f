"""Books of the key-value cache: which blocks hold which sequence's slots. Knows no arrays.

A sequence's slots, in order, and who owns them:

    [0, num_committed)                 tokens of the text; stay until the sequence is released
    [num_committed, num_slots)         reserved by the step that is running: the root, its tree, padding rows
    [num_slots, 32 * len(blocks))      the unused end of the last block; nobody's

A block belongs to one sequence at a time: a call with several rows clears the value rows after its end, up to the end
of the block, so a partly filled block is never shared.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

BLOCK_SIZE = 32


class OutOfBlocksError(Exception):
    """A reservation needs more blocks than there may be; the scheduler must not let this happen."""


class BlockPool:
    """The physical blocks: a stack of free ones, which grows by doubling until `max_blocks`.

    Args:
        max_blocks: the most there may be.
        resize: makes the runtime's arrays as large as told, keeping what they hold.
    """

    def __init__(self, max_blocks: int, resize: Callable[[int], None]) -> None:
        self.max_blocks = max_blocks
        self.num_blocks = 0
        self._resize = resize
        self._free: list[int] = []

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        if count > len(self._free):
            self._grow(self.num_blocks + count - len(self._free))
        return [self._free.pop() for _ in range(count)]

    def give_back(self, blocks: list[int]) -> None:
        self._free.extend(reversed(blocks))

    def check(self, tables: Iterable[BlockTable]) -> None:
        """Assert that every block is free or in exactly one table."""
        tables = list(tables)
        owned = [block for table in tables for block in table.blocks]
        assert sorted([*self._free, *owned]) == list(range(self.num_blocks)), "a cache block is lost or held twice"
        for table in tables:
            table.check()

    def _grow(self, num_needed: int) -> None:
        if num_needed > self.max_blocks:
            raise OutOfBlocksError(f"{num_needed} cache blocks needed, {self.max_blocks} allowed")
        num_blocks = min(max(num_needed, 2 * self.num_blocks), self.max_blocks)
        self._resize(num_blocks)
        self._free = [*range(num_blocks - 1, self.num_blocks - 1, -1), *self._free]
        self.num_blocks = num_blocks


class BlockTable:
    """One sequence's blocks, in the order of its slots."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self.blocks: list[int] = []
        self.num_committed = 0
        self.num_slots = 0

    @contextmanager
    def reserve(self, num_rows: int) -> Generator[None]:
        """Room for `num_rows` rows after the committed ones. Whatever `commit` did not keep is free on leaving."""
        assert self.num_slots == self.num_committed, "a reservation is already open"
        num_slots = self.num_committed + num_rows
        self.blocks += self._pool.take(max(0, num_blocks_for(num_slots) - len(self.blocks)))
        self.num_slots = num_slots
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

    def _shrink(self) -> None:
        self.num_slots = self.num_committed
        num_kept = num_blocks_for(self.num_committed)
        self._pool.give_back(self.blocks[num_kept:])
        del self.blocks[num_kept:]

    def check(self) -> None:
        assert 0 <= self.num_committed <= self.num_slots <= BLOCK_SIZE * len(self.blocks)


def num_blocks_for(num_slots: int) -> int:
    return -(-num_slots // BLOCK_SIZE)
