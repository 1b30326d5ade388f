"""The loop against decoding written as a first-year student writes it, on a fake model that poisons its cache."""

from __future__ import annotations

import dataclasses
import random

import pytest

from outrider.draft.base import Draft, Drafter
from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.errors import ContextError
from outrider.stats import SequenceStats
from outrider.tree import TokenTree
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, TreeDrafter, make_engine, plain_text, request, run

PROMPTS = [[1], [2, 3], list(range(16)), list(range(17)), [5, 6] * 20, [index % 7 for index in range(70)]]


def make_drafter(name: str, target: FakeRuntime):
    if name == "good model":
        return ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE)
    if name.endswith("model in trees"):
        return ModelDrafter(FakeRuntime(salt=5 * name.startswith("bad"), min_rows=1), 1000, VOCAB_SIZE)
    if name == "bad model":
        return ModelDrafter(FakeRuntime(salt=5, min_rows=1), 1000, VOCAB_SIZE)
    if name == "trees":
        return TreeDrafter(0, lambda text: int(target.logits(text).argmax()))
    return {"none": NoDrafter, "suffix": SuffixDrafter}[name]()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
@pytest.mark.parametrize(
    "name", ["none", "suffix", "good model", "bad model", "trees", "good model in trees", "bad model in trees"]
)
@pytest.mark.parametrize("depth", [0, 1, 3, 8])
def test_the_text_is_plain_decodings_text(name, depth, temperature):
    target = FakeRuntime()
    requests = [
        request(index, prompt, depth=depth, seed=index, temperature=temperature, max_tokens=40)
        for index, prompt in enumerate(PROMPTS)
    ]
    if name.endswith("in trees"):
        requests = [dataclasses.replace(each, max_children=3) for each in requests]
    together = run(make_engine(target, make_drafter(name, target)), requests)
    assert any(each.stats.num_branching for each in together) == (name.endswith("trees") and depth > 1)
    for sequence, request_ in zip(together, requests, strict=True):
        assert sequence.output_token_ids == plain_text(target, request_)
        assert sequence.finish_reason == "length"


def test_a_drafter_that_is_the_target_has_everything_accepted_and_pays_with_fewer_steps():
    target = FakeRuntime()
    (sequence,) = run(
        make_engine(target, make_drafter("good model", target)), [request(0, [3, 1, 4], depth=4, max_tokens=50)]
    )
    assert sequence.stats.acceptance_rate == 1.0
    assert sequence.stats.num_steps == 10
    assert sequence.stats.acceptance_length == 5.0
    assert sequence.stats.survival == [1.0] * 4


def test_the_draft_models_cache_stays_in_step_with_the_text():
    """A draft model whose cache held a rejected guess would see another context than the text and stop agreeing."""
    target = FakeRuntime(order=50)
    draft = FakeRuntime(order=50, min_rows=1)
    drafter = ModelDrafter(draft, 1000, VOCAB_SIZE)
    engine = make_engine(target, drafter)
    sequence = engine.add(request(0, [1, 2, 3], depth=5, temperature=1.0, max_tokens=60))
    spoiled = random.Random(0)
    choose_right = draft.logits
    draft.logits = lambda context: choose_right(context) if spoiled.random() < 0.6 else choose_right([*context, 0])
    while sequence.num_output_tokens < 30:
        engine.step()
        engine.check()
    spoiled_stats, sequence.stats = sequence.stats, SequenceStats()
    draft.logits = choose_right
    while not engine.is_idle:
        engine.step()
    assert 0.2 < spoiled_stats.acceptance_rate < 0.9
    assert sequence.stats.acceptance_rate == 1.0


def test_a_draft_model_with_a_shorter_context_stops_drafting_there_and_the_text_goes_on():
    target = FakeRuntime()
    drafter = ModelDrafter(FakeRuntime(min_rows=1, max_context=32), 1000, VOCAB_SIZE)
    wanted = request(0, [1, 2, 3], depth=5, max_tokens=60)
    (sequence,) = run(make_engine(target, drafter), [wanted])
    assert sequence.output_token_ids == plain_text(target, wanted)
    assert 0 < sequence.stats.num_drafted < 40


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        ([], "made 0 trees for 1 sequences"),
        ([TokenTree.chain((1,) * 5)], "proposed 5 nodes, but its budget is 4"),
        ([TokenTree.chain((VOCAB_SIZE,))], "no tree of a vocabulary of 23"),
        ([TokenTree((-1,), (-1,))], "no tree of a vocabulary of 23"),
        ([TokenTree((1, 2), (0, -1))], "no tree"),
        ([TokenTree((1, 2), (-1,))], "no tree"),
    ],
)
def test_a_draft_that_is_not_what_was_asked_for_never_reaches_the_runtime_and_the_text_goes_on_plain(trees, message):
    drafter = NoDrafter()
    drafter.propose = lambda sequences, budgets: Draft(trees)
    target = FakeRuntime()
    wanted = request(0, [1], max_tokens=20)
    (sequence,) = run(make_engine(target, drafter), [wanted])
    assert sequence.output_token_ids == plain_text(target, wanted)
    assert message in sequence.draft_fault
    assert max(len(rows.token_ids) for batch in target.batches for rows in batch) == 1


def test_prompts_are_computed_in_chunks_at_fixed_multiples_apart_from_decoding():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter())
    run(engine, [request(0, [1] * 40, max_tokens=3), request(1, [2] * 20, max_tokens=3)])
    shapes = [
        [(rows.num_past, len(rows.token_ids), len(rows.output_rows)) for rows in batch] for batch in target.batches
    ]
    assert shapes[:5] == [
        [(0, 16, 0), (0, 16, 0)],
        [(16, 16, 0), (16, 3, 0)],
        [(19, 1, 1)],
        [(32, 7, 0)],
        [(39, 1, 1), (20, 1, 1)],
    ]


def test_while_others_decode_a_prompt_is_computed_chunk_by_chunk():
    target = FakeRuntime()
    engine = make_engine(target, NoDrafter(), prefill_chunk=32)
    engine.add(request(0, [1] * 4, max_tokens=9))
    for _ in range(2):
        engine.step()
    engine.add(request(1, [2] * 80, max_tokens=1))
    for _ in range(6):
        engine.step()
    prompts = [batch for batch in target.batches[1:] if not batch[0].output_rows]
    assert [[(rows.num_past, len(rows.token_ids)) for rows in batch] for batch in prompts[-3:]] == [
        [(0, 32)], [(32, 32)], [(64, 15)],
    ]  # fmt: skip


def test_an_end_token_inside_an_accepted_draft_ends_the_text_there():
    target = FakeRuntime()
    free = plain_text(target, request(0, [1, 2], max_tokens=40))
    stop = free[7]
    ended = request(0, [1, 2], max_tokens=40, stop_token_ids=(stop,))
    (sequence,) = run(make_engine(target, make_drafter("good model", target)), [ended])
    assert sequence.output_token_ids == free[: free.index(stop) + 1]
    assert sequence.finish_reason == "stop"


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 5, 7])
def test_the_length_is_kept_whatever_the_depth(max_tokens):
    target = FakeRuntime()
    (sequence,) = run(make_engine(target, make_drafter("good model", target)), [request(0, [1], max_tokens=max_tokens)])
    assert sequence.num_output_tokens == max_tokens


def test_more_requests_than_fit_wait_and_none_is_lost():
    target = FakeRuntime()
    requests = [request(index, [index, 1, 2], depth=3, seed=index, max_tokens=30) for index in range(12)]
    sequences = run(make_engine(target, SuffixDrafter(), max_sequences=3, max_cache_tokens=160), requests)
    assert [sequence.output_token_ids for sequence in sequences] == [plain_text(target, r) for r in requests]
    assert max(len(batch) for batch in target.batches) <= 3


def test_a_request_that_could_never_fit_is_refused_with_the_numbers():
    engine = make_engine(FakeRuntime(), NoDrafter(), max_cache_tokens=64)
    with pytest.raises(ContextError, match=r"prompt \(3 tokens\).*needs 4 cache blocks.*may have 2"):
        engine.add(request(0, [1, 2, 3], max_tokens=100))


def test_cancelling_frees_everything_at_once_and_disturbs_nobody():
    target = FakeRuntime()
    engine = make_engine(target, make_drafter("good model", target))
    requests = [request(index, [index] * 20, seed=index, max_tokens=30) for index in range(3)]
    sequences = [engine.add(request_) for request_ in requests]
    engine.step()
    engine.cancel(1)  # in the middle of its prompt
    engine.check()
    for _ in range(4):
        engine.step()
    delta = engine.cancel(0)
    engine.check()
    assert delta is not None
    assert delta.finish_reason == sequences[0].finish_reason == "cancelled"
    assert engine.cancel(0) is None
    while not engine.is_idle:
        engine.step()
        engine.check()
    assert sequences[2].output_token_ids == plain_text(target, requests[2])
    assert engine.pool.num_free == engine.pool.num_blocks


def test_seconds_are_told_apart_by_stage_on_an_injected_clock():
    import dataclasses

    target = FakeRuntime()
    engine = make_engine(target, NoDrafter())
    now = [0.0]
    slow = target.forward

    def forward(batch):
        now[0] += 2.0
        return slow(batch)

    def plan(sequences):
        now[0] += 0.5
        return quick(sequences)

    target.forward = forward
    quick, engine.scheduler.policy.plan = engine.scheduler.policy.plan, plan
    engine.parts = dataclasses.replace(engine.parts, clock=lambda: now[0])
    (sequence,) = run(engine, [request(0, [1] * 17, max_tokens=5)])
    assert sequence.stats.seconds == {
        "prefill": 2.0, "draft": 0.0, "target": 10.0, "sample": 0.0, "policy": 2.5, "other": 0.0
    }  # fmt: skip
    assert sequence.stats.decode_tokens_per_second == 0.4


def test_what_asking_takes_beside_a_drafters_work_is_thought_about_it():
    now, steps = [0.0], []

    class Slow(Drafter):
        name = "slow"

        def propose(self, sequences, budgets):
            now[0] += 0.5
            return Draft([TokenTree.chain((1,)) for _ in sequences])

    engine = make_engine(FakeRuntime(), Slow(), clock=lambda: now[0])
    policy = engine.scheduler.policy
    select = policy.select

    def slow_select(*arguments):
        now[0] += 0.25
        return select(*arguments)

    policy.select, policy.observe = slow_select, steps.append
    run(engine, [request(0, [1, 2], max_tokens=6)])
    (step, *_) = steps
    assert [work.seconds for work in step.work] == [0.5]
    assert (step.thinking_seconds, step.seconds) == (0.25, 0.0)


def test_trees_go_on_after_preemption_with_the_same_text():
    target = FakeRuntime(order=60)
    drafter = ModelDrafter(FakeRuntime(order=60, min_rows=1), 1000, VOCAB_SIZE)
    requests = [
        dataclasses.replace(request(index, [index] * 20, depth=9, temperature=1.0, max_tokens=90), max_children=3)
        for index in range(6)
    ]
    sequences = run(make_engine(target, drafter, max_cache_tokens=32 * 9), requests)
    assert [each.output_token_ids for each in sequences] == [plain_text(target, each) for each in requests]
    assert any(each.num_preempted and each.stats.num_branching for each in sequences)
    assert not any(each.draft_fault for each in sequences)
