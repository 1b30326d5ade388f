"""The front door on real checkpoints: replay (same seed, same text) and parity with transformers' `generate`."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams, UsageError
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
        (generation,) = llm.generate([PROMPTS[1]], SamplingParams(temperature=temperature, seed=1, max_tokens=60))
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
