"""OpenVINO on the CPU: rows go in flat, its paged attention reads and writes cache blocks that are ours.

The cache is two numpy arrays a layer, [key-value heads, blocks, 32, head_dim]. Rolling back is saying a smaller
`num_past`, so nothing is ever erased. Knows no requests and no sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from outrider.cache.table import BLOCK_SIZE
from outrider.model.config import ModelConfig, read_config
from outrider.model.weights import Weights
from outrider.request import MAX_DEPTH, Exactness
from outrider.runtime.base import MemoryUse, ModelOutput, Runtime, RuntimeOptions, SequenceRows, joined
from outrider.runtime.openvino import processors
from outrider.runtime.openvino.forms import NUM_COMPARED, Forms
from outrider.runtime.openvino.graph import MatrixForm, build_graph, cache_input_names
from outrider.runtime.openvino.heads import by_head
from outrider.runtime.openvino.layout import (
    MANY_ROWS,
    MAX_BRANCH_BLOCKS,
    Branching,
    Ladder,
    RowLayout,
    fill,
    lay_out,
    num_branch_blocks,
    prompt_rung,
)
from outrider.runtime.remembered import isa_limits
from outrider.runtime.rope import inverse_frequencies

# Of products of bfloat16 numbers without AMX, some numbers of a prompt's rows take longer than a few more: of 0.5 B 193
# take 630 ms, 197 take 639 and 208 take 591, as kernels are made for 64 rows and what is left. And each number that is
# new takes some 30 ms more (docs/log.md).
PROMPT_SPACING = 16

# Attention has a kernel of its own for a single row, which adds up in another order than that for several. It is given
# each row of a decoding step by itself, so that a row's bits depend neither on the rows nor on the sequences beside it;
# runtime/numerics.py probes that at load. Parts of prompts go as a whole.
MAX_ROWS_ALONE = MAX_DEPTH + 1

# Where bits do not count, of a chain of more rows none goes alone: attention of 0.5 B takes 7 ms row by row and
# 6 together for five rows, 20 and 9 for seventeen (AVX512, after 512 tokens; docs/log.md).
MAX_INEXACT_ALONE = 5

NUM_FILLING_BLOCKS = 1

# Where bits do not count: more rows than this, of which some text has more than that, are read and not decoded.
MOST_DECODED_ROWS, MOST_DECODED_EACH = 16, 4

# numpy has no bfloat16: the cache's bits are seen as uint16, which is all that copying them needs.
_CACHE_TYPES: dict[str, tuple[type[np.generic], ov.Type]] = {
    "float32": (np.float32, ov.Type.f32),
    "bfloat16": (np.uint16, ov.Type.bf16),
}


class OpenVinoRuntime(Runtime):
    """A model on the CPU; logits are a view of OpenVINO's own memory."""

    name = "openvino"

    def __init__(self, config: ModelConfig, weights: Weights, options: RuntimeOptions) -> None:
        core = ov.Core()
        dtype, *matrices, num_forms = processors.computed_form(config, weights.num_bytes, options)
        self._has_only_form = num_forms == 1 and options.num_forms is None
        form = MatrixForm(*matrices, is_convolved=not processors.has_int8_products())
        graph = build_graph(config, weights, form)
        properties = processors.properties(dtype, options.num_threads)
        self._forms = Forms(
            graph,
            lambda model: core.compile_model(model, "CPU", properties),
            num_fixed=0 if self._has_only_form else num_forms,
            is_bitwise=options.bitwise,
        )
        num_threads = int(self._forms.compiled.get_property("INFERENCE_NUM_THREADS"))
        self.config = config
        self.options = replace(options, dtype=dtype, num_threads=num_threads, num_forms=num_forms)
        # with fewer, counted by key-value heads, than there are threads, attention would share out one row's keys
        self._min_attention_rows = -(-num_threads // config.num_kv_heads) if options.bitwise else 0
        self._max_alone = MAX_ROWS_ALONE if options.bitwise else MAX_INEXACT_ALONE
        self.min_rows = 1
        self.exactness: Exactness = "seed"
        self.num_blocks = 0
        self._num_branch_blocks = 0
        self._num_stored_blocks = 0  # of each head: these, and those for filling rows
        has_bfloat16 = processors.computes_bfloat16(core)
        self._prompt_spacing = PROMPT_SPACING if has_bfloat16 and not processors.has_amx() else 1
        first = processors.least_rows(config, dtype, has_bfloat16=has_bfloat16, is_bitwise=options.bitwise)
        self._ladder = Ladder(first, self._forms.free, is_aligned=dtype == "bfloat16" and processors.has_amx())
        self._branch_ladder = Ladder(self._ladder.first)
        self._matrices = form._asdict()
        self._device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._shared: dict[str, NDArray[Any]] = {}
        self._cache_names = [name for layer in range(config.num_layers) for name in cache_input_names(layer)]
        self.resize(0)

    @classmethod
    def from_folder(cls, folder: Path, options: RuntimeOptions) -> Self:
        """Load a checkpoint.

        Raises:
            ModelError: the folder holds no checkpoint that we can compute.
            ParameterError: this processor does not compute in the dtype asked for.
        """
        config = read_config(folder)
        weights = Weights.from_folder(folder)
        weights.check(config)
        return cls(config, weights, options)

    def forward(self, batch: Sequence[SequenceRows]) -> ModelOutput:
        num_lent = num_branch_blocks(batch) if self.options.bitwise else 0
        if num_lent > MAX_BRANCH_BLOCKS and len(batch) > 1:
            half = len(batch) // 2
            return joined(self.forward(part) for part in (batch[:half], batch[half:]))
        layout, branching = self._lay_out(batch, num_lent)
        self._check(batch, layout)
        num_outputs = len(layout.output_rows)
        num_rows = len(layout.input_ids)
        is_long = any(rows.is_chain and len(rows.token_ids) > MOST_DECODED_EACH for rows in batch)
        assert len({rows.is_prompt for rows in batch}) == 1, "prompts and decoding rows in one forward"
        is_prompt = batch[0].is_prompt or not num_outputs
        is_prompt |= not self.options.bitwise and num_rows > MOST_DECODED_ROWS and is_long
        if not is_prompt:
            num_rows = self._ladder.climb(num_rows)
        elif not self.options.bitwise:
            num_rows = prompt_rung(num_rows)
        else:  # where bits count, as of targets, rows are dear; but a single one may have kernels of its own
            num_rows = max(num_rows, self._ladder.first)
            if num_rows > MANY_ROWS:
                num_rows += -num_rows % self._prompt_spacing
        num_attention_rows = num_rows
        if not is_prompt and self._num_branch_blocks:  # chains among trees too, or each change of shape would cost
            num_attention_rows = self._branch_ladder.climb(max(num_attention_rows, len(layout.attention_rows)))
        fill(layout, num_rows, max(num_attention_rows, self._min_attention_rows), self.num_blocks)
        self._open(branching)
        heads = by_head(layout, self.config.num_kv_heads, self._num_stored_blocks)
        logits = self._forms.run(heads, is_prompt=is_prompt)
        self._close(branching)
        # What branches share is computed again for their attention only, which is little beside a row's layers.
        return ModelOutput(logits, num_rows)

    def _lay_out(self, batch: Sequence[SequenceRows], num_lent: int) -> tuple[RowLayout, Branching]:
        """Branches of trees get blocks behind the filling block, which belong to no sequence."""
        if not self.options.bitwise:
            return lay_out(batch, self._max_alone)
        if num_lent > self._num_branch_blocks:
            self._num_branch_blocks = max(num_lent, min(2 * self._num_branch_blocks, MAX_BRANCH_BLOCKS))
            self.resize(self.num_blocks)
        first = self.num_blocks + NUM_FILLING_BLOCKS
        return lay_out(batch, self._max_alone, iter(range(first, first + num_lent)))

    def _open(self, branching: Branching) -> None:
        """Give each branch the beginning of its first block."""
        if branching.opened:
            sources, targets = np.array(branching.opened).T
            for array in self._caches():
                array[:, targets] = array[:, sources]

    def _close(self, branching: Branching) -> None:
        """Bring each row's key and value to its slot."""
        if branching.closed:
            (from_blocks, from_offsets), (to_blocks, to_offsets) = np.array(branching.closed).transpose(1, 2, 0)
            for array in self._caches():
                array[:, to_blocks, to_offsets] = array[:, from_blocks, from_offsets]

    def _check(self, batch: Sequence[SequenceRows], layout: RowLayout) -> None:
        """Assert what OpenVINO takes on trust: it would read and write other memory."""
        for rows in batch:
            assert 0 <= min(rows.blocks) <= max(rows.blocks) < self.num_blocks, "no such cache block"
        assert 0 <= min(layout.input_ids) <= max(layout.input_ids) < self.config.vocab_size, "no such token"
        assert max(layout.position_ids) < self._num_positions, "a position is beyond the model's context"

    def computed_rows(self, num_rows: Sequence[int]) -> int:
        return self._ladder.rung(sum(num_rows))

    def rows_in_turn(self) -> Callable[[int], int]:
        return self._ladder.anew().climb

    def is_ready_for(self, num_computed_rows: int) -> bool:
        return num_computed_rows in self._forms.free

    def set_change_price(self, seconds: float, num_rows: float) -> None:
        self._forms.change_seconds = seconds
        self._ladder.patience = num_rows

    def prepare(self) -> None:
        if self._has_only_form:
            self.resize(max(self.num_blocks, 1))
            self._forms.is_eager = True
            for _ in range(NUM_COMPARED):
                self.forward([SequenceRows([0], 0, [0], [0])])
            self._forms.is_eager = False

    def resize(self, num_blocks: int) -> None:
        config = self.config
        array_type, element_type = _CACHE_TYPES[str(self.options.dtype)]
        if not num_blocks:
            self._num_branch_blocks = 0
        num_all = num_blocks + NUM_FILLING_BLOCKS + self._num_branch_blocks
        if self._shared and (num_blocks, num_all) == (self.num_blocks, self._num_stored_blocks):
            return
        num_kept = min(num_blocks, self.num_blocks)
        for name in self._cache_names:
            # takes memory only where it is written
            array = np.zeros((config.num_kv_heads, num_all, BLOCK_SIZE, config.head_dim), array_type)
            if num_kept:
                array[:, :num_kept] = self._shared[name][:, :num_kept]
            self._share(name, array, element_type, (-1, 1, BLOCK_SIZE, config.head_dim))
        self.num_blocks, self._num_stored_blocks = num_blocks, num_all
        self._make_rope_tables()

    def _make_rope_tables(self) -> None:
        """Cosines and sines of every position that the cache has room for."""
        num_slots = (self.num_blocks + NUM_FILLING_BLOCKS) * BLOCK_SIZE
        self._num_positions = min(num_slots, self.config.max_context + 1)
        frequencies = inverse_frequencies(self.config.rope, self.config.head_dim, self.config.max_context)
        angles = np.arange(self._num_positions, dtype=np.float32)[:, None, None, None] * frequencies.values
        for name, function in (("cosines", np.cos), ("sines", np.sin)):
            # in double precision, and rounded once
            half = (function(angles, dtype=np.float64) * frequencies.attention_scaling).astype(np.float32)
            self._share(name, np.concatenate([half, half], axis=-1), ov.Type.f32)

    def _share(self, name: str, array: NDArray[Any], element_type: ov.Type, shape: Sequence[int] | None = None) -> None:
        """Let OpenVINO use the memory, which it does not keep, in another shape if one is given."""
        self._shared[name] = array
        seen = array if shape is None else array.reshape(shape)
        self._forms.share(name, ov.Tensor(seen, ov.Shape(seen.shape), element_type))

    def move(self, blocks: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        table = np.asarray(blocks)
        for from_slot, to_slot in moves:
            from_block, to_block = table[from_slot // BLOCK_SIZE], table[to_slot // BLOCK_SIZE]
            for array in self._caches():
                array[:, to_block, to_slot % BLOCK_SIZE] = array[:, from_block, from_slot % BLOCK_SIZE]

    def _caches(self) -> list[NDArray[Any]]:
        return [self._shared[name] for name in self._cache_names]

    def memory(self) -> MemoryUse:
        return MemoryUse(
            weights=sum(array.nbytes for array in self._forms.graph.arrays),
            cache=sum(array.nbytes for array in self._caches()),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "device": self._device,
            "openvino": ov.get_version(),
            "dtype": self.options.dtype,
            "num_threads": self.options.num_threads,
            "matrices": self._matrices,
            "min_rows": self.min_rows,
            "isa_limits": isa_limits(),
        }
