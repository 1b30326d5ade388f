"""Chunks of prompts that are in the cache already, so that equal beginnings are computed once. Knows no arrays.

A tree: under each chunk stand the chunks that followed it in some prompt, by their tokens. What has the same tokens
before it and in it has the same keys and values, so a chunk's blocks serve everybody who has come to it on this path.

    root ─┬─ [1..128] ─┬─ [129..256]         a chunk in use: some running sequence holds it
          │            └─ [other tokens]     an idle one: kept for requests to come, until its blocks are needed
          └─ [other tokens]

The rest of a prompt after its last whole chunk is its tail. Its last block is still written to, so a tail is not
kept: it is taken over from a sequence that runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from outrider.cache.table import BlockPool, BlockTable

TokenIds = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Chunk:
    """One computed chunk, under those before it.

    Attributes:
        num_users: running sequences whose prompts begin with all that leads here.
        followers: chunks after this one, by their tokens.
        tails: tables of the running sequences whose prompts end after this chunk with these tokens.
    """

    parent: Chunk | None = None
    token_ids: TokenIds = ()
    blocks: tuple[int, ...] = ()
    num_users: int = 0
    followers: dict[TokenIds, Chunk] = field(default_factory=dict[TokenIds, "Chunk"])
    tails: dict[TokenIds, list[BlockTable]] = field(default_factory=dict[TokenIds, list[BlockTable]])


class PrefixIndex:
    """The tree of chunks. It holds every block of its chunks, besides the tables that do, and gives up what is idle.

    Args:
        pool: whose blocks they are.
        max_idle_blocks: of chunks that nobody uses; beyond, the longest unused go.
    """

    def __init__(self, pool: BlockPool, max_idle_blocks: int) -> None:
        self.root = Chunk()
        self.num_idle_blocks = 0
        self._pool = pool
        pool.reclaim = self.evict
        self._max_idle_blocks = max_idle_blocks
        # Longest unused first. A chunk is used whenever one after it is, and stands behind it: the first has none.
        self._idle: dict[Chunk, None] = {}

    def add(self, parent: Chunk, token_ids: TokenIds, blocks: Sequence[int]) -> Chunk:
        """Enter a chunk that a sequence has computed, and goes on to use."""
        assert token_ids not in parent.followers, "a chunk was computed twice"
        chunk = parent.followers[token_ids] = Chunk(parent, token_ids, tuple(blocks), num_users=1)
        self._pool.share(blocks)
        return chunk

    def use(self, chunk: Chunk) -> None:
        """Count a user more, who uses all chunks before this one already."""
        if not chunk.num_users:
            del self._idle[chunk]
            self.num_idle_blocks -= len(chunk.blocks)
        chunk.num_users += 1

    def leave(self, chunk: Chunk) -> None:
        """Count a user less of this chunk and of all before it."""
        while chunk.parent is not None:
            chunk.num_users -= 1
            if not chunk.num_users:
                self._idle[chunk] = None
                self.num_idle_blocks += len(chunk.blocks)
            chunk = chunk.parent
        while self.num_idle_blocks > self._max_idle_blocks:
            self._evict_one()

    def evict(self, num_blocks: int) -> None:
        """Free at least so many blocks, or all that are idle."""
        num_kept = max(0, self.num_idle_blocks - num_blocks)
        while self.num_idle_blocks > num_kept:
            self._evict_one()

    def blocks(self) -> list[int]:
        """All blocks of all chunks."""
        return [block for chunk in self._chunks() for block in chunk.blocks]

    def check(self) -> None:
        """Assert that exactly the unused chunks are idle, each listed after those that follow it."""
        chunks = list(self._chunks())
        assert set(self._idle) == {chunk for chunk in chunks if not chunk.num_users}
        assert self.num_idle_blocks == sum(len(chunk.blocks) for chunk in self._idle)
        assert self.num_idle_blocks <= self._max_idle_blocks
        places = {chunk: place for place, chunk in enumerate(self._idle)}
        for chunk in chunks:
            assert chunk.parent is not None
            is_root = chunk.parent is self.root
            assert is_root or chunk.num_users <= chunk.parent.num_users
            assert is_root or chunk.parent not in places or places[chunk] < places[chunk.parent]
            assert chunk.num_users or not chunk.tails, "an idle chunk has a running sequence's tail"
            assert len({self._pool.num_holders(block) for block in chunk.blocks}) == 1

    def _chunks(self) -> Iterator[Chunk]:
        waiting = [*self.root.followers.values()]
        while waiting:
            chunk = waiting.pop()
            yield chunk
            waiting += chunk.followers.values()

    def _evict_one(self) -> None:
        chunk = next(iter(self._idle))
        assert chunk.parent is not None
        assert not chunk.followers, "what follows was used later"
        del self._idle[chunk]
        del chunk.parent.followers[chunk.token_ids]
        self.num_idle_blocks -= len(chunk.blocks)
        self._pool.give_back(chunk.blocks)
