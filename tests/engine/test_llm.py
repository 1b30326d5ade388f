"""The front door on real checkpoints: replay (same seed, same text) and parity with transformers' `generate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams, UsageError, bundled_pair
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from tests.runtime.checkpoints import make_checkpoint, make_model

PROMPTS = [[5, 6, 7], list(range(3, 40)), [9] * 12, [100, 50] * 20]
RUNTIMES = ("openvino", "torch")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    return {
        "float32": make_checkpoint(root / "target", "qwen3"),
        "bfloat16": make_checkpoint(root / "target16", "llama", dtype="bfloat16"),
        "draft": make_checkpoint(root / "draft", "qwen3", num_hidden_layers=1, seed=4),
    }


def make_llm(folder, draft=None, *, runtime="openvino", **options) -> LLM:
    options = RuntimeOptions(num_threads=1, **options)
    return LLM(folder, draft, config=EngineConfig(runtime=runtime, options=options, self_test=False))


def texts(llm: LLM, prompts, *, depth: int, **params) -> list[tuple[int, ...]]:
    many = [SamplingParams(seed=index, max_tokens=40, **params) for index in range(len(prompts))]
    results = [generation.token_ids for generation in llm.generate(prompts, many, depth=depth)]
    llm.engine.check()
    return results


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_same_seed_same_text_with_any_drafter_depth_and_batch(folders, runtime, dtype):
    drafts = {
        "none": make_llm(folders[dtype], runtime=runtime),
        "suffix": make_llm(folders[dtype], "suffix", runtime=runtime),
        "model": make_llm(folders[dtype], folders["draft"], runtime=runtime),
        "itself": make_llm(folders[dtype], folders[dtype], runtime=runtime),
    }
    for params in ({}, {"temperature": 1.0}, {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.05}):
        plain = [texts(drafts["none"], [prompt], depth=0, **params)[0] for prompt in PROMPTS[:1]]
        together = texts(drafts["none"], PROMPTS, depth=0, **params)
        assert together[:1] == plain
        for name in ("suffix", "model", "itself"):
            for depth in (1, 6):
                assert texts(drafts[name], PROMPTS, depth=depth, **params) == together


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_target_as_its_own_draft_is_always_right(folders, runtime):
    llm = make_llm(folders["float32"], folders["float32"], runtime=runtime)
    for temperature in (0.0, 1.0):
        params = SamplingParams(temperature=temperature, seed=1, max_tokens=60)
        (generation,) = llm.generate([PROMPTS[1]], params, depth=4)
        assert generation.stats.acceptance_rate > 0.97  # its padding differs, so near-ties may


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_greedy_text_is_that_of_transformers_generate(folders, runtime):
    model = AutoModelForCausalLM.from_pretrained(folders["float32"], dtype=torch.float32)
    llm = make_llm(folders["float32"], "suffix", runtime=runtime)
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, pad_token_id=0
            )
        (generation,) = llm.generate([prompt], SamplingParams(max_tokens=40))
        assert list(generation.token_ids) == expected[0, len(prompt) :].tolist()


def test_both_runtimes_write_the_same_text(folders):
    openvino, torch_ = (make_llm(folders["float32"], "suffix", runtime=runtime) for runtime in RUNTIMES)
    for params in ({}, {"temperature": 1.0}):
        assert texts(openvino, PROMPTS, depth=3, **params) == texts(torch_, PROMPTS, depth=3, **params)


def test_a_loaded_transformers_model_is_a_target():
    model = make_model("qwen2")
    llm = LLM(model, draft="suffix")
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, pad_token_id=0
        )
    (generation,) = llm.generate([PROMPTS[1]], SamplingParams(max_tokens=30))
    assert list(generation.token_ids) == expected[0, ids.shape[1] :].tolist()


def test_streaming_gives_the_same_tokens_and_stopping_early_frees_everything(folders):
    llm = make_llm(folders["float32"], "suffix")
    params = SamplingParams(max_tokens=30)
    (generation,) = llm.generate([PROMPTS[3]], params)
    streamed = [token for delta in llm.stream([PROMPTS[3]], params) for token in delta.token_ids]
    assert streamed == list(generation.token_ids)
    for delta in llm.stream(PROMPTS, params):
        if delta.token_ids:
            break
    assert llm.engine.is_idle
    assert llm.engine.pool.num_free == llm.engine.pool.num_blocks


def test_two_streams_share_steps_and_each_gets_its_own_text(folders):
    llm = make_llm(folders["float32"], "suffix")
    params = SamplingParams(max_tokens=30)
    alone = [llm.generate([prompt], params)[0].token_ids for prompt in PROMPTS[:3]]
    first, second = llm.stream([PROMPTS[0]], params), llm.stream([PROMPTS[1]], params)
    texts = [list(next(first).token_ids), list(next(second).token_ids)]
    assert llm.generate([PROMPTS[2]], params)[0].token_ids == alone[2]
    for text, stream in zip(texts, (first, second), strict=True):
        text += [token for delta in stream for token in delta.token_ids]
    assert [tuple(text) for text in texts] == alone[:2]


def test_trees_may_be_asked_for_text_by_text(folders):
    llm = make_llm(folders["float32"], folders["draft"])
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=1)
    texts = [
        *llm.start([PROMPTS[0]], params, depth=6, max_children=3),
        *llm.start([PROMPTS[0]], params, depth=6),
    ]
    while not llm.engine.is_idle:
        llm.engine.step()
    assert texts[0].output_token_ids == texts[1].output_token_ids
    assert texts[0].stats.num_branching > 0 == texts[1].stats.num_branching


def test_a_stream_that_is_never_read_leaves_nothing_behind(folders):
    llm = make_llm(folders["float32"])
    llm.stream([PROMPTS[0]], SamplingParams(max_tokens=5))
    assert llm.engine.is_idle


def test_numpy_token_ids_and_seeds_are_numbers_like_others(folders):
    llm = make_llm(folders["float32"])
    plain = llm.generate([[5, 6]], SamplingParams(temperature=1.0, seed=3, max_tokens=8))[0]
    params = SamplingParams(temperature=1.0, seed=np.int64(3), max_tokens=8)
    assert llm.generate(np.array([5, 6]), params)[0].token_ids == plain.token_ids
    assert llm.generate([np.int64(5), np.int64(6)], params)[0].token_ids == plain.token_ids
    assert llm.generate([]) == []
    with pytest.raises(UsageError, match="empty"):
        llm.start([[]], SamplingParams())


def test_a_stop_text_inside_an_accepted_draft_ends_the_text_at_the_same_place():
    """Repetitive greedy text drafts well, so the stop text falls inside of drafts."""
    pair = bundled_pair()
    llm = make_llm(pair.target, pair.draft)
    prompt = "def main(argv):\n    for name in argv:\n"
    free = llm.generate(prompt, SamplingParams(max_tokens=60), depth=0)[0].text
    for stop in {free[at : at + 3] for at in range(5, 60, 3)}:
        params = SamplingParams(max_tokens=60, stop=(stop,))
        plain, drafted = (llm.generate(prompt, params, depth=depth)[0] for depth in (0, 6))
        assert plain.text == drafted.text == free[: free.index(stop)]
        assert plain.token_ids == drafted.token_ids
        assert plain.finish_reason == "stop"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EngineConfig(runtime="troch"), "runtime is 'troch', but must be one of openvino, torch"),
        (lambda: EngineConfig(device="cuda:0"), "device 'cuda:0' needs the torch runtime"),
        (lambda: EngineConfig(max_sequences=0), "max_sequences is 0"),
        (lambda: SamplingParams(stop="END"), "stop is 'END'"),
        (lambda: SamplingParams(temperature=1e-9), "temperature is 1e-09"),
        (lambda: SamplingParams(temperature=float("nan")), "temperature is nan"),
        (lambda: SamplingParams(seed=1.5), "seed is 1.5"),
        (lambda: SamplingParams(top_p=0.0), "top_p is 0.0"),
        (lambda: SamplingParams(min_p=1.5), "min_p is 1.5"),
        (lambda: SamplingParams(max_tokens=0), "max_tokens is 0"),
    ],
)
def test_an_option_out_of_range_is_named_with_its_value_and_limit(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_what_cannot_be_done_is_refused_and_nothing_is_left_behind(folders):
    llm = make_llm(folders["float32"])
    for prompt, message in (
        ([], "empty"),
        ([1, 211], "outside the vocabulary of 211"),
        ([1] * 1024, "context is 1024 tokens"),
        ("text", "no tokenizer.json"),
    ):
        with pytest.raises(UsageError, match=message):
            llm.generate([[1, 2], prompt] if prompt != [] else [[]], SamplingParams(max_tokens=5))
        assert llm.engine.is_idle
    with pytest.raises(UsageError, match="depth is -1"):
        llm.generate([[1]], depth=-1)
    with pytest.raises(UsageError, match="2 prompts but 1 params"):
        llm.generate([[1], [2]], [SamplingParams()])
    with pytest.raises(UsageError, match="stop texts need a tokenizer"):
        llm.generate([[1]], SamplingParams(stop=("x",)))


def test_a_draft_of_another_vocabulary_is_refused(folders, tmp_path):
    other = make_checkpoint(tmp_path / "other", "llama", vocab_size=300)
    with pytest.raises(UsageError, match="different vocabularies: sizes are 211 and 300"):
        make_llm(folders["float32"], other)


def test_a_text_ends_at_the_end_of_the_context(tmp_path):
    llm = make_llm(
        make_checkpoint(tmp_path / "short", "llama", max_position_embeddings=48, eos_token_id=None), "suffix"
    )
    (generation,) = llm.generate([[3, 4] * 20], SamplingParams(max_tokens=500))
    assert (len(generation.token_ids), generation.finish_reason) == (8, "length")


def test_target_and_draft_model_are_prepared_unless_that_is_not_wanted(folders, monkeypatch):
    prepared = []
    monkeypatch.setattr(OpenVinoRuntime, "prepare", lambda self: prepared.append(self.config))
    for prepares in (False, True):
        config = EngineConfig(options=RuntimeOptions(num_threads=1), self_test=False, prepares=prepares)
        llm = LLM(folders["float32"], folders["draft"], config=config)
        assert len(prepared) == 2 * prepares
    assert prepared[0] is llm.target.config
