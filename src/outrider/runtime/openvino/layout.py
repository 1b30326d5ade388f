"""A batch's rows as the flat lists that OpenVINO's paged attention reads. Knows no OpenVINO and no model.

Of two sequences, the second a tree of three rows on 40 slots:

    input_ids            a b | r 0 1       subsequence_begins    0 2 5
    position_ids         0 1 | 40 41 41    past_lens             0 40
    block_indices        7 | 3 9           block_indices_begins  0 1 3
    qq_bias              100 110 101       qq_bias_begins        0 0 9      (who sees whom; empty: each sees all before)

A change of the number of rows makes OpenVINO prepare every layer anew, which takes longer than computing a few rows
more: 4 ms for 14 layers, 10 ms for 32. So the rows of a decoding forward are filled up to one of a few numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from outrider.cache.table import num_blocks_for
from outrider.runtime.base import SequenceRows

# Numbers of rows that decoding forwards are filled up to. Beyond the last, computing costs more than preparing.
RUNGS = (2, 5, 9, 13, 17, 25, 33, 49, 65)
# A number stays for this many forwards that would do with a smaller one.
PATIENCE = 3
MAX_FILLING = 16

# Any token does in a padding row: nobody reads its logits, and the next forward writes over its slot.
PADDING_TOKEN = 0


class RowLayout(NamedTuple):
    """The values of the graph's inputs, by their names."""

    input_ids: list[int]
    position_ids: list[int]
    output_rows: list[int]
    past_lens: list[int]
    subsequence_begins: list[int]
    block_indices: list[int]
    block_indices_begins: list[int]
    qq_bias: list[int]
    qq_bias_begins: list[int]
    max_context_len: list[int]  # a single value


class Ladder:
    """Chooses to what number of rows a forward is filled up, and is slow to go down."""

    def __init__(self, first: int) -> None:
        self._rungs = tuple(rung for rung in RUNGS if rung >= first)
        self._last = 0
        self._num_idle = 0

    def rung(self, num_rows: int) -> int:
        """The least number that is enough."""
        return next((rung for rung in self._rungs if rung >= num_rows), num_rows)

    def climb(self, num_rows: int) -> int:
        """The number to use now."""
        rung = self.rung(num_rows)
        if rung < self._last <= num_rows + MAX_FILLING and self._num_idle < PATIENCE:
            self._num_idle += 1
        else:
            self._last, self._num_idle = rung, 0
        return self._last


def lay_out(batch: Sequence[SequenceRows], min_rows: int) -> RowLayout:
    """Flatten a batch, each sequence filled up to `min_rows` rows."""
    layout = RowLayout([], [], [], [], [0], [], [0], [], [0], [0])
    for rows in batch:
        first_row, padded = len(layout.input_ids), _pad(rows, min_rows)
        num_slots = rows.num_past + len(padded.token_ids)
        assert num_blocks_for(num_slots) <= len(rows.blocks), "the blocks do not cover the rows"
        layout.input_ids.extend(padded.token_ids)
        layout.output_rows.extend([first_row + row for row in rows.output_rows])
        layout.position_ids.extend([rows.num_past + depth for depth in padded.depths()])
        if padded.parents is not None:
            layout.qq_bias.extend(padded.lineage().ravel().tolist())
        layout.past_lens.append(rows.num_past)
        layout.subsequence_begins.append(len(layout.input_ids))
        layout.block_indices.extend(rows.blocks[: num_blocks_for(num_slots)])
        layout.block_indices_begins.append(len(layout.block_indices))
        layout.qq_bias_begins.append(len(layout.qq_bias))
        layout.max_context_len[0] = max(layout.max_context_len[0], num_slots)
    return layout


def fill(layout: RowLayout, num_rows: int, block: int) -> None:
    """Add a sequence of rows that nobody reads, in a block of its own, so that there are `num_rows` in all."""
    num_filling = num_rows - len(layout.input_ids)
    if num_filling <= 0:
        return
    layout.input_ids.extend([PADDING_TOKEN] * num_filling)
    layout.position_ids.extend([0] * num_filling)
    layout.past_lens.append(0)
    layout.subsequence_begins.append(num_rows)
    layout.block_indices.append(block)
    layout.block_indices_begins.append(len(layout.block_indices))
    layout.qq_bias_begins.append(len(layout.qq_bias))
    layout.max_context_len[0] = max(layout.max_context_len[0], num_filling)


def _pad(rows: SequenceRows, min_rows: int) -> SequenceRows:
    """Fill up to `min_rows` rows: a chain's go on, a tree's hang under its root."""
    num_padding = max(min_rows - len(rows.token_ids), 0)
    return rows._replace(
        token_ids=[*rows.token_ids, *[PADDING_TOKEN] * num_padding],
        parents=None if rows.parents is None or rows.is_chain else [*rows.parents, *[0] * num_padding],
    )
