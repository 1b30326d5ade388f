"""Who holds what of the target's cache, and what of a prompt need not be computed because it is there already.

A running sequence has a table. Whole chunks of its prompt are shared, its tail is copied where it must be, and all that
it writes itself stands in blocks of its own. Knows token ids and slots; no arrays, no policy, no queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence as Sequences
from dataclasses import dataclass

from outrider.cache.prefix import Chunk, PrefixIndex, TokenIds
from outrider.cache.table import BLOCK_SIZE, BlockPool, BlockTable
from outrider.sequence import Sequence

Move = Callable[[Sequences[int], Sequences[tuple[int, int]]], None]
# What is about to be computed, told apart by all that its keys and values depend on.
ChunkKey = tuple[Chunk, TokenIds]


@dataclass(slots=True)
class _Hold:
    """What one running sequence holds.

    Attributes:
        chunk: the last whole chunk of the prompt that is in the index.
        num_published: tokens of the prompt that others can find.
        tail: the prompt's last tokens, once others can find them.
    """

    table: BlockTable
    chunk: Chunk
    num_published: int = 0
    tail: TokenIds = ()


class CacheBooks:
    """The target's cache.

    Args:
        pool: its blocks.
        move: copies slots within the runtime's arrays; see `Runtime.move`.
        prefill_chunk: tokens of a whole chunk. Chunks are shared if they consist of whole blocks.
        max_prefix_tokens: of chunks that are kept when nobody uses them.
    """

    def __init__(self, pool: BlockPool, move: Move, *, prefill_chunk: int, max_prefix_tokens: int) -> None:
        self.pool = pool
        self.index = PrefixIndex(pool, max_prefix_tokens // BLOCK_SIZE)
        self.prefill_chunk = prefill_chunk
        self.is_sharing = prefill_chunk % BLOCK_SIZE == 0
        self._move = move
        self._holds: dict[Sequence, _Hold] = {}

    def table(self, sequence: Sequence) -> BlockTable:
        return self._holds[sequence].table

    @property
    def num_obtainable(self) -> int:
        """Blocks that could be had now: free, not yet made, or only kept."""
        return self.pool.num_obtainable + self.index.num_idle_blocks

    def admit(self, sequence: Sequence) -> None:
        """Open a table for a sequence that starts to run."""
        self._holds[sequence] = _Hold(BlockTable(self.pool), self.index.root)
        self.adopt(sequence)

    def release(self, sequence: Sequence) -> None:
        """Close the table of a sequence that runs no more."""
        hold = self._holds.pop(sequence)
        if hold.tail:
            tables = hold.chunk.tails[hold.tail]
            tables.remove(hold.table)
            if not tables:
                del hold.chunk.tails[hold.tail]
        hold.table.release()
        self.index.leave(hold.chunk)
        sequence.num_computed = 0

    def adopt(self, sequence: Sequence) -> None:
        """Take over what has been computed of the sequence's prompt, up to the first chunk that has not."""
        hold = self._holds[sequence]
        while self.is_sharing and sequence.is_prefilling:
            token_ids = self.next_chunk(sequence)
            if chunk := hold.chunk.followers.get(token_ids):
                self.index.use(chunk)
                hold.table.share(chunk.blocks)
                hold.chunk, hold.num_published = chunk, hold.table.num_committed
                sequence.num_computed = hold.num_published
            elif tables := hold.chunk.tails.get(token_ids):
                if not self._copy_tail(tables[0], hold.table, len(token_ids)):
                    return
                sequence.num_computed = hold.table.num_committed
                self.publish(sequence)
            else:
                return

    def publish(self, sequence: Sequence) -> None:
        """Let others find what has just been computed of the sequence's prompt."""
        hold = self._holds[sequence]
        end = min(sequence.num_computed, sequence.num_prompt_tokens - 1)
        if not self.is_sharing or hold.num_published == end:
            return
        for begin in range(hold.num_published, end, self.prefill_chunk):
            token_ids = tuple(sequence.token_ids[begin : min(begin + self.prefill_chunk, end)])
            if len(token_ids) == self.prefill_chunk:
                blocks = hold.table.blocks[begin // BLOCK_SIZE : (begin + self.prefill_chunk) // BLOCK_SIZE]
                hold.chunk = self.index.add(hold.chunk, token_ids, blocks)
            else:
                hold.tail = token_ids
                hold.chunk.tails.setdefault(token_ids, []).append(hold.table)
        hold.num_published = end

    def next_chunk(self, sequence: Sequence) -> TokenIds:
        """The prompt's tokens up to the next multiple of the chunk length, less its last, which is the first root."""
        begin = sequence.num_computed
        end = (begin // self.prefill_chunk + 1) * self.prefill_chunk
        return tuple(sequence.token_ids[begin : min(end, sequence.num_prompt_tokens - 1)])

    def num_next(self, sequence: Sequence, num_allowed: int) -> int:
        """Tokens of the prompt's next chunks, of as many as are allowed, but one at least.

        Of one only, unless chunks are whole blocks: a runtime may clear what stands after a chunk's rows in a block.
        """
        num_left = sequence.num_prompt_tokens - 1 - sequence.num_computed
        num_first = len(self.next_chunk(sequence))
        if self.is_sharing and num_left <= num_allowed:
            return num_left
        num_more = max(num_allowed - num_first, 0) // self.prefill_chunk if self.is_sharing else 0
        return num_first + num_more * self.prefill_chunk

    def key_of_next_chunk(self, sequence: Sequence) -> ChunkKey | None:
        """Equal for sequences that need the same next; None where nothing is shared."""
        return (self._holds[sequence].chunk, self.next_chunk(sequence)) if self.is_sharing else None

    def num_used_blocks(self, sequence: Sequence) -> int:
        """Blocks of a waiting sequence's prompt that running ones hold anyway."""
        chunk, num_blocks = self.index.root, 0
        for begin in range(0, sequence.num_prompt_tokens - self.prefill_chunk, self.prefill_chunk):
            token_ids = tuple(sequence.token_ids[begin : begin + self.prefill_chunk])
            follower = chunk.followers.get(token_ids)
            if follower is None or not follower.num_users:
                break
            chunk, num_blocks = follower, num_blocks + len(follower.blocks)
        return num_blocks

    def check(self, running: Iterable[Sequence]) -> None:
        """Assert that the books know these sequences and no others, and that they balance."""
        assert set(self._holds) == set(running)
        self.index.check()
        self.pool.check((hold.table for hold in self._holds.values()), self.index.blocks())
        for sequence, hold in self._holds.items():
            assert hold.table.num_committed == hold.table.num_slots == sequence.num_computed
            assert hold.num_published == (min(sequence.num_computed, sequence.num_prompt_tokens - 1)) * self.is_sharing
            assert not hold.tail or hold.table in hold.chunk.tails[hold.tail]

    def _copy_tail(self, source: BlockTable, table: BlockTable, num_tokens: int) -> bool:
        """Share the whole blocks of a tail, copy the rest slot by slot; False if there is no block to copy to."""
        first = len(table.blocks)
        num_blocks, num_rest = divmod(num_tokens, BLOCK_SIZE)
        if num_rest and not self.num_obtainable:
            return False
        table.share(source.blocks[first : first + num_blocks])
        if num_rest:
            with table.reserve(num_rest):
                pair = [source.blocks[first + num_blocks], table.blocks[-1]]
                self._move(pair, [(slot, BLOCK_SIZE + slot) for slot in range(num_rest)])
                table.commit(tuple(range(num_rest)))
        return True
