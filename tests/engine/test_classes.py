"""Forwards stay in the class that was found to be bitwise, and what was demanded is kept or refused."""

from __future__ import annotations

import dataclasses

import pytest

from outrider import EngineConfig, RuntimeOptions
from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.engine.load import require_bitwise
from outrider.errors import ParameterError, UsageError
from outrider.runtime.base import RowClass
from outrider.runtime.numerics import SelfTest
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, TreeDrafter, make_engine, plain_text, request, run


def make_requests(count: int = 12) -> list:
    return [request(index, [index] * 20, seed=index, depth=4, temperature=0.8, max_tokens=20) for index in range(count)]


def sizes(target: FakeRuntime, *, prefill: bool) -> list[list[int]]:
    return [
        [len(rows.token_ids) for rows in batch]
        for batch in target.batches
        if prefill == (not any(rows.output_rows for rows in batch))
    ]


def test_a_step_of_more_rows_than_the_class_has_takes_several_forwards():
    target = FakeRuntime(order=50)
    target.row_class = RowClass(max_rows=17)
    sequences = run(make_engine(target, ModelDrafter(FakeRuntime(order=50), 1000, VOCAB_SIZE)), make_requests())
    assert [each.output_token_ids for each in sequences] == [plain_text(target, each.request) for each in sequences]
    decoded = sizes(target, prefill=False)
    assert max(target.num_padded_rows(batch) for batch in decoded) == 12  # two sequences of 5 rows, and padding
    assert max(map(len, decoded)) > 1
    assert max(map(len, sizes(target, prefill=True))) > 1


def test_prompts_that_may_not_share_a_forward_do_not():
    target = FakeRuntime(order=50)
    target.row_class = RowClass(is_prefill_shared=False)
    sequences = run(make_engine(target, ModelDrafter(FakeRuntime(), 1000, VOCAB_SIZE)), make_requests())
    assert [each.output_token_ids for each in sequences] == [plain_text(target, each.request) for each in sequences]
    assert set(map(len, sizes(target, prefill=True))) == {1}
    assert max(map(len, sizes(target, prefill=False))) == 12


@pytest.mark.parametrize(("max_root_rows", "max_prefill_tokens", "told"), [
    (0, 512, []), (38, 512, []), (39, 512, [0]), (40, 512, [0, 1]), (100, 39, [0]), (100, 38, []),
])  # fmt: skip
def test_first_tokens_come_with_their_prompts_as_far_as_the_class_goes(max_root_rows, max_prefill_tokens, told):
    target = FakeRuntime(order=50)
    target.row_class = RowClass(max_root_rows=max_root_rows)
    engine = make_engine(target, NoDrafter(), prefill_chunk=32, max_prefill_tokens=max_prefill_tokens)
    sequences = [engine.add(each) for each in make_requests(2)]
    assert [delta.request_id for delta in engine.step()] == told
    while not engine.is_idle:
        engine.step()
        engine.check()
    assert [each.output_token_ids for each in sequences] == [plain_text(target, each.request) for each in sequences]
    assert [each.stats.num_steps for each in sequences] == [19 if number in told else 20 for number in range(2)]
    assert all(each.stats.acceptance_length == 1 for each in sequences)


def test_a_first_token_may_be_the_last_and_a_prompts_last_chunk_may_end_with_a_block():
    target = FakeRuntime(order=50)
    target.row_class = RowClass(max_root_rows=100)
    engine = make_engine(target, NoDrafter(), prefill_chunk=32)
    sequences = [engine.add(request(index, [index] * length, max_tokens=1)) for index, length in enumerate((33, 65, 2))]
    assert len(engine.step()) == len(sequences)
    engine.check()
    assert engine.is_idle
    for sequence in sequences:
        assert sequence.output_token_ids == plain_text(target, sequence.request)
        assert (sequence.finish_reason, sequence.stats.acceptance_length) == ("length", None)
    assert [len(rows.token_ids) for rows in target.batches[0]] == [33, 32, 33, 2]


def test_a_text_that_lost_its_cache_computes_its_prompt_alone_again():
    target = FakeRuntime(order=50)
    target.row_class = RowClass(max_root_rows=100)
    engine = make_engine(target, NoDrafter(), prefill_chunk=32)
    sequence = engine.add(request(0, [1] * 40, max_tokens=6))
    engine.add(request(1, [2] * 40, max_tokens=6))
    for _ in range(3):
        engine.step()
    before = len(target.batches)
    engine.scheduler.running.reverse()
    engine.scheduler._preempt_last()
    while not engine.is_idle:
        engine.step()
    assert sequence.num_preempted == 1
    again = [rows for batch in target.batches[before:] for rows in batch if rows.is_prompt]
    assert [(len(rows.token_ids), tuple(rows.output_rows)) for rows in again] == [(7, ())]  # its first chunk was kept
    assert sequence.output_token_ids == plain_text(target, sequence.request)


@pytest.mark.parametrize(("trees", "exactness", "is_fault"), [
    ("seed", "bitwise", True), ("bitwise", "bitwise", False), ("seed", None, False),
])  # fmt: skip
def test_a_tree_of_ones_own_drafter_is_a_fault_where_only_chains_keep_what_was_demanded(trees, exactness, is_fault):
    target = FakeRuntime()
    target.row_class = RowClass(trees=trees)
    drafter = TreeDrafter(0, lambda text: int(target.logits(text).argmax()))
    (sequence,) = run(make_engine(target, drafter, exactness=exactness), make_requests(1))
    assert sequence.output_token_ids == plain_text(target, sequence.request)
    assert bool(sequence.stats.num_branching) == (not is_fault)
    assert ("only chains are" in (sequence.draft_fault or "")) == is_fault


class TestDemand:
    """`exactness="bitwise"` at loading."""

    def require(self, found: SelfTest, **config) -> None:
        require_bitwise(FakeRuntime(), found, EngineConfig(exactness="bitwise", **config))

    def test_what_was_found_is_kept(self):
        self.require(SelfTest("bitwise", 0.0))
        self.require(SelfTest("bitwise", 0.0, row_class=RowClass(trees="bitwise")), max_children=3)

    def test_what_was_not_found_is_refused_with_the_reason_and_what_may_keep_it(self, monkeypatch):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
        expected = (
            r"cannot keep it for this model: 8 rows differ by 1e-06; try --dtype bfloat16, .*"
            r"without ONEDNN_MAX_CPU_ISA=AVX2 in the environment, or leave --exactness out for level seed"
        )
        with pytest.raises(UsageError, match=expected):
            self.require(SelfTest("seed", 1e-6, reason="8 rows differ by 1e-06"))

    def test_trees_are_refused_where_they_are_not(self):
        with pytest.raises(UsageError, match="for chains only, and max_children is 2: set it to 1"):
            self.require(SelfTest("bitwise", 0.0), max_children=2)

    @pytest.mark.parametrize("config", [{"self_test": False}, {"options": RuntimeOptions(bitwise=False)}])
    def test_what_nobody_could_know_is_refused_at_once(self, config):
        with pytest.raises(ParameterError, match="exactness is 'bitwise', which nobody knows"):
            EngineConfig(exactness="bitwise", **config)

    def test_unknown_levels_and_numbers_of_children_are_refused(self):
        with pytest.raises(ParameterError, match="exactness is 'distribution', but must be bitwise, seed or None"):
            EngineConfig(exactness="distribution")
        with pytest.raises(ParameterError, match="max_children is 0, but must be 1 or more"):
            EngineConfig(max_children=0)
        with pytest.raises(ParameterError, match="max_children"):
            dataclasses.replace(make_requests(1)[0], max_children=0)
