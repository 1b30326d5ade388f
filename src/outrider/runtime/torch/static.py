# pyright: basic
# (torch's own types are partly unknown)
"""Forwards of a few fixed shapes: what CUDA records once as a graph and then only replays.

A forward's counts are rounded up to one of few `Shape`s. Each has its own input buffers, filled on the host and copied
in one piece, and its own recorded forward. On a device without graphs the forward is simply called: the same code.

Attention is split over the keys: in pieces of `SPLIT` keys, each with its own softmax, whose results are added
pairwise, in an order that depends on their place alone. Pieces that a sequence does not reach count exactly nothing,
so that its bits do not depend on how long the others are. A tree is computed as the chains that its branches are.

Knows tensors and slots; no sampling. What was never run on a GPU is said in docs/cuda.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.cache.table import BLOCK_SIZE
from outrider.runtime.base import SequenceRows

SPLIT = 512  # keys that are added up by one kernel
# Where bits count, every decoding forward has so many rows at least: one kernel for one row and for the deepest draft.
# A GPU waits for the weights as long as rows are fewer than about 200.
BITWISE_ROWS = 80
FEW = 8
HIDDEN = -1e30  # added to a score: its weight is then exactly nothing; infinity would make nothings of nothing


class Shape(NamedTuple):
    """What a forward is recorded for.

    Attributes:
        rows: of all sequences together.
        spans: chains whose attention is computed, sequences or branches of trees.
        width: queries of each.
        keys: that each is compared with, whole pieces.
        outputs: rows whose logits are wanted.
    """

    rows: int
    spans: int
    width: int
    keys: int
    outputs: int


class Span(NamedTuple):
    """One chain: a sequence's rows, or those of a branch."""

    first: int  # the sequence's first row in the forward
    rows: Sequence[int]  # of the sequence's rows, those of the chain
    sequence: SequenceRows


def spans_of(batch: Sequence[SequenceRows]) -> list[Span]:
    spans: list[Span] = []
    first = 0
    for sequence in batch:
        branches = [range(len(sequence.token_ids))] if sequence.is_chain else sequence.branches()
        spans += [Span(first, branch, sequence) for branch in branches]
        first += len(sequence.token_ids)
    return spans


def shape_of(batch: Sequence[SequenceRows], spans: Sequence[Span], least_rows: int) -> Shape:
    """The smallest shape that holds the batch: each count is doubled until it does."""
    num_rows = sum(len(sequence.token_ids) for sequence in batch)
    num_outputs = sum(len(sequence.output_rows) for sequence in batch)
    rows = doubled(least_rows, num_rows)
    return Shape(
        rows=rows,
        spans=doubled(1, len(spans)),
        width=doubled(FEW, max(len(span.rows) for span in spans)),
        keys=doubled(SPLIT, max(span.sequence.num_past + len(span.rows) for span in spans)),
        outputs=min(rows, doubled(FEW, num_outputs)),
    )


class Inputs:
    """Input buffers of one shape: filled on the host, copied in one piece to where recorded kernels read them."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape = shape
        rows, spans, width, keys, _ = shape
        sizes = {
            "token_ids": rows, "positions": rows, "write_slots": rows, "sources": rows, "output_rows": rows,
            "query_rows": spans * width, "row_slots": spans * width, "limits": spans * width,
            "num_past": spans, "blocks": spans * (keys // BLOCK_SIZE),
        }  # fmt: skip
        is_cuda = device.type == "cuda"
        self._host = torch.zeros(sum(sizes.values()), dtype=torch.int64, pin_memory=is_cuda)
        self._device = torch.zeros_like(self._host, device=device) if is_cuda else self._host
        self._copied = torch.cuda.Event() if is_cuda else None
        self.host: dict[str, NDArray[np.int64]] = {}
        self.device: dict[str, Tensor] = {}
        begin = 0
        for name, size in sizes.items():
            self.host[name] = self._host[begin : begin + size].numpy()
            self.device[name] = self._device[begin : begin + size]
            begin += size

    def fill(self, batch: Sequence[SequenceRows], spans: Sequence[Span], scratch_slot: int) -> None:
        """Lay out a batch. Rows that fill up write into the scratch slot, and nobody looks at what they compute."""
        if self._copied is not None:
            self._copied.synchronize()  # the last copy may still be reading
        self._host.zero_()
        host, width = self.host, self.shape.width
        host["write_slots"][:] = scratch_slot
        first, num_outputs = 0, 0
        for sequence in batch:
            end = first + len(sequence.token_ids)
            host["token_ids"][first:end] = sequence.token_ids
            host["positions"][first:end] = np.add(sequence.num_past, sequence.depths())
            host["write_slots"][first:end] = _slots(sequence, range(len(sequence.token_ids)))
            wanted = np.add(first, sequence.output_rows)
            host["output_rows"][num_outputs : num_outputs + len(wanted)] = wanted
            first, num_outputs = end, num_outputs + len(wanted)
        blocks = host["blocks"].reshape(self.shape.spans, -1)
        for index, span in enumerate(spans):
            begin, count, past = index * width, len(span.rows), span.sequence.num_past
            rows = np.add(span.first, span.rows)
            host["query_rows"][begin : begin + count] = rows
            host["sources"][rows] = range(begin, begin + count)
            own_slots = _slots(span.sequence, span.rows)
            host["row_slots"][begin : begin + width] = own_slots[0]
            host["row_slots"][begin : begin + count] = own_slots
            host["limits"][begin : begin + width] = past  # what fills up sees something, lest it be no number
            host["limits"][begin : begin + count] = range(past, past + count)
            host["num_past"][index] = past
            own_blocks = span.sequence.blocks[: blocks.shape[1]]
            blocks[index] = own_blocks[0]
            blocks[index, : len(own_blocks)] = own_blocks

    def send(self) -> None:
        """Copy to the device, without waiting."""
        if self._copied is not None:
            self._device.copy_(self._host, non_blocking=True)
            self._copied.record()

    def batch(self) -> StaticBatch:
        """What the model computes with, made from the buffers on the device: part of what is recorded."""
        _, spans, width, keys, _ = self.shape
        device = self.device
        places = torch.arange(keys, device=self._device.device)
        blocks = device["blocks"].view(spans, -1)
        slots = (blocks[:, :, None] * BLOCK_SIZE + places[:BLOCK_SIZE]).view(spans, keys)
        # a chain's own rows stand side by side for its queries, wherever a branch has them
        row = places - device["num_past"][:, None]
        own = device["row_slots"].view(spans, width).gather(1, row.clamp(0, width - 1))
        slots = torch.where((row >= 0) & (row < width), own, slots)
        sees = places <= device["limits"].view(spans, width, 1)
        bias = (
            torch.zeros(sees.shape, device=sees.device)
            .masked_fill_(~sees, HIDDEN)
            .view(spans, width, keys // SPLIT, 1, SPLIT)
            .transpose(1, 2)
        )
        return StaticBatch(
            device["token_ids"], device["positions"], device["write_slots"], device["output_rows"],
            SplitAttention(device["query_rows"], device["sources"], slots.flatten(), bias.contiguous()),
        )  # fmt: skip


class SplitAttention(NamedTuple):
    """Attention of all spans together, split over the keys."""

    query_rows: Tensor  # [spans * width]
    sources: Tensor  # [rows], where among the spans' queries each row's result is
    key_slots: Tensor  # [spans * keys]
    bias: Tensor  # [spans, splits, width, 1, SPLIT]

    def __call__(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """[rows, heads, head_dim] from queries like it and a layer's cache [2, slots, kv_heads, head_dim]."""
        spans, splits, width, _, _ = self.bias.shape
        heads, head_dim = queries.shape[1:]
        kv_heads = keys_values.shape[2]
        group = heads // kv_heads
        products = kv_heads * spans * splits
        chosen = queries[self.query_rows].view(spans, 1, width, kv_heads, group, head_dim).permute(3, 0, 1, 2, 4, 5)
        chosen = chosen.expand(-1, -1, splits, -1, -1, -1).reshape(products, width * group, head_dim)
        keys, values = keys_values.transpose(1, 2).index_select(2, self.key_slots)
        keys, values = (each.reshape(products, SPLIT, head_dim) for each in (keys, values))
        scores = _product(chosen, keys.transpose(1, 2)).view(kv_heads, spans, splits, width, group, SPLIT)
        scores = torch.add(self.bias, scores, alpha=head_dim**-0.5)
        weights = scores.softmax(-1).to(values.dtype).view(products, width * group, SPLIT)
        mixed = _product(weights, values).view(kv_heads, spans, splits, width, group, head_dim)
        mixed = mixed.squeeze(2) if splits == 1 else _join(mixed, scores.logsumexp(-1, keepdim=True))
        return mixed.permute(1, 2, 0, 3, 4).to(queries.dtype).reshape(-1, heads, head_dim)[self.sources]


class StaticBatch(NamedTuple):
    """The rows of one forward in its shape's buffers."""

    token_ids: Tensor
    positions: Tensor
    write_slots: Tensor
    output_rows: Tensor
    attend: SplitAttention


class Recorded:
    """A function of no arguments over fixed buffers: called the first time, recorded the second, replayed after that.

    The first call is what CUDA wants before it records; and a shape that comes once is not worth recording. Where there
    are no graphs it is called every time. Graphs of one `pool` share what they need in between: one runs at a time.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device, pool: Any = None) -> None:
        self._function, self._device, self._pool = function, device, pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None
        self._num_calls = 0

    def __call__(self) -> Tensor:
        """The result; one that was recorded is written over by the next call."""
        self._num_calls += 1
        if self._device.type != "cuda" or self._num_calls == 1:
            return self._function()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(self._device), torch.cuda.graph(self._graph, pool=self._pool):
                self._result = self._function()
        self._graph.replay()
        assert self._result is not None
        return self._result


def _slots(sequence: SequenceRows, rows: Sequence[int]) -> NDArray[np.int64]:
    places = np.add(sequence.num_past, rows)
    return np.asarray(sequence.blocks)[places // BLOCK_SIZE] * BLOCK_SIZE + places % BLOCK_SIZE


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix by matrix, in float32 whatever is multiplied."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())


def _join(mixed: Tensor, log_sums: Tensor) -> Tensor:
    """The splits, each by its share of all weights, without their dimension, the third."""
    shares = (log_sums - log_sums.amax(2, keepdim=True)).exp()
    return _add_pairwise(mixed * shares) / _add_pairwise(shares)


def _add_pairwise(parts: Tensor) -> Tensor:
    """Over the third dimension, a power of two: zeros at the end change no bit."""
    while parts.shape[2] > 1:
        parts = parts[:, :, 0::2] + parts[:, :, 1::2]
    return parts.squeeze(2)


def doubled(least: int, wanted: int) -> int:
    while least < wanted:
        least *= 2
    return least
