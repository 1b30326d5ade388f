"""Rows in, logits out: what the engine and the drafters ask of a model, whatever computes it.

A runtime owns its weights and its cache arrays. It knows no requests, no sampling and no trees' meaning: the caller
says which tokens stand in which slots at which positions and what each row sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.model.config import ModelConfig
from outrider.request import Exactness


class SequenceRows(NamedTuple):
    """Rows of one sequence in one forward.

    Row `i` stands in slot `num_past + i`, at position `num_past + depth`, where the depth of a chain's row is `i`. It
    sees all `num_past` slots, and of the rows itself and its ancestors.

    A prompt is computed in the same chunks whenever it is, so that in these its rows need not have the bits that they
    would have one by one; but a chunk's must be the same with and without the one row whose logits may be wanted, the
    prompt's last, and that one's must be those of decoding, where `RowClass.max_root_rows` allows for it.
    """

    token_ids: Sequence[int]  # [rows]
    num_past: int
    blocks: Sequence[int]  # cover num_past + max(rows, runtime.min_rows) slots
    output_rows: Sequence[int]  # the rows whose logits are wanted, ascending
    parents: Sequence[int] | None = None  # of each row, -1: only what is past; None: each row follows the one before
    is_prompt: bool = False  # then all of the forward are

    @property
    def is_chain(self) -> bool:
        return self.parents is None or list(self.parents) == list(range(-1, len(self.token_ids) - 1))

    def depths(self) -> list[int]:
        """How many of its fellow rows each row descends from."""
        if self.parents is None:
            return list(range(len(self.token_ids)))
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    def branches(self) -> list[list[int]]:
        """The rows from row 0 down to each row under which none stands: every branch is a chain."""
        parents = range(-1, len(self.token_ids) - 1) if self.parents is None else self.parents
        paths: list[list[int]] = []
        for row, parent in enumerate(parents):
            paths.append([*(paths[parent] if parent >= 0 else ()), row])
        return [path for row, path in enumerate(paths) if row not in parents]

    def lineage(self) -> NDArray[np.bool_]:
        """[rows, rows], true where a row is the other or descends from it."""
        if self.parents is None:
            return np.tri(len(self.token_ids), dtype=np.bool_)
        lineage = np.eye(len(self.token_ids), dtype=np.bool_)
        for row, parent in enumerate(self.parents):
            if parent >= 0:
                lineage[row] |= lineage[parent]
        return lineage


class ModelOutput(NamedTuple):
    """What a forward returns, sequence after sequence; arrays stay valid until the next forward of the same runtime."""

    logits: NDArray[np.float32]  # [wanted rows, vocab]; or `DeviceLogits`, which looks like it
    num_computed_rows: int  # those that fill up included: what the forward's cost depends on
    hidden: NDArray[np.float32] | None = None  # [wanted rows, hidden], where a drafter asked for it


def joined(outputs: Iterable[ModelOutput]) -> ModelOutput:
    """What forwards return that together are one batch's, each made when it is asked for."""
    logits: list[NDArray[np.float32]] = []
    num_computed_rows = 0
    for output in outputs:
        logits.append(output.logits.copy())  # the next forward takes it back
        num_computed_rows += output.num_computed_rows
    return ModelOutput(np.concatenate(logits), num_computed_rows)


class RowClass(NamedTuple):
    """Which forwards give a row the same bits as plain decoding, as far as the self-test has compared.

    Attributes:
        max_rows: that any operation of a decoding forward may have, as `Runtime.num_padded_rows` counts them, unless
            there is only one sequence; None: of a runtime that was not tested.
        is_prefill_shared: whether prompts of several sequences, and chunks of one, may be computed together.
        trees: `bitwise` if a tree's rows are those of its branches, each computed as a chain.
        max_root_rows: of a forward of prompts that may compute their last tokens, the first roots, too; 0: none may.
    """

    max_rows: int | None = None
    is_prefill_shared: bool = True
    trees: Exactness = "seed"
    max_root_rows: int = 0


class MemoryUse(NamedTuple):
    """Bytes a runtime holds."""

    weights: int
    cache: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How to compute a model.

    `bitwise` asks for rows whose bits do not depend on how many rows or sequences share a forward, at the price of rows
    that fill up, and of attention to each row of a chain and each branch of a tree by itself; a draft model does
    without, since its numbers can change only the speed.

    Example:
        >>> from outrider import EngineConfig, RuntimeOptions
        >>> EngineConfig(options=RuntimeOptions(dtype="float32")).options.bitwise
        True
    """

    dtype: str | None = None  # "float32", "bfloat16"; None: the checkpoint's own
    num_threads: int | None = None  # None: one per core that this process may use
    bitwise: bool = True
    num_forms: int | None = None  # OpenVINO's, each for one number of rows; None: as many as the model's size allows


class Runtime(ABC):
    """A model that computes.

    Attributes:
        config: what the checkpoint says.
        options: as resolved, nothing left to None.
        min_rows: slots to reserve for a sequence at least, padding rows included.
        exactness: `bitwise` if the self-test found a row's bits the same within a class of forwards, else `seed`.
        row_class: that class.
        num_blocks: blocks of `BLOCK_SIZE` slots that the cache arrays hold.
    """

    name: str
    config: ModelConfig
    options: RuntimeOptions
    min_rows: int
    exactness: Exactness
    row_class: RowClass = RowClass()
    num_blocks: int

    @abstractmethod
    def forward(self, batch: Sequence[SequenceRows]) -> ModelOutput:
        """Compute the rows of every sequence in one pass, writing their keys and values into their slots.

        A sequence may come in several parts, in order and but for the last of whole blocks: each sees those before it.
        It may want no output (a prefill chunk). Block numbers are validated: a wrong one is a bug of ours and
        raises AssertionError rather than reading other memory.
        """

    def computed_rows(self, num_rows: Sequence[int]) -> int:
        """How many rows a decoding forward computes for sequences of so many rows: what its cost depends on."""
        return sum(max(rows, self.min_rows) for rows in num_rows)

    def rows_in_turn(self) -> Callable[[int], int]:
        """Begin a walk through steps of one forward each: it is told the rows of each and says how many it computes."""
        return lambda num_rows: self.computed_rows([num_rows])

    def num_padded_rows(self, num_rows: Sequence[int]) -> int:
        """The most rows that any operation of a forward may compute for sequences of so many rows."""
        return sum(num_rows) + (self.min_rows - 1) * len(num_rows)

    def is_ready_for(self, num_computed_rows: int) -> bool:
        """Whether a forward of so many rows needs nothing to be prepared after one of any other number."""
        return False

    def set_change_price(self, seconds: float, num_rows: float) -> None:  # noqa: B027
        """Say what preparing for a change of the number of rows takes, and how many rows take as long to compute."""

    def prepare(self) -> None:  # noqa: B027
        """Spend seconds on what makes decoding forwards of few rows faster; the cache's first block is overwritten."""

    @abstractmethod
    def resize(self, num_blocks: int) -> None:
        """Make the cache arrays `num_blocks` large, keeping what they hold."""

    @abstractmethod
    def move(self, blocks: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        """Copy the sequence's slots `(from_slot, to_slot)`, in this order."""

    @abstractmethod
    def memory(self) -> MemoryUse:
        """Bytes held now."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name, device, library versions, precision and threads, for a result's provenance."""
