# pyright: basic
# (torch's own types are partly unknown)
"""The torch runtime: the reference for parity, and the one for CUDA. Lays sequences flat and owns the cache arrays.

The cache of a layer is one array [2, slots, kv_heads, head_dim], slot `32 * block + offset`. A sequence in consecutive
blocks, which is what a pool hands out as far as it can, is read in place; any other is gathered.

For bits that depend on nothing but a row's own sequence, three counts are padded (see `Tiles`), as probing torch 2.13
on AVX512 machines has shown; `runtime/numerics.py` checks them for the model and the machine at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from outrider.cache.table import BLOCK_SIZE
from outrider.errors import ModelError, ParameterError
from outrider.model.config import ModelConfig, read_config
from outrider.model.weights import RawTensor, Weights
from outrider.request import Exactness
from outrider.runtime.base import MemoryUse, ModelOutput, Runtime, RuntimeOptions, SequenceRows
from outrider.runtime.remembered import isa_limits
from outrider.runtime.torch.dense import DenseModel, LoadTensor, RowBatch, Span
from outrider.runtime.torch.forwards import StaticForwards
from outrider.runtime.torch.static import BITWISE_ROWS, FEW

# Where forwards are of a few fixed shapes, so that each can be recorded as a graph. Tests add the CPU.
STATIC_DEVICES = {"cuda"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Tiles(NamedTuple):
    """Counts are rounded up to multiples of these."""

    rows: int = 1  # of all sequences together: few-row products have kernels of their own
    queries: int = 1  # of one sequence: so has attention
    keys: int = 1  # attention's own tile: a last, shorter one is summed in another order


BITWISE_TILES = {torch.float32: Tiles(rows=16, queries=8, keys=512), torch.bfloat16: Tiles(rows=8, queries=8, keys=512)}


class TorchRuntime(Runtime):
    """A checkpoint computed by torch, on the CPU or a CUDA device."""

    name = "torch"
    min_rows = 1  # padding rows are computed but never stored

    def __init__(self, config: ModelConfig, load: LoadTensor, options: RuntimeOptions, device: torch.device) -> None:
        """`options` leaves nothing to None; `load` gives tensors of its dtype on `device`."""
        self.config = config
        self.options = options
        self.exactness: Exactness = "seed"
        self.num_blocks = 0
        self._device = device
        self._dtype = DTYPES[options.dtype or config.dtype]
        self._static: StaticForwards | None = None
        self._tiles = BITWISE_TILES[self._dtype] if options.bitwise else Tiles()
        self._model = DenseModel(config, load)
        if device.type in STATIC_DEVICES:
            self._static = StaticForwards(self._model, device, BITWISE_ROWS if options.bitwise else FEW)
        shape = (2, 0, config.num_kv_heads, config.head_dim)
        self._cache = [torch.zeros(shape, dtype=self._dtype, device=device) for _ in range(config.num_layers)]

    @classmethod
    def from_folder(cls, folder: Path, options: RuntimeOptions, device: str = "cpu") -> Self:
        """Load a checkpoint folder.

        Raises:
            ModelError: the folder holds no model that we compute here.
            ParameterError: the device is not there.
        """
        config = read_config(folder)
        if config.is_quantised:
            raise ModelError(
                f"{folder} is quantized, which the torch runtime does not compute: "
                "take --runtime openvino, or the checkpoint that it was made from"
            )
        weights = Weights.from_folder(folder)
        weights.check(config)
        options, place = _resolve(options, config), _find_device(device)
        dtype = DTYPES[options.dtype or config.dtype]
        return cls(config, lambda name: _to_tensor(weights[name]).to(place, dtype), options, place)

    @classmethod
    def from_transformers(cls, model: torch.nn.Module, options: RuntimeOptions) -> Self:
        """Take over a loaded transformers model, on the device where it is.

        Its tensors are shared, but for those that we fuse (query, key, value; gate, up) or cast: these are copies, so
        the model must not be trained meanwhile.

        Raises:
            ModelError: the model is not of a family that we compute.
        """
        # importing transformers takes seconds, which only those should pay who have such a model
        from outrider.runtime.torch.transformers import adopt  # noqa: PLC0415

        config, load = adopt(model)
        options = _resolve(options, config)
        dtype = DTYPES[options.dtype or config.dtype]
        return cls(config, lambda name: load(name).to(dtype), options, next(model.parameters()).device)

    def forward(self, batch: Sequence[SequenceRows]) -> ModelOutput:
        if self.options.num_threads is not None:
            torch.set_num_threads(self.options.num_threads)  # per process: another runtime may have set its own
        with torch.inference_mode():
            if self._static is not None:
                return self._forward_static(batch, self._static)
            packed, num_outputs = self._pack(batch)
            logits = self._model.forward(packed, self._cache)[:num_outputs]
            num_computed = self.computed_rows([len(rows.token_ids) for rows in batch])
            return ModelOutput(logits.float().cpu().numpy(), num_computed)

    def computed_rows(self, num_rows: Sequence[int]) -> int:
        if self._static is None:
            return super().computed_rows(num_rows)
        return self._static.num_rows(num_rows)

    def num_padded_rows(self, num_rows: Sequence[int]) -> int:
        return super().num_padded_rows(num_rows) if self._static is None else self._static.num_rows(num_rows)

    def _forward_static(self, batch: Sequence[SequenceRows], static: StaticForwards) -> ModelOutput:
        for rows in batch:
            self._check_blocks(rows)
        outputs = [static.forward(group, self._cache) for group in static.groups(batch)]
        num_computed = self.computed_rows([len(rows.token_ids) for rows in batch])
        if len(outputs) == 1:
            return ModelOutput(outputs[0], num_computed)  # pyright: ignore[reportArgumentType] # looks like an array
        return ModelOutput(np.concatenate([output.copy() for output in outputs]), num_computed)

    def resize(self, num_blocks: int) -> None:
        if num_blocks == self.num_blocks:
            return
        num_kept = BLOCK_SIZE * min(num_blocks, self.num_blocks)
        num_spare = 0
        if self._static is not None:
            self._static.forget()  # what was recorded reads the arrays where they stood
            num_spare = num_blocks > 0  # a block after the last, for rows that fill up
        for layer, old in enumerate(self._cache):
            new = old.new_zeros((2, BLOCK_SIZE * (num_blocks + num_spare), *old.shape[2:]))
            new[:, :num_kept] = old[:, :num_kept]
            self._cache[layer] = new
        self.num_blocks = num_blocks

    def move(self, blocks: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        for moved in moves:
            source, target = (BLOCK_SIZE * blocks[slot // BLOCK_SIZE] + slot % BLOCK_SIZE for slot in moved)
            for keys_values in self._cache:
                keys_values[:, target] = keys_values[:, source]

    def memory(self) -> MemoryUse:
        return MemoryUse(weights=self._model.num_bytes(), cache=sum(array.nbytes for array in self._cache))

    def describe(self) -> dict[str, Any]:
        is_cuda = self._device.type == "cuda"
        return {
            "name": self.name,
            "device": torch.cuda.get_device_name(self._device) if is_cuda else torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            "dtype": self.options.dtype,
            "num_threads": self.options.num_threads,
            "tiles": self._tiles._asdict(),
            "static_rows": self._static.least_rows if self._static else None,
            "isa_limits": isa_limits(),
        }

    def _pack(self, batch: Sequence[SequenceRows]) -> tuple[RowBatch, int]:
        """Lay the sequences' rows flat, and say how many outputs are real."""
        token_ids = [token_id for rows in batch for token_id in rows.token_ids]
        positions = [rows.num_past + depth for rows in batch for depth in rows.depths()]
        spans: list[Span] = []
        slots: list[Tensor] = []
        outputs: list[int] = []
        first = 0
        for rows in batch:
            num_rows = len(rows.token_ids)
            own_slots = self._slots(rows)
            slots.append(own_slots[rows.num_past : rows.num_past + num_rows])
            outputs += [first + row for row in rows.output_rows]
            if rows.is_chain or not self.options.bitwise:
                spans.append(self._span(rows, first, own_slots))
            else:
                spans += [self._branch(rows, branch, first, own_slots) for branch in rows.branches()]
            first += num_rows
        last = max((span.rows.stop for span in spans if isinstance(span.rows, slice)), default=first)
        num_padded = _round_up(max(last, first), self._tiles.rows)
        padding = [0] * (num_padded - first)
        padded_outputs = outputs + [0] * (_round_up(len(outputs), self._tiles.rows) - len(outputs))
        packed = RowBatch(
            token_ids=self._integers(token_ids + padding),
            positions=self._integers(positions + padding),
            write_slots=torch.cat(slots),
            spans=spans,
            output_rows=self._integers(padded_outputs),
        )
        return packed, len(outputs)

    def _span(self, rows: SequenceRows, first: int, own_slots: Tensor) -> Span:
        num_rows = len(rows.token_ids)
        num_queries = _round_up(num_rows, self._tiles.queries)
        num_keys = _round_up(rows.num_past + num_rows, self._tiles.keys)
        return Span(
            rows=slice(first, first + num_queries),
            num_rows=num_rows,
            slots=self._key_slots(rows.blocks, own_slots, num_keys),
            mask=attention_mask(rows, num_queries, num_keys, self._dtype).to(self._device),
        )

    def _branch(self, rows: SequenceRows, branch: list[int], first: int, own_slots: Tensor) -> Span:
        """A branch of a tree as the chain that it is: with a sibling between them, keys add up in another order."""
        num_queries = _round_up(len(branch), self._tiles.queries)
        num_keys = _round_up(rows.num_past + len(branch), self._tiles.keys)
        queries = self._integers([*branch, *[branch[0]] * (num_queries - len(branch))])
        slots = own_slots[[*range(rows.num_past), *(rows.num_past + row for row in branch)]]
        chain = SequenceRows([0] * len(branch), rows.num_past, rows.blocks, ())
        return Span(
            rows=first + queries,
            num_rows=len(branch),
            slots=torch.cat((slots, own_slots[:1].expand(num_keys - len(slots)))),
            mask=attention_mask(chain, num_queries, num_keys, self._dtype).to(self._device),
        )

    def _slots(self, rows: SequenceRows) -> Tensor:
        """The sequence's slots within the cache arrays."""
        self._check_blocks(rows)
        return (self._integers(rows.blocks)[:, None] * BLOCK_SIZE + self._integers(range(BLOCK_SIZE))).flatten()

    def _check_blocks(self, rows: SequenceRows) -> None:
        assert all(0 <= block < self.num_blocks for block in rows.blocks), "a block outside of the cache"
        assert len(set(rows.blocks)) == len(rows.blocks), "a block twice in a sequence"
        assert rows.num_past + len(rows.token_ids) <= BLOCK_SIZE * len(rows.blocks), "rows outside of their blocks"

    def _key_slots(self, blocks: Sequence[int], own_slots: Tensor, num_keys: int) -> slice | Tensor:
        """Where `num_keys` keys are read. Those after the sequence's own are any slots: the mask hides them."""
        begin = BLOCK_SIZE * blocks[0]
        is_consecutive = list(blocks) == list(range(blocks[0], blocks[0] + len(blocks)))
        if is_consecutive and begin + num_keys <= BLOCK_SIZE * self.num_blocks:
            return slice(begin, begin + num_keys)
        padding = own_slots[:1].expand(max(num_keys - len(own_slots), 0))
        return torch.cat((own_slots[:num_keys], padding))

    def _integers(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def attention_mask(rows: SequenceRows, num_queries: int, num_keys: int, dtype: torch.dtype) -> Tensor:
    """What to add to the scores [queries, keys]: 0 where a row sees, minus infinity elsewhere.

    Padding queries see everything: one that sees nothing would be NaN.
    """
    num_rows = len(rows.token_ids)
    sees = torch.ones((num_queries, num_keys), dtype=torch.bool)
    sees[:num_rows, rows.num_past :] = False
    sees[:num_rows, rows.num_past : rows.num_past + num_rows] = torch.from_numpy(rows.lineage())
    return torch.zeros((num_queries, num_keys), dtype=dtype).masked_fill_(~sees, -torch.inf)


def _resolve(options: RuntimeOptions, config: ModelConfig) -> RuntimeOptions:
    dtype = options.dtype or config.dtype
    if dtype not in DTYPES:
        raise ParameterError(f"dtype is {dtype!r}, but must be one of {', '.join(DTYPES)}")
    num_threads = options.num_threads or torch.get_num_threads()
    return replace(options, dtype=dtype, num_threads=num_threads, num_forms=0)


def _find_device(name: str) -> torch.device:
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ParameterError(f"device is {name!r}, but must be cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"device is {name!r}, but torch finds no CUDA device here: use 'cpu'")
    return torch.device(name)


def _to_tensor(raw: RawTensor) -> Tensor:
    """A copy, since a mapped file is read-only, which torch's tensors cannot be."""
    if raw.dtype == "BF16":
        return torch.tensor(raw.array.view("int16")).view(torch.bfloat16)
    return torch.tensor(raw.array)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
