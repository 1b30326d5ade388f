"""How rows become attention's: each key-value head of a sequence as a sequence of its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, strategies as st

from outrider.runtime.base import SequenceRows
from outrider.runtime.openvino.heads import by_head
from outrider.runtime.openvino.layout import BLOCK_SIZE, fill, lay_out

NUM_BLOCKS = 40
FILLING = 35


def rows(first: int, num_rows: int, blocks: list[int], parents: tuple[int, ...] | None = None) -> SequenceRows:
    return SequenceRows([7] * num_rows, first, blocks, range(num_rows), parents)


def as_lists(values: dict) -> dict[str, list[int]]:
    return {name: np.asarray(each).tolist() for name, each in values.items()}


def test_a_sequence_of_several_rows_has_its_rows_together_for_each_head():
    layout, _ = lay_out([rows(9, 1, [7]), rows(40, 2, [3, 9])], 1)
    heads = by_head(layout, 2, 10)
    found = as_lists(heads.values)
    assert not heads.is_in_order
    assert found["attended_strands"] == [0, 1, 2, 4, 3, 5]
    assert found["own_strands"] == [0, 1, 2, 4, 3, 5]
    assert (found["past_lens"], found["subsequence_begins"]) == ([9, 9, 40, 40], [0, 1, 2, 4, 6])
    assert (found["block_indices"], found["block_indices_begins"]) == ([7, 17, 3, 9, 13, 19], [0, 1, 2, 4, 6])
    assert (found["qq_bias"], found["qq_bias_begins"]) == ([], [0] * 5)


def test_rows_alone_and_in_order_keep_their_places():
    layout, _ = lay_out([rows(9, 1, [7]), rows(31, 2, [3, 9])], 2)
    fill(layout, 5, 5, FILLING)
    heads = by_head(layout, 2, NUM_BLOCKS)
    found = as_lists(heads.values)
    assert heads.is_in_order
    assert found["attended_strands"] == found["own_strands"] == list(range(10))
    assert found["subsequence_begins"] == list(range(11))
    assert found["past_lens"] == [9, 9, 31, 31, 32, 32, 0, 0, 1, 1]
    assert found["block_indices"] == [7, 47, 3, 43, 3, 9, 43, 49, 35, 75, 35, 75]


def test_places_beyond_the_rows_and_rows_that_are_attended_twice_are_not_in_order():
    layout, _ = lay_out([rows(9, 1, [7])], 1)
    fill(layout, 1, 3, FILLING)
    assert not by_head(layout, 2, NUM_BLOCKS).is_in_order
    layout, _ = lay_out([rows(32, 3, [3, 9], (-1, 0, 0))], 1, iter((20, 21)))
    heads = by_head(layout, 2, NUM_BLOCKS)
    assert not heads.is_in_order
    assert as_lists(heads.values)["own_strands"] == [0, 1, 2, 3, 6, 7]


def test_every_head_of_a_tree_is_told_who_sees_whom():
    tree = rows(40, 3, [3, 9], (-1, 0, 0))
    layout, _ = lay_out([rows(9, 2, [7]), tree], 0)
    found = as_lists(by_head(layout, 3, NUM_BLOCKS).values)
    assert found["qq_bias"] == 3 * [1, 0, 0, 1, 1, 0, 1, 0, 1]
    assert found["qq_bias_begins"] == [0, 0, 0, 0, 9, 18, 27]


def test_of_one_head_all_is_as_it_was():
    layout, _ = lay_out([rows(9, 1, [7]), rows(40, 2, [3, 9])], 1)
    heads = by_head(layout, 1, NUM_BLOCKS)
    expected = layout._asdict()
    places = {"attended_strands": expected.pop("attention_rows"), "own_strands": expected.pop("own_rows")}
    assert heads.values == expected | places


def test_wanting_other_rows_changes_nothing_else():
    layout, _ = lay_out([rows(9, 1, [7])], 1)
    heads = by_head(layout, 2, NUM_BLOCKS)
    assert heads.with_outputs([0, 0]).values == heads.values | {"output_rows": [0, 0]}


@given(
    lengths=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 7)), min_size=1, max_size=6),
    num_heads=st.integers(1, 5),
    max_alone=st.integers(0, 7),
    num_filling=st.integers(0, 9),
)
def test_each_place_has_its_part_and_each_part_its_place(lengths, num_heads, max_alone, num_filling):
    blocks = [5, 0, 30, 12]
    layout, _ = lay_out(
        [rows(past, count, blocks[: -(-(past + count) // BLOCK_SIZE)]) for past, count in lengths], max_alone
    )
    num_rows = len(layout.input_ids) + num_filling
    fill(layout, num_rows, num_rows + num_filling % 3, FILLING)
    found = as_lists(by_head(layout, num_heads, NUM_BLOCKS).values)
    sequence = 0
    for number, (begin, end) in enumerate(pairwise(layout.subsequence_begins)):
        first, last = layout.block_indices_begins[number : number + 2]
        for head in range(num_heads):
            places = slice(*found["subsequence_begins"][sequence : sequence + 2])
            strands = [row * num_heads + head for row in layout.attention_rows[begin:end]]
            assert found["attended_strands"][places] == strands
            those = slice(*found["block_indices_begins"][sequence : sequence + 2])
            told = [block + head * NUM_BLOCKS for block in layout.block_indices[first:last]]
            assert found["block_indices"][those] == told
            assert found["past_lens"][sequence] == layout.past_lens[number]
            sequence += 1
    assert len(found["past_lens"]) == sequence
    assert [found["attended_strands"][place] for place in found["own_strands"]] == list(range(num_rows * num_heads))
