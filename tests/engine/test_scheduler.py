"""Who runs when: neither prompts nor texts starve, and where memory is short nobody is lost."""

from __future__ import annotations

import pytest

from outrider.draft.base import Draft, Drafter
from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.scheduler import MAX_TILE
from outrider.policy.fixed import FixedPolicy
from outrider.tree import DraftBudget, TokenTree
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, TreeDrafter, make_engine, plain_text, request, run

DRAFTERS = ["none", "suffix", "model", "trees"]


def make_drafter(name: str, target: FakeRuntime) -> Drafter:
    if name == "model":
        return ModelDrafter(FakeRuntime(salt=0, order=2, min_rows=1), 1000, VOCAB_SIZE)
    if name == "trees":
        return TreeDrafter(0, lambda text: int(target.logits(text).argmax()))
    return SuffixDrafter() if name == "suffix" else NoDrafter()


def assert_plain(target: FakeRuntime, sequences) -> None:
    for sequence in sequences:
        assert sequence.output_token_ids == plain_text(target, sequence.request)
        assert sequence.finish_reason == "length"


def test_prompts_and_texts_take_turns_while_there_are_both():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter())
    first = engine.add(request(0, [1], max_tokens=40))
    engine.step()
    second = engine.add(request(1, [2] * 161, max_tokens=4))
    while second.num_computed < 160:
        engine.step()
    kinds = ["decode" if batch[0].output_rows else "prefill" for batch in target.batches]
    assert kinds == ["decode", *["prefill", "decode"] * 9, "prefill"]
    assert first.num_output_tokens == 10


def test_prompts_take_turns_too_with_one_whole_chunk_each_as_many_as_a_step_may_take():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter(), max_prefill_tokens=40)
    for index in range(5):
        engine.add(request(index, [index] * 40, max_tokens=1))
    for _ in range(8):
        engine.step()
    prefill = [batch for batch in target.batches if not batch[0].output_rows]
    # twice 16 tokens fit into 40, a third time not, but the 7 that are left of a prompt do
    assert [[rows.token_ids[0] for rows in batch] for batch in prefill[:5]] == [
        [0, 1],
        [2, 3],
        [4, 0],
        [1, 2],
        [3, 4, 0],
    ]
    assert {len(rows.token_ids) for batch in prefill for rows in batch} <= {16, 7}
    assert max(sum(len(rows.token_ids) for rows in batch) for batch in prefill) <= 40


def test_chunks_of_whole_blocks_get_what_is_left_of_a_step_if_nobody_waits():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter(), prefill_chunk=32, max_prefill_tokens=150)
    for index in range(2):
        engine.add(request(index, [index] * 140, max_tokens=1))
    for _ in range(5):
        engine.step()
    prefill = [batch for batch in target.batches if not batch[0].output_rows]
    # One each, and as many more as fit: for the first one first.
    assert [[(rows.token_ids[0], rows.num_past, len(rows.token_ids)) for rows in batch] for batch in prefill] == [
        [(0, 0, 32), (0, 32, 32), (0, 64, 32), (1, 0, 32)],
        [(0, 96, 32), (0, 128, 11), (1, 32, 32), (1, 64, 32), (1, 96, 32), (1, 128, 11)],
    ]


def test_a_chunk_beyond_what_a_step_may_take_goes_alone_and_whole():
    target = FakeRuntime()
    sequences = run(
        make_engine(target, NoDrafter(), max_prefill_tokens=3),
        [request(index, [index] * 40, max_tokens=2) for index in range(2)],
    )
    prefill = [batch for batch in target.batches if not batch[0].output_rows]
    assert [(len(batch), len(batch[0].token_ids)) for batch in prefill] == [(1, 16)] * 4 + [(1, 7)] * 2
    assert_plain(target, sequences)


def test_sequences_are_admitted_by_what_they_need_now_not_by_the_longest_they_may_become():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter(), max_cache_tokens=32 * 8)
    for index in range(4):
        engine.add(request(index, [index], max_tokens=200))
    engine.step()
    assert len(engine.scheduler.running) == 4


@pytest.mark.parametrize("name", DRAFTERS)
def test_where_memory_is_short_the_last_admitted_waits_again_and_no_text_changes(name):
    target = FakeRuntime()
    engine = make_engine(target, make_drafter(name, target), prefill_chunk=32, max_cache_tokens=32 * 8, max_sequences=6)
    requests = [
        request(index, [index % 3, 5] * (4 * index + 1), seed=index, temperature=index % 2, max_tokens=130)
        for index in range(8)
    ]
    sequences = run(engine, requests)
    assert_plain(target, sequences)
    assert sum(sequence.num_preempted for sequence in sequences) > 2
    assert sequences[0].num_preempted == 0
    assert not any(sequence.draft_fault for sequence in sequences)


def test_requests_finish_in_the_order_they_came_where_only_one_has_room():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter(), max_cache_tokens=32 * 4)
    sequences = [engine.add(request(index, [index], max_tokens=100)) for index in range(5)]
    finished = []
    while not engine.is_idle:
        finished += [delta.request_id for delta in engine.step() if delta.finish_reason]
        engine.check()
    assert finished == [0, 1, 2, 3, 4]
    assert_plain(target, sequences)


def test_a_preempted_text_is_computed_again_in_its_chunks_and_in_tiles_and_its_drafter_forgets_it():
    target = FakeRuntime()
    released = []
    drafter = NoDrafter()
    drafter.propose = lambda sequences, budgets: Draft([TokenTree.chain((1,) * budget.limit) for budget in budgets])
    drafter.release = lambda sequence: released.append(sequence.request.request_id)
    engine = make_engine(target, drafter, max_cache_tokens=32 * 12)
    sequences = [engine.add(request(index, [index] * 40, depth=60, max_tokens=240)) for index in range(2)]
    while not released:
        engine.step()
        engine.check()
    (preempted,) = (sequence for sequence in sequences if sequence.num_preempted)
    num_output = preempted.num_output_tokens
    assert released == [1]
    assert preempted.num_computed == 0
    assert num_output > MAX_TILE
    target.batches.clear()
    while not engine.is_idle:
        engine.step()
        engine.check()
    again = [
        rows for batch in target.batches for rows in batch if rows.token_ids[0] == preempted.token_ids[rows.num_past]
    ]
    again = [(rows.num_past, len(rows.token_ids), len(rows.output_rows)) for rows in again]
    assert [rows for rows in again if rows[0] < 39] == [(0, 16, 0), (16, 16, 0), (32, 7, 0)]
    assert (39, MAX_TILE, 0) in again
    assert all(num_rows <= MAX_TILE for _, num_rows, _ in again)
    assert_plain(target, sequences)


def test_drafts_are_left_out_before_anybody_loses_a_cache():
    """Two texts that fit to their end, with trees that do not."""

    class Wide(FixedPolicy):
        def plan(self, sequences):
            return [budget._replace(max_nodes=45 * bool(budget.limit)) for budget in super().plan(sequences)]

    target = FakeRuntime()
    engine = make_engine(target, make_drafter("trees", target), max_cache_tokens=32 * 5)
    engine.scheduler.policy = Wide()
    sequences = run(engine, [request(index, [index], max_tokens=60) for index in range(2)])
    assert_plain(target, sequences)
    assert [sequence.num_preempted for sequence in sequences] == [0, 0]
    assert all(sequence.stats.num_drafted for sequence in sequences)


def test_the_policy_is_asked_once_a_step_for_all_that_reach_their_root():
    calls = []

    class Asked(FixedPolicy):
        def plan(self, sequences):
            calls.append([sequence.request.request_id for sequence in sequences])
            return super().plan(sequences)

    target = FakeRuntime()
    engine = make_engine(target, NoDrafter())
    engine.scheduler.policy = Asked()
    sequences = [engine.add(request(index, [index] * 5, max_tokens=200)) for index in range(3)]
    engine.step()
    assert calls == []
    while sequences[0].num_output_tokens < MAX_TILE + 5:
        engine.step()
    assert calls == [[0, 1, 2]] * len(calls)
    engine.scheduler._preempt_last()
    del calls[:]
    while len(calls) < 2:
        engine.step()
    assert calls == [[0, 1], [0, 1, 2]]  # after its prompt the third computes one tile, then another to the root


def test_a_step_drafts_no_more_rows_than_its_buffers_hold():
    target = FakeRuntime()
    engine = make_engine(target, make_drafter("trees", target))
    requests = [request(index, [index], depth=60, max_tokens=70) for index in range(12)]
    sequences = run(engine, requests)
    assert max(sum(len(rows.token_ids) for rows in batch) for batch in target.batches) <= 512
    assert_plain(target, sequences)


def test_where_drafts_have_too_many_rows_the_deepest_are_cut_and_none_is_left_out():
    target = FakeRuntime()
    engine = make_engine(target, make_drafter("trees", target))
    depths = [3, 60, 40, 60, 60, 5, 60, 60, 60, 60, 60, 60]
    for index, depth in enumerate(depths):
        engine.add(request(index, [index], depth=depth, max_tokens=70))
    batch = engine.scheduler.schedule()
    limits = [item.budget.limit for item in batch.items]
    assert sum(item.num_tokens + item.budget.max_nodes for item in batch.items) == 512
    cut = [limit for limit, depth in zip(limits, depths, strict=True) if limit < depth]
    assert [limit for limit, depth in zip(limits, depths, strict=True) if depth < 40] == [3, 5]
    assert max(limits) - min(cut) <= 1
    assert min(cut) >= 40


@pytest.mark.parametrize("count", [0, 3])
def test_a_budget_is_cut_with_its_members(count):
    member = DraftBudget(8, 12)
    budget = DraftBudget(8, 12, members=(member, DraftBudget(2, 2)), max_catch_up=5)
    assert budget.cut(12) == budget
    least = min(2, count)
    assert budget.cut(count) == DraftBudget(
        count, count, members=(DraftBudget(count, count), DraftBudget(least, least)), max_catch_up=5
    )
