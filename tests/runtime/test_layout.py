"""How a batch is flattened for OpenVINO's paged attention, and to what number its rows are filled up."""

from __future__ import annotations

import pytest

from outrider.runtime.base import SequenceRows
from outrider.runtime.openvino.layout import Ladder, fill, lay_out, prompt_rung

TOKEN_IDS = list(range(100, 175))


def rows(first: int, end: int, blocks: list[int]) -> SequenceRows:
    """Tokens [first, end) of a text, all their logits wanted."""
    return SequenceRows(TOKEN_IDS[first:end], first, blocks, range(end - first))


def test_a_tree_of_one_row_is_a_chain():
    layout, _ = lay_out([SequenceRows([4], 9, [0], [0], [-1])], 0)
    assert (layout.attention_rows, layout.position_ids, layout.qq_bias) == ([0], [9], [])


def test_a_tree_whose_branches_get_no_blocks_sees_its_ancestors_only():
    layout, _ = lay_out([rows(0, 2, [7]), SequenceRows([5, 6, 7], 40, [3, 9], [2], [-1, 0, 0])], 0)
    assert layout.input_ids == [*TOKEN_IDS[:2], 5, 6, 7]
    assert layout.attention_rows == layout.own_rows == [0, 1, 2, 3, 4]
    assert layout.position_ids == [0, 1, 40, 41, 41]
    assert layout.qq_bias == [1, 0, 0, 1, 1, 0, 1, 0, 1]
    assert layout.qq_bias_begins == [0, 0, 9]


def test_branches_are_chains_to_attention_with_blocks_of_their_own():
    tree = SequenceRows([5, 6, 7], 40, [3, 9], [2], [-1, 0, 0])
    layout, branching = lay_out([rows(0, 2, [7]), tree], 2, iter((20, 21)))
    assert layout.input_ids == [*TOKEN_IDS[:2], 5, 6, 7]
    assert layout.attention_rows == [0, 1, 2, 3, 2, 4]
    assert layout.own_rows == [0, 1, 2, 3, 5]
    assert (layout.position_ids, layout.past_lens) == ([0, 1, 40, 41, 41], [0, 1, 40, 41, 40, 41])
    assert layout.subsequence_begins == [0, 1, 2, 3, 4, 5, 6]
    assert (layout.block_indices, layout.block_indices_begins[2:]) == (
        [7, 7, 3, 20, 3, 20, 3, 21, 3, 21],
        [2, 4, 6, 8, 10],
    )
    assert (layout.qq_bias, layout.output_rows) == ([], [0, 1, 4])
    assert branching.opened == [(9, 20), (9, 21)]
    assert branching.closed == [((20, 8), (9, 8)), ((20, 9), (9, 9)), ((21, 9), (9, 10))]


def test_rows_alone_are_sequences_that_share_their_blocks():
    chain = rows(31, 33, [3, 4])
    layout, _ = lay_out([rows(0, 1, [7]), chain], 2)
    assert (layout.attention_rows, layout.own_rows) == ([0, 1, 2], [0, 1, 2])
    assert (layout.position_ids, layout.past_lens) == ([0, 31, 32], [0, 31, 32])
    assert (layout.subsequence_begins, layout.max_context_len) == ([0, 1, 2, 3], [33])
    assert (layout.block_indices, layout.block_indices_begins) == ([7, 3, 3, 4], [0, 1, 2, 4])
    assert lay_out([chain], 1) == lay_out([chain], 0)
    with pytest.raises(AssertionError):
        lay_out([rows(31, 33, [3])], 2)


def test_a_prompts_chunk_goes_as_a_whole_and_a_row_whose_logits_are_wanted_once_more_alone():
    chunk = rows(32, 35, [7, 4])._replace(is_prompt=True, output_rows=[])
    without, _ = lay_out([rows(0, 1, [3]), chunk], 65)
    assert (without.attention_rows, without.own_rows) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert (without.past_lens, without.subsequence_begins) == ([0, 32], [0, 1, 4])
    layout, _ = lay_out([rows(0, 1, [3]), chunk._replace(output_rows=[2]), rows(5, 6, [8])], 65)
    assert (layout.output_rows, layout.position_ids) == ([0, 3, 4], [0, 32, 33, 34, 5])
    assert (layout.attention_rows, layout.own_rows) == ([0, 1, 2, 3, 3, 4], [0, 1, 2, 4, 5])
    assert (layout.past_lens, layout.subsequence_begins) == ([0, 32, 34, 5], [0, 1, 4, 5, 6])
    assert layout.block_indices == [3, 7, 4, 7, 4, 8]


def test_a_chunk_of_a_single_row_goes_alone_with_a_root_too():
    chunk = rows(32, 34, [7, 4])._replace(is_prompt=True, output_rows=[1])
    assert lay_out([chunk], 65) == lay_out([chunk._replace(is_prompt=False)], 65)


def test_blocks_beyond_the_rows_are_not_told():
    assert lay_out([rows(0, 32, [3, 4]), rows(31, 33, [5, 6, 7])], 0)[0].block_indices == [3, 5, 6]


def test_few_rows_are_filled_up_to_one_of_a_few_numbers():
    ladder = Ladder(5)
    assert [ladder.rung(count) for count in (1, 5, 6, 13, 14, 66)] == [5, 5, 9, 13, 17, 69]
    # where six cost as little, the next are still those of drafts of 8, 12, ... tokens
    ladder = Ladder(6)
    assert [ladder.rung(count) for count in (1, 6, 7, 9, 10, 16, 18)] == [6, 6, 9, 9, 13, 17, 21]
    ladder.patience = 64
    assert [ladder.rung(count) for count in (6, 7, 10, 18, 34)] == [6, 9, 17, 33, 49]
    for first, rungs in ((1, [1, 5, 9, 15, 21]), (5, [5, 9, 15, 21])):
        ladder = Ladder(first)
        ladder.patience = 12
        assert sorted({ladder.rung(count) for count in range(1, 22)}) == rungs


@pytest.mark.parametrize(
    ("patience", "rungs"),
    [(8, [5, 8, 12, 16, 20, 24]), (16, [5, 8, 16, 24, 32]), (30, [5, 8, 16, 24, 32]), (64, [5, 8, 16, 32, 48, 64])],
)
def test_aligned_rungs_fill_tiles_of_16_rows(patience, rungs):
    ladder = Ladder(5, is_aligned=True)
    ladder.patience = patience
    assert sorted({ladder.rung(num_rows) for num_rows in range(1, rungs[-1] + 1)}) == rungs
    assert all(num_rows <= ladder.rung(num_rows) for num_rows in range(1, 200))
    lower = Ladder(1, is_aligned=True)
    lower.patience = patience
    assert sorted({lower.rung(num_rows) for num_rows in range(1, rungs[-1] + 1)}) == [1, *rungs]


def test_rungs_lie_apart_where_changes_are_dear():
    ladder = Ladder(5)
    ladder.patience = 40.0
    assert [ladder.rung(count) for count in (1, 6, 10, 18, 34, 50, 66)] == [5, 9, 17, 33, 49, 65, 81]


def test_a_number_stays_until_that_has_cost_as_much_as_a_change():
    ladder = Ladder(5)
    assert [ladder.climb(count) for count in (9, 1, 1, 1, 1)] == [9, 9, 9, 5, 5]
    assert [ladder.climb(count) for count in (9, 1, 9, 1, 1, 1)] == [9, 9, 9, 9, 9, 5]
    ladder.patience = 1.0
    assert [ladder.climb(count) for count in (9, 1)] == [9, 5]


def test_a_number_that_is_free_is_gone_to_at_once_and_changes_nothing():
    free: set[int] = set()
    ladder = Ladder(5, free)
    ladder.patience = 40.0
    assert [ladder.climb(count) for count in (17, 1)] == [17, 17]
    free.add(5)
    assert [ladder.climb(count) for count in (1, 14, 1, 9)] == [5, 17, 5, 17]


def test_with_tiles_a_free_number_is_gone_down_to_after_half_the_patience():
    ladder = Ladder(1, {1, 16}, is_aligned=True)
    ladder.patience = 64.0
    assert [ladder.climb(count) for count in (16, 1, 1, 1, 16)] == [16, 16, 16, 1, 16]


@pytest.mark.parametrize("is_aligned", [False, True])
def test_a_walk_that_is_begun_anew_is_as_if_there_had_been_none_and_changes_nothing(is_aligned):
    ladder, unused = Ladder(1, {9}, is_aligned=is_aligned), Ladder(1, {9}, is_aligned=is_aligned)
    ladder.patience = unused.patience = 40.0
    rows = [17, 9, 1, 1, 9, 30, 1, 1, 1, 1]
    before = ladder.climb(33)
    walk = ladder.anew()
    found = [walk.climb(count) for count in rows]
    assert found == [unused.climb(count) for count in rows]
    assert ladder.climb(before - 1) == before  # its own way goes on
    assert all(walk.rung(rung) == rung for rung in map(walk.rung, range(1, 100)))


@pytest.mark.parametrize(("num_rows", "rung"), [(1, 16), (16, 16), (17, 32), (33, 64), (65, 128), (130, 192)])
def test_a_draft_models_prompts_are_filled_up_to_few_lengths(num_rows, rung):
    assert prompt_rung(num_rows) == rung


def test_more_is_never_filled_up_than_a_block_holds():
    ladder = Ladder(5)
    ladder.patience = 1000.0
    assert [ladder.climb(count) for count in (65, 1)] == [65, 5]


def test_what_fills_up_has_a_block_of_its_own_that_no_row_sees():
    layout, _ = lay_out([rows(0, 2, [7])], 0)
    fill(layout, 5, 6, 11)
    assert layout.input_ids == [*TOKEN_IDS[:2], 0, 0, 0]
    assert (layout.attention_rows, layout.own_rows) == ([0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4])
    assert (layout.subsequence_begins, layout.past_lens) == ([0, 2, 3, 4, 5, 6], [0, 0, 1, 2, 3])
    assert (layout.block_indices, layout.block_indices_begins) == ([7, 11, 11, 11, 11], [0, 1, 2, 3, 4, 5])
    assert layout.output_rows == [0, 1]


def test_as_many_rows_as_threads_go_to_attention_though_a_block_holds_fewer():
    layout, _ = lay_out([rows(0, 1, [7])], 1)
    fill(layout, 1, 70, 11)
    assert (layout.attention_rows, layout.own_rows) == ([0] * 70, [0])
    assert (layout.past_lens, layout.position_ids) == ([0, *range(32), *range(32), *range(5)], [0])
