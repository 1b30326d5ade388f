"""The cache's books: nothing is lost, held twice, or kept that was not committed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from outrider.cache.table import BLOCK_SIZE, FIRST_BLOCKS, BlockPool, BlockTable, OutOfBlocksError


def make_pool(max_blocks: int = 100) -> BlockPool:
    return BlockPool(max_blocks, lambda num_blocks: None)


def test_leaving_a_reservation_without_commit_frees_everything():
    pool = make_pool()
    table = BlockTable(pool)
    with table.reserve(3 * BLOCK_SIZE):
        assert len(table.blocks) == 3
    assert (table.blocks, pool.num_free) == ([], pool.num_blocks)
    pool.check([table])


def test_an_error_inside_a_reservation_frees_everything():
    pool = make_pool()
    table = BlockTable(pool)
    with pytest.raises(RuntimeError), table.reserve(5):
        raise RuntimeError
    pool.check([table])
    assert not table.blocks


def test_commit_keeps_the_path_and_says_which_slots_move():
    table = BlockTable(make_pool())
    with table.reserve(10):
        table.commit(tuple(range(10)))
    with table.reserve(6):
        assert table.commit((0, 2, 5)) == [(12, 11), (15, 12)]
    assert table.num_committed == 13
    with table.reserve(4):
        assert table.commit((0, 1)) == []


def test_a_row_that_was_not_reserved_cannot_be_committed():
    table = BlockTable(make_pool())
    with table.reserve(2), pytest.raises(AssertionError):
        table.commit((0, 1, 2))


def test_the_pool_grows_by_doubling_and_tells_the_runtime():
    sizes: list[int] = []
    pool = BlockPool(5 * FIRST_BLOCKS, sizes.append)
    assert [len(set(pool.take(FIRST_BLOCKS))) for _ in range(4)] == [FIRST_BLOCKS] * 4
    assert sizes == [FIRST_BLOCKS, 2 * FIRST_BLOCKS, 4 * FIRST_BLOCKS]
    with pytest.raises(OutOfBlocksError, match="161 cache blocks needed, 160 allowed"):
        pool.take(FIRST_BLOCKS + 1)


def test_no_pool_begins_with_more_blocks_than_it_may_have():
    sizes: list[int] = []
    BlockPool(10, sizes.append)
    assert sizes == [10]


def test_texts_that_grow_side_by_side_have_their_blocks_in_the_order_of_memory():
    pool = make_pool(1000)
    pool.give_back(pool.take(512))
    tables = [BlockTable(pool) for _ in range(8)]
    for table in tables:
        with table.reserve(7 * BLOCK_SIZE):
            table.commit(tuple(range(7 * BLOCK_SIZE)))
    for _ in range(20 * BLOCK_SIZE):
        for table in tables:
            with table.reserve(5):  # and gives what is rejected back
                table.commit((0,))
    for table in tables:
        assert table.blocks == list(range(table.blocks[0], table.blocks[0] + 27))
    pool.check(tables)


def test_a_text_alone_begins_at_the_beginning_and_goes_on_in_order_as_the_pool_grows():
    table = BlockTable(make_pool(1000))
    for _ in range(100):
        with table.reserve(BLOCK_SIZE):
            table.commit(tuple(range(BLOCK_SIZE)))
    assert table.blocks == list(range(100))


def test_where_there_is_no_room_in_one_piece_any_free_block_does():
    pool = make_pool(10)
    blocks = pool.take(10)
    pool.give_back(blocks[1::2])
    assert sorted(pool.take(5, blocks[0])) == blocks[1::2]
    pool.give_back(blocks[2:7])
    assert pool.take(3, blocks[1]) == blocks[2:5]
    assert pool.take(2, blocks[9]) == blocks[5:7]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70), st.data()), max_size=30))
def test_books_balance_after_any_history(events):
    pool = make_pool(1000)
    tables = [BlockTable(pool) for _ in range(4)]
    for index, num_rows, data in events:
        table = tables[index]
        with table.reserve(num_rows):
            num_kept = data.draw(st.integers(0, num_rows))
            table.commit(tuple(range(num_kept)))
            pool.check(tables)
        if data.draw(st.booleans()):
            table.release(data.draw(st.integers(0, table.num_committed)))
        pool.check(tables)
    for table in tables:
        table.release()
    assert pool.num_free == pool.num_blocks
