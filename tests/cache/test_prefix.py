"""Shared blocks: counted by their holders, found by their tokens, and gone when nobody needs them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from outrider.cache.books import CacheBooks
from outrider.cache.table import BLOCK_SIZE, BlockPool, BlockTable
from outrider.request import Request, SamplingParams
from outrider.sequence import Sequence

CHUNK = 2 * BLOCK_SIZE


def make_books(max_blocks: int = 64, max_prefix_tokens: int = 4 * CHUNK) -> CacheBooks:
    pool = BlockPool(max_blocks, lambda num_blocks: None)
    return CacheBooks(pool, lambda *move: None, prefill_chunk=CHUNK, max_prefix_tokens=max_prefix_tokens)


def start(prompt) -> Sequence:
    return Sequence.start(Request(request_id=0, prompt_token_ids=tuple(prompt), params=SamplingParams(), seed=0))


def compute_chunk(books: CacheBooks, sequence: Sequence) -> None:
    table, num_tokens = books.table(sequence), len(books.next_chunk(sequence))
    with table.reserve(num_tokens):
        table.commit(tuple(range(num_tokens)))
    sequence.num_computed = table.num_committed
    books.publish(sequence)


def test_a_block_is_free_when_its_last_holder_lets_go():
    pool = BlockPool(4, lambda num_blocks: None)
    first, second = BlockTable(pool), BlockTable(pool)
    with first.reserve(40):
        first.commit(tuple(range(40)))
    second.share(first.blocks[:1])
    pool.check([first, second])
    first.release()
    assert pool.num_free == pool.num_blocks - 1
    pool.check([second])
    second.release()
    assert pool.num_free == pool.num_blocks


def test_a_partly_filled_block_cannot_be_shared_unnoticed():
    pool = BlockPool(4, lambda num_blocks: None)
    first, second = BlockTable(pool), BlockTable(pool)
    with first.reserve(40):
        first.commit(tuple(range(40)))
    second.share(first.blocks)
    with pytest.raises(AssertionError, match="may be written to is shared"):
        pool.check([first, second])


def test_a_lost_block_and_a_wrong_count_are_noticed():
    pool = BlockPool(4, lambda num_blocks: None)
    table = BlockTable(pool)
    with table.reserve(70):
        table.commit(tuple(range(70)))
    blocks = table.blocks
    table.blocks = blocks[:2]
    with pytest.raises(AssertionError, match="not held as often"):
        pool.check([table])
    table.blocks = blocks
    pool.check([table])
    with pytest.raises(AssertionError, match="not held as often"):
        pool.check([table], blocks[:1])
    table.release()
    with pytest.raises(AssertionError, match="did not hold"):
        pool.give_back([0])


def test_chunks_are_told_apart_by_what_stands_before_them():
    books = make_books()
    first, second = start([1] * CHUNK + [3] * CHUNK + [0]), start([2] * CHUNK + [3] * CHUNK + [0])
    for sequence in (first, second):
        books.admit(sequence)
        compute_chunk(books, sequence)
    compute_chunk(books, first)
    assert books.key_of_next_chunk(second) != books.key_of_next_chunk(first)
    books.adopt(second)
    assert second.num_computed == CHUNK


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_books_balance_after_any_history_of_sequences_that_share(data):
    """Three kinds of chunks and few lengths, so that prompts begin alike, end alike, and are the same."""
    books = make_books(24, data.draw(st.sampled_from([0, CHUNK, 4 * CHUNK])))
    running: list[Sequence] = []
    for _ in range(data.draw(st.integers(5, 40))):
        action = data.draw(st.sampled_from(["start", "compute", "compute", "end"]))
        if action == "start":
            kinds = data.draw(st.lists(st.integers(0, 1), max_size=2))
            sequence = start(
                [kind for kind in kinds for _ in range(CHUNK)] + [5] * data.draw(st.sampled_from([1, 2, 40]))
            )
            books.admit(sequence)
            running.append(sequence)
        elif running and action == "end":
            books.release(running.pop(data.draw(st.integers(0, len(running) - 1))))
        elif running:
            sequence = data.draw(st.sampled_from(running))
            books.adopt(sequence)
            if sequence.is_prefilling and books.num_obtainable >= CHUNK // BLOCK_SIZE:
                compute_chunk(books, sequence)
        books.check(running)
    for sequence in running:
        books.release(sequence)
    books.check([])
    assert books.pool.num_free + books.index.num_idle_blocks == books.pool.num_blocks
