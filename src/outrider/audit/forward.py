"""The target's own word on a finished text: its logits after every token, whatever the engine did to get there.

The prompt is computed in the engine's chunks and the output in tiles of decoding rows, so that where the runtime is
bitwise every row has the bits that it had in the engine. Knows runtimes and cache blocks; no engine, no sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import BlockPool, BlockTable, OutOfBlocksError
from outrider.runtime.base import Runtime, SequenceRows

Logits = NDArray[np.float32]
TILE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherForcing:
    """A model that is told the text.

    Attributes:
        runtime: of the model.
        pool: of the blocks of its cache; what is taken is given back.
        prefill_chunk: of the engine.
        may_end: whether rows may end before the text does, where the model or its cache cannot hold more of it. A
            draft model may have a shorter context than the target, and lack some of its tokens.
    """

    runtime: Runtime
    pool: BlockPool
    prefill_chunk: int
    may_end: bool = False

    def logits(self, prompt: Sequence[int], output: Sequence[int], *, tile: int = TILE) -> Iterator[Logits]:
        """[tokens of a tile, vocab] from which each output token was to be chosen, tile after tile.

        Args:
            prompt: token ids, one at least.
            output: token ids after it.
            tile: rows of one forward; 0 computes all rows in one.
        """
        token_ids = [*prompt, *output]
        num_rows = self._num_computable(token_ids[:-1])  # nothing is chosen after the last
        root = len(prompt) - 1
        table = BlockTable(self.pool)
        if num_rows <= root:
            return
        try:
            for begin in range(0, root, self.prefill_chunk):
                end = min(begin + self.prefill_chunk, root)
                self._forward(table, token_ids[begin:end], is_prompt=True)
            for begin in range(root, num_rows, tile or max(num_rows, 1)):
                end = min(begin + (tile or num_rows), num_rows)
                yield self._forward(table, token_ids[begin:end])
        except OutOfBlocksError:
            if not self.may_end:
                raise
        finally:
            table.release()

    def _num_computable(self, token_ids: Sequence[int]) -> int:
        """How many of a text's first tokens the model can be given; all of them if rows may not end."""
        if not self.may_end:
            return len(token_ids)
        config = self.runtime.config
        lacks = (at for at, token_id in enumerate(token_ids) if token_id >= config.vocab_size)
        return min(next(lacks, len(token_ids)), config.max_context)

    def _forward(self, table: BlockTable, token_ids: Sequence[int], *, is_prompt: bool = False) -> Logits:
        """Of all rows; none of a prompt's."""
        num_rows = len(token_ids)
        with table.reserve(max(num_rows, self.runtime.min_rows)):
            wanted = range(0 if is_prompt else num_rows)
            rows = SequenceRows(token_ids, table.num_committed, table.blocks, wanted, is_prompt=is_prompt)
            logits = np.array(self.runtime.forward([rows]).logits)
            table.commit(tuple(range(num_rows)))
        return logits
