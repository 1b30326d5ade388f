# pyright: basic
# (torch's own types are partly unknown)
"""Which recorded forward computes a batch, and what comes back of it: of greedy rows a few bytes, the rest when asked.

Nothing here waits for the device but the fetching of results, so that a forward costs one wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outrider.logits import DeviceLogits, Likeliest
from outrider.runtime.base import SequenceRows
from outrider.runtime.torch.dense import DenseModel
from outrider.runtime.torch.static import Inputs, Recorded, Shape, doubled, shape_of, spans_of

# Of a sequence that is decoded. More rows are a prompt's: it is computed alone, in a shape that its own rows decide.
MAX_DECODE_WIDTH = 72
# Shapes that stay recorded; what each holds besides its activations' pool is small.
MAX_RECORDED = 64


class _Forward(NamedTuple):
    inputs: Inputs
    run: Recorded


class StaticForwards:
    """A model's forwards, each in one of a few shapes.

    Args:
        model: what computes.
        device: where.
        least_rows: that a forward has; where bits count, as many as the deepest draft needs.
    """

    def __init__(self, model: DenseModel, device: torch.device, least_rows: int) -> None:
        self.least_rows = least_rows
        self._model, self._device = model, device
        self._forwards: OrderedDict[Shape, _Forward] = OrderedDict()  # the least recently used first
        self._pool = self._new_pool()

    @property
    def shapes(self) -> list[Shape]:
        """That stay recorded."""
        return list(self._forwards)

    def forget(self) -> None:
        """Drop all that was recorded: arrays that it reads are about to go."""
        self._forwards.clear()
        self._pool = self._new_pool()

    def num_rows(self, num_rows: Sequence[int]) -> int:
        """Rows that forwards of sequences of so many rows compute."""
        narrow = sum(count for count in num_rows if count <= MAX_DECODE_WIDTH)
        parts = [count for count in num_rows if count > MAX_DECODE_WIDTH] + [narrow] * (narrow > 0)
        return sum(doubled(self.least_rows, count) for count in parts)

    def groups(self, batch: Sequence[SequenceRows]) -> list[list[SequenceRows]]:
        """The batch as the forwards that it takes, in its order: neighbours that are few rows share one."""
        groups: list[list[SequenceRows]] = []
        may_join = False
        for rows in batch:
            is_narrow = len(rows.token_ids) <= MAX_DECODE_WIDTH
            if may_join and is_narrow:
                groups[-1].append(rows)
            else:
                groups.append([rows])
            may_join = is_narrow
        return groups

    def forward(self, batch: Sequence[SequenceRows], cache: Sequence[Tensor]) -> DeviceLogits:
        """Start one forward. The cache's last block is nobody's."""
        spans = spans_of(batch)
        shape = shape_of(batch, spans, self.least_rows)
        forward = self._find(shape, cache)
        forward.inputs.fill(batch, spans, scratch_slot=cache[0].shape[1] - 1)
        forward.inputs.send()
        num_outputs = sum(len(rows.output_rows) for rows in batch)
        return _lazily(forward.run()[:num_outputs])

    def _new_pool(self) -> Any:
        return torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    def _find(self, shape: Shape, cache: Sequence[Tensor]) -> _Forward:
        if shape not in self._forwards:
            inputs = Inputs(shape, self._device)

            def compute() -> Tensor:
                return self._model.forward(inputs.batch(), cache)[: shape.outputs].float()

            self._forwards[shape] = _Forward(inputs, Recorded(compute, self._device, self._pool))
            if len(self._forwards) > MAX_RECORDED:
                self._forwards.popitem(last=False)
        self._forwards.move_to_end(shape)
        return self._forwards[shape]


def likeliest(logits: Tensor) -> Tensor:
    """[2, rows] in float64, which holds both exactly: the first of the largest logits' ids, and its lead.

    Of equal ones `argmax` returns any on CUDA, so the first is looked for.
    """
    vocab_size = logits.shape[1]
    largest = logits.amax(-1, keepdim=True)
    ids = torch.arange(vocab_size, device=logits.device)
    first = torch.where(logits == largest, ids, vocab_size).amin(-1, keepdim=True)
    others = logits.masked_fill(ids == first, -torch.inf).amax(-1, keepdim=True)
    return torch.cat((first.double(), (largest - others).double()), dim=1).T


def _lazily(logits: Tensor) -> DeviceLogits:
    def fetch() -> NDArray[np.float32]:
        return logits.cpu().numpy()

    def fetch_likeliest() -> Likeliest:
        with torch.inference_mode():
            first, leads = likeliest(logits).cpu().numpy()
        return Likeliest(first.astype(np.int64), leads.astype(np.float32))

    return DeviceLogits((logits.shape[0], logits.shape[1]), fetch, fetch_likeliest)
