"""Equal beginnings of prompts are computed once, and no text is another for it."""

from __future__ import annotations

import pytest

from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams
from outrider.cache.table import BLOCK_SIZE
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.runtime.base import RowClass
from tests.engine.fakes import (
    FakeRuntime,
    TreeDrafter,
    assert_nothing_is_held,
    make_engine,
    plain_text,
    request,
    run,
)
from tests.runtime.checkpoints import make_checkpoint

CHUNK = 64
SYSTEM = [index % 11 for index in range(2 * CHUNK)]

RUNTIMES = [("openvino", "bfloat16"), ("torch", "float32")]


def make(target: FakeRuntime, drafter=None, **config):
    return make_engine(target, drafter or NoDrafter(), **{"prefill_chunk": CHUNK, **config})


def assert_plain(target: FakeRuntime, sequences) -> None:
    assert [sequence.output_token_ids for sequence in sequences] == [
        plain_text(target, sequence.request) for sequence in sequences
    ]


def num_prompt_rows(target: FakeRuntime) -> int:
    return sum(
        len(rows.token_ids) - len(rows.output_rows) for batch in target.batches for rows in batch if rows.is_prompt
    )


@pytest.mark.parametrize("max_root_rows", [0, 512])
@pytest.mark.parametrize("max_tokens", [1, 30])
@pytest.mark.parametrize("length", [1, 2, 33, 64, 65, 97, 128, 129, 150])
def test_many_texts_of_one_prompt_compute_it_once(length, max_tokens, max_root_rows):
    """Whole chunks are shared; of the tail, whole blocks are shared and the rest is copied."""
    target = FakeRuntime(order=200)
    target.row_class = RowClass(max_root_rows=max_root_rows)
    prompt = [index % 13 for index in range(length)]
    requests = [request(index, prompt, seed=index, temperature=1.0, max_tokens=max_tokens) for index in range(16)]
    engine = make(target)
    assert_plain(target, run(engine, requests))
    assert num_prompt_rows(target) == length - 1


def test_a_common_beginning_is_computed_once_by_whole_chunks_and_each_goes_on_by_itself():
    target = FakeRuntime(order=300)
    requests = [request(index, SYSTEM + [index] * 10, max_tokens=20) for index in range(8)]
    drafter = TreeDrafter(0, lambda text: int(target.logits(text).argmax()))
    assert_plain(target, run(make(target, drafter), requests))
    assert num_prompt_rows(target) == len(SYSTEM) + 8 * 9


def test_a_prompt_that_begins_like_anothers_tail_does_not_get_it():
    """A chunk is computed in one shape only, so that its bits do not depend on what else was asked."""
    target = FakeRuntime(order=300)
    requests = [request(index, SYSTEM[:length], max_tokens=5) for index, length in enumerate((40, 41, 63))]
    assert_plain(target, run(make(target), requests))
    assert num_prompt_rows(target) == 39 + 40 + 62


def test_who_comes_later_takes_over_what_is_there_and_disturbs_nobody():
    target = FakeRuntime(order=300)
    engine = make(target, SuffixDrafter())
    sequences = []
    for index in range(6):
        sequences.append(engine.add(request(index, SYSTEM + [7] * (index % 2 + 20), seed=index, max_tokens=40)))
        for _ in range(6):
            engine.step()
            engine.check()
    while not engine.is_idle:
        engine.step()
    assert_plain(target, sequences)
    assert num_prompt_rows(target) == len(SYSTEM) + 19 + 20


def test_a_finished_requests_chunks_are_kept_for_those_to_come():
    target = FakeRuntime(order=300)
    engine = make(target)
    for index in range(3):
        assert_plain(target, run(engine, [request(index, [*SYSTEM, index], max_tokens=5)]))
    assert num_prompt_rows(target) == len(SYSTEM)
    assert engine.books.index.num_idle_blocks == len(SYSTEM) // BLOCK_SIZE


def test_with_nothing_kept_only_texts_in_the_making_share():
    target = FakeRuntime(order=300)
    engine = make(target, max_prefix_tokens=0)
    run(engine, [request(index, [*SYSTEM, index], max_tokens=5) for index in range(3)])
    assert num_prompt_rows(target) == len(SYSTEM)
    assert engine.pool.num_free == engine.pool.num_blocks
    run(engine, [request(3, [*SYSTEM, 3], max_tokens=5)])
    assert num_prompt_rows(target) == 2 * len(SYSTEM)


def test_of_what_is_kept_the_longest_unused_goes_first():
    target = FakeRuntime(order=300)
    engine = make(target, max_prefix_tokens=3 * CHUNK)
    prompts = [[index] * (CHUNK + 1) for index in range(4)]
    for index, prompt in enumerate([prompts[0], prompts[1], prompts[0], prompts[2], prompts[3]]):
        run(engine, [request(index, prompt, max_tokens=2)])
    assert num_prompt_rows(target) == 4 * CHUNK
    run(engine, [request(5, prompts[0], max_tokens=2)])
    assert num_prompt_rows(target) == 4 * CHUNK
    run(engine, [request(6, prompts[1], max_tokens=2)])
    assert num_prompt_rows(target) == 5 * CHUNK


def test_what_is_kept_makes_room_whenever_blocks_are_needed():
    target = FakeRuntime(order=300)
    engine = make(target, max_cache_tokens=8 * BLOCK_SIZE)
    for index in range(6):
        (sequence,) = run(engine, [request(index, [index] * (CHUNK + 1), max_tokens=180)])
        assert_plain(target, [sequence])
        assert sequence.num_preempted == 0
    assert_nothing_is_held(engine)


def test_what_is_kept_is_not_counted_twice_when_room_is_sought():
    """It would make room, or it would be used: not both."""
    target = FakeRuntime(order=300)
    engine = make(target, max_cache_tokens=8 * BLOCK_SIZE)
    run(engine, [request(0, [*SYSTEM, 0], max_tokens=2)])
    first = engine.add(request(1, [1], max_tokens=100))
    while first.num_output_tokens < 60:
        engine.step()
    second = engine.add(request(2, [*SYSTEM, 2], max_tokens=60))
    while not engine.is_idle:
        engine.step()
        engine.check()
        assert first.finish_reason or engine.scheduler.running == [first]
    assert second.num_preempted == 0
    assert_plain(target, [first, second])


def test_a_preempted_sequence_finds_its_prompt_again():
    target = FakeRuntime(order=300)
    engine = make(target, max_cache_tokens=32 * 10)
    sequences = [engine.add(request(index, [*SYSTEM, index], max_tokens=150)) for index in range(2)]
    while not engine.is_idle:
        engine.step()
        engine.check()
    assert_plain(target, sequences)
    assert sequences[1].num_preempted
    computed = [rows.num_past for batch in target.batches for rows in batch if rows.num_past < len(SYSTEM)]
    assert computed == [0, CHUNK]


def test_cancelling_who_computes_for_others_leaves_them_what_was_done():
    target = FakeRuntime(order=300)
    engine = make(target, max_prefill_tokens=CHUNK)
    sequences = [engine.add(request(index, SYSTEM + [3] * 30, seed=index, max_tokens=10)) for index in range(4)]
    for index in range(2):
        engine.step()
        engine.cancel(index)
        engine.check()
    while not engine.is_idle:
        engine.step()
        engine.check()
    assert_plain(target, sequences[2:])
    assert num_prompt_rows(target) == len(SYSTEM) + 29
    assert_nothing_is_held(engine)


@pytest.mark.parametrize(("runtime", "dtype"), RUNTIMES)
def test_chunks_in_one_forward_have_the_bits_of_one_after_the_other(tmp_path, runtime, dtype):
    folder = make_checkpoint(tmp_path / "target", "llama", dtype=dtype)
    prompts = [[first, *(index % 200 for index in range(length))] for first, length in ((5, 200), (6, 97), (7, 270))]
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=12, log_probs=2)
    texts = []
    for num_tokens in (96, 200, 1024):
        options = RuntimeOptions(num_threads=1)
        config = EngineConfig(
            runtime=runtime, options=options, self_test=False, prefill_chunk=96, max_prefill_tokens=num_tokens
        )
        llm = LLM(folder, config=config)
        texts.append([(output.token_ids, output.log_probs) for output in llm.generate(prompts, params)])
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize(("runtime", "dtype"), RUNTIMES)
def test_on_real_runtimes_shared_copied_and_preempted_texts_are_those_of_one_alone(tmp_path, runtime, dtype):
    folder = make_checkpoint(tmp_path / "target", "qwen3", dtype=dtype)
    prompts = [*[list(range(3, 75)) + [index] * 5 for index in range(2)], *[[8, 9] * 40] * 3]
    params = [SamplingParams(temperature=1.0, seed=index, max_tokens=60) for index in range(len(prompts))]

    def make_llm(**config) -> LLM:
        options = RuntimeOptions(num_threads=1)
        return LLM(folder, "suffix", config=EngineConfig(runtime=runtime, options=options, self_test=False, **config))

    alone = make_llm(prefill_chunk=32, max_prefix_tokens=0)
    short = make_llm(prefill_chunk=32, max_cache_tokens=32 * 11)
    wanted = [
        alone.generate([prompt], each, depth=0)[0].token_ids for prompt, each in zip(prompts, params, strict=True)
    ]
    found = short.generate(prompts, params, depth=3)
    short.engine.check()
    assert [generation.token_ids for generation in found] == wanted
    assert sum(generation.num_preempted for generation in found)
    assert_nothing_is_held(short.engine)
