"""A batch's rows as flat lists, in the manner of OpenVINO's paged attention. Knows no OpenVINO and no model.

Of two sequences, the first a single row, and the second a tree of three rows on 40 slots:

    input_ids            a | r 0 1         subsequence_begins    0 1 4
    position_ids         9 | 40 41 41      past_lens             9 40
    attention_rows       0 | 1 2 3         block_indices         7 | 3 9
    own_rows             0 | 1 2 3         block_indices_begins  0 1 3
    qq_bias              100 110 101       qq_bias_begins        0 0 9      (who sees whom; empty: each sees all before)

`attention_rows` says which row each row of attention is made from, `own_rows` which of attention's rows each row takes.

Where bits count, no sibling may stand between a row and its ancestors, since that changes in which order attention adds
up. Then every branch of a tree is a sequence to attention, a chain like any other: it shares the text's whole blocks,
and has a copy of the last one to itself. Of the tree above on 40 slots of blocks 3 and 9, with 20 and 21 lent to it:

    attention_rows       1 2 | 1 3         own_rows              0 1 3
                                           block_indices         3 20 | 3 21

Only attention is computed twice for row 1, from the same numbers and with the same result.

Of a chain that is not long, and of every branch, attention gets each row as a sequence of its own; no key is read
before all are written. A prompt's chunk goes as a whole. If the logits of its last row are wanted, that row goes once
more, alone, for its own result. It goes with the others too, since attention clears what stands after a chunk in its
last block. Of a chain of two rows on 40 slots of blocks 3 and 9:

    attention_rows       0 1               subsequence_begins    0 1 2
    own_rows             0 1               past_lens             40 41
                                           block_indices         3 9 | 3 9

A change of the number of rows makes OpenVINO prepare every layer anew, which takes longer than computing a few rows
more: 4 ms for 14 layers, 10 ms for 32. So the rows of a decoding forward are filled up to one of a few numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from outrider.cache.table import BLOCK_SIZE, num_blocks_for
from outrider.runtime.base import SequenceRows

# A change of the number of rows is taken to be worth so many rows until it is known; more are never filled up.
USUAL_PATIENCE, MAX_FILLING = 8.0, 16
FREE_SHARE = 0.5  # of a change's price, where it only reads a form's own weights
MANY_ROWS = 64
LEAST_SPACING = 4

# Lent to branches of trees; a batch that needs more is computed in parts, a single tree never does.
MAX_BRANCH_BLOCKS = 256

# What a form for one number of rows holds of its matrices: as its kernels read them, and what is left of making that.
# Measured as 1.4.
NUM_FORM_COPIES = 2

# Any token does in a filling row: nobody reads its logits.
FILLING_TOKEN = 0


class RowLayout(NamedTuple):
    """The batch's rows and, from `attention_rows` on, how attention gets them."""

    input_ids: list[int]
    position_ids: list[int]
    output_rows: list[int]
    attention_rows: list[int]
    own_rows: list[int]
    past_lens: list[int]
    subsequence_begins: list[int]
    block_indices: list[int]
    block_indices_begins: list[int]
    qq_bias: list[int]
    qq_bias_begins: list[int]
    max_context_len: list[int]  # a single value


class Slot(NamedTuple):
    """A place in the cache arrays."""

    block: int
    offset: int


class Branching(NamedTuple):
    """What must be copied around a forward in which the branches of trees have blocks of their own.

    Attributes:
        opened: (from block, to block) before the forward: the text's last block, which each branch goes on in.
        closed: (from slot, to slot) after it: each row's key and value, to where the sequence expects them.
    """

    opened: list[tuple[int, int]]
    closed: list[tuple[Slot, Slot]]


class Ladder:
    """Chooses to what number of rows a forward is filled up.

    Rungs lie the farther apart the dearer a change is: 6, 9, 13, ... or 6, 9, 17, 33, 49, ... And a rung is left for a
    lower one only when staying has cost as much as the change will, which is never worse than twice the best that
    could have been done (the ski rental problem).

    Args:
        first: the lowest rung.
        is_aligned: from 8 on they are multiples of four, 16 and 32 among them: AMX multiplies 16 rows at a time. Else
            the second is one more than a multiple of four, for drafts of as many tokens.
        free: rungs that nothing needs to be prepared for; they may become more. With AMX a change to them is not for
            nothing either: what a form has to itself is read anew.

    Attributes:
        patience: computed rows that a change is worth.
    """

    def __init__(self, first: int, free: Collection[int] = (), *, is_aligned: bool = False) -> None:
        self.first = first
        self._free = free
        self._is_aligned = is_aligned
        self._patience = USUAL_PATIENCE
        self._rungs: dict[int, int] = {}
        self._last = 0
        self._num_idle_rows = 0

    @property
    def patience(self) -> float:
        return self._patience

    @patience.setter
    def patience(self, num_rows: float) -> None:
        self._patience = num_rows
        self._rungs.clear()

    def anew(self) -> Ladder:
        """The same, as if it had not been used."""
        fresh = Ladder(self.first, self._free, is_aligned=self._is_aligned)
        fresh.patience = self.patience
        return fresh

    def rung(self, num_rows: int) -> int:
        """The least number that is enough."""
        rung = self._rungs.get(num_rows)
        if rung is None:  # policies ask often
            spacing = max(LEAST_SPACING, min(int(self._patience) // 2, MAX_FILLING))
            if self._is_aligned:  # to 4, 8 or 16, which 16 is a multiple of
                spacing = 1 << spacing.bit_length() - 1
            rung = self.first
            while rung < num_rows:
                previous, doubled = rung, 2 * rung - (not self._is_aligned)
                rung = min(rung + spacing, max(rung + LEAST_SPACING, doubled))
                if self._is_aligned and rung >= 2 * LEAST_SPACING:
                    rung -= rung % LEAST_SPACING
                elif not self._is_aligned and previous == self.first:
                    rung -= (rung - 1) % LEAST_SPACING
            self._rungs[num_rows] = rung
        return rung

    def climb(self, num_rows: int) -> int:
        """The number to use now."""
        rung = self.rung(num_rows)
        is_free = rung in self._free
        if is_free and not self._is_aligned:  # no layer is prepared for it, nor forgets what it was prepared for
            return rung
        num_idle_rows = self._num_idle_rows + self._last - rung
        patience = FREE_SHARE * self.patience if is_free else self.patience
        if rung < self._last <= num_rows + MAX_FILLING and num_idle_rows <= patience:
            self._num_idle_rows = num_idle_rows
        else:
            self._last, self._num_idle_rows = rung, 0
        return self._last


def prompt_rung(num_rows: int) -> int:
    """What a part of a prompt is filled up to where bits do not count, as of draft models: 16, 32, and multiples of 64.

    The first forward of each number of rows makes kernels for it, which takes a draft model several times as long as
    computing a few rows more; and whoever sees that forward only would take the model for slow.
    """
    return max(16, 1 << (num_rows - 1).bit_length()) if num_rows <= MANY_ROWS else -(-num_rows // MANY_ROWS) * MANY_ROWS


def num_branch_blocks(batch: Sequence[SequenceRows]) -> int:
    """Blocks that the branches of these trees need to themselves."""
    return sum(
        num_blocks_for(rows.num_past % BLOCK_SIZE + len(branch))
        for rows in batch
        if not rows.is_chain
        for branch in rows.branches()
    )


def lay_out(
    batch: Sequence[SequenceRows], max_alone: int, branch_blocks: Iterator[int] | None = None
) -> tuple[RowLayout, Branching]:
    """Flatten a batch.

    Args:
        batch: sequence by sequence.
        max_alone: chains of up to so many rows go to attention row by row, each as a sequence, unless of a prompt.
        branch_blocks: to lend to the branches of trees; None: a tree is one sequence, whose rows are told who they see.
    """
    layout = RowLayout([], [], [], [], [], [], [0], [], [0], [], [0], [0])
    branching = Branching([], [])
    for rows in batch:
        num_rows = len(rows.token_ids)
        num_slots = rows.num_past + num_rows
        assert num_blocks_for(num_slots) <= len(rows.blocks), "the blocks do not cover the rows"
        first_row, first_place = len(layout.input_ids), len(layout.attention_rows)
        layout.input_ids.extend(rows.token_ids)
        layout.position_ids.extend([rows.num_past + depth for depth in rows.depths()])
        layout.output_rows.extend([first_row + row for row in rows.output_rows])
        if branch_blocks is not None and not rows.is_chain:
            _attend_by_branches(layout, branching, rows, first_row, branch_blocks)
            continue
        layout.own_rows.extend(range(first_place, first_place + num_rows))
        if _goes_alone(rows, max_alone):
            _attend_alone(layout, range(first_row, first_row + num_rows), rows.num_past, rows.blocks)
            continue
        layout.attention_rows.extend(range(first_row, first_row + num_rows))
        if not rows.is_chain:
            layout.qq_bias.extend(rows.lineage().ravel().tolist())
        _close(layout, rows.num_past, rows.blocks[: num_blocks_for(num_slots)])
        layout.max_context_len[0] = max(layout.max_context_len[0], num_slots)
        if rows.is_prompt:
            for row in rows.output_rows:
                layout.own_rows[first_row + row] = len(layout.attention_rows)
                _attend_alone(layout, [first_row + row], rows.num_past + row, rows.blocks)
    return layout, branching


def _goes_alone(rows: SequenceRows, max_alone: int) -> bool:
    """Whether attention gets each of the rows by itself.

    Of prompts, those of which no more than one would be left if no logits were wanted: it takes that for a row alone in
    any case.
    """
    if rows.is_prompt:
        return len(rows.token_ids) - len(rows.output_rows) <= 1
    return rows.is_chain and len(rows.token_ids) <= max_alone


def _attend_alone(layout: RowLayout, rows: Sequence[int], num_past: int, blocks: Sequence[int]) -> None:
    """Give attention a chain of rows as so many sequences, which share the blocks.

    It reads no key before the keys of all rows are written.
    """
    for num_before, row in enumerate(rows, num_past):
        layout.attention_rows.append(row)
        _close(layout, num_before, blocks[: num_before // BLOCK_SIZE + 1])
    layout.max_context_len[0] = max(layout.max_context_len[0], num_past + len(rows))


def _attend_by_branches(
    layout: RowLayout, branching: Branching, rows: SequenceRows, first_row: int, branch_blocks: Iterator[int]
) -> None:
    """Give attention each branch of a tree as a chain of its own. A row counts where it occurs first."""
    own_rows = [-1] * len(rows.token_ids)
    num_whole, num_rest = divmod(rows.num_past, BLOCK_SIZE)
    for branch in rows.branches():
        lent = [next(branch_blocks) for _ in range(num_blocks_for(num_rest + len(branch)))]
        if num_rest:
            branching.opened.append((rows.blocks[num_whole], lent[0]))
        first_place = len(layout.attention_rows)
        for index, row in enumerate(branch):
            if own_rows[row] < 0:
                own_rows[row] = first_place + index
                branching.closed.append((_slot(lent, num_rest + index), _slot(rows.blocks, rows.num_past + row)))
        _attend_alone(layout, [first_row + row for row in branch], rows.num_past, [*rows.blocks[:num_whole], *lent])
    layout.own_rows.extend(own_rows)


def _slot(blocks: Sequence[int], slot: int) -> Slot:
    return Slot(blocks[slot // BLOCK_SIZE], slot % BLOCK_SIZE)


def fill(layout: RowLayout, num_rows: int, num_attention_rows: int, block: int) -> None:
    """Add rows that nobody reads, so that there are so many in all: chains as long as their block has room."""
    num_filling = num_rows - len(layout.input_ids)
    first_row, first_place = len(layout.input_ids), len(layout.attention_rows)
    num_places = max(num_attention_rows - first_place, num_filling)
    if num_places <= 0:
        return
    assert num_places >= num_filling >= 0, "filling rows have no place in attention"
    layout.input_ids.extend([FILLING_TOKEN] * num_filling)
    layout.position_ids.extend([0] * num_filling)
    layout.own_rows.extend(range(first_place, first_place + num_filling))
    rows = [*range(first_row, first_row + num_filling), *[0] * (num_places - num_filling)]
    for begin in range(0, num_places, BLOCK_SIZE):
        _attend_alone(layout, rows[begin : begin + BLOCK_SIZE], 0, [block])


def _close(layout: RowLayout, num_past: int, blocks: Sequence[int]) -> None:
    """End a sequence."""
    layout.past_lens.append(num_past)
    layout.subsequence_begins.append(len(layout.attention_rows))
    layout.block_indices.extend(blocks)
    layout.block_indices_begins.append(len(layout.block_indices))
    layout.qq_bias_begins.append(len(layout.qq_bias))
