"""At level `bitwise`, on real runtimes: nothing but the seed changes a token or the last bit of a log-probability."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams
from tests.runtime.checkpoints import RUNTIMES_AND_DTYPES, make_checkpoint

NUM_TOKENS = 80
# Two begin alike by whole chunks, two by part of one, and some are too short for that.
PROMPTS = [
    *([*range(3, 75), index, 5] for index in range(2)),
    *([*range(90, 140), 7, 9 + index] for index in range(2)),
    *([20 + index, 30, 40] for index in range(4)),
]
WAYS = {
    "plain": (None, 0, 1),
    "suffix": ("suffix", 5, 1),
    "chain": ("model", 6, 1),
    "tree": ("model", 9, 3),
    "cascade": (["suffix", "model"], 7, 2),
}


def params(temperature: float) -> list[SamplingParams]:
    return [
        SamplingParams(temperature=temperature, seed=index, max_tokens=NUM_TOKENS, log_probs=2, ignore_eos=True)
        for index in range(len(PROMPTS))
    ]


def what_is_promised(generations) -> list:
    assert {generation.exactness for generation in generations} == {"bitwise"}
    assert not any(generation.draft_fault for generation in generations)
    return [(generation.token_ids, generation.log_probs) for generation in generations]


@pytest.fixture(scope="module", params=RUNTIMES_AND_DTYPES, ids=str)
def setting(request, tmp_path_factory):
    """How to load in one runtime and precision, and what plain decoding writes one by one, nothing shared.

    Nor are first tokens told with their prompts.
    """
    runtime, dtype = request.param
    folder = tmp_path_factory.mktemp("checkpoints")
    target = make_checkpoint(folder / "target", "qwen3", dtype="bfloat16")
    # which agrees often, but not always
    draft = make_checkpoint(folder / "draft", "qwen3", dtype="bfloat16", rms_norm_eps=0.3)

    def load(drafter=None, **config) -> LLM:
        named = [draft if name == "model" else name for name in (drafter if isinstance(drafter, list) else [drafter])]
        options = RuntimeOptions(dtype=dtype, num_threads=1)
        config = EngineConfig(runtime=runtime, options=options, exactness="bitwise", prefill_chunk=32, **config)
        return LLM(target, named, config=config)

    alone = load(max_prefix_tokens=0)
    limits = alone.engine.scheduler.limits
    assert limits.max_root_rows > 0
    alone.engine.scheduler.limits = limits._replace(max_root_rows=0)
    plain = {
        temperature: what_is_promised(
            [
                alone.generate([prompt], each, depth=0)[0]
                for prompt, each in zip(PROMPTS, params(temperature), strict=True)
            ]
        )
        for temperature in (0.0, 1.0)
    }
    return load, plain


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_log_probs_are_those_of_plain_decoding_alone(setting, way):
    load, plain = setting
    drafter, depth, max_children = WAYS[way]
    llm = load(drafter, max_children=max_children)
    for temperature, wanted in plain.items():
        together = llm.generate(PROMPTS, params(temperature), depth=depth)
        assert what_is_promised(together) == wanted
        again = [  # what the prompts begin with is in the cache by now
            llm.generate([prompt], each, depth=depth)[0]
            for prompt, each in zip(PROMPTS, params(temperature), strict=True)
        ]
        assert what_is_promised(again) == wanted
        num_branching = sum(generation.stats.num_branching for generation in together)
        assert (num_branching > 0) == (max_children > 1)
        if way in {"chain", "tree"}:
            assert sum(generation.stats.num_accepted for generation in together) > 50


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "chain", "tree"])
def test_and_after_preemption_too(setting, way):
    load, plain = setting
    drafter, depth, max_children = WAYS[way]
    llm = load(drafter, max_children=max_children, max_cache_tokens=32 * 8)
    for temperature, wanted in plain.items():
        generations = llm.generate(PROMPTS, params(temperature), depth=depth)
        assert what_is_promised(generations) == wanted
        assert sum(generation.num_preempted for generation in generations)


WITH_LESS = """
import json
from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams, bundled_pair
pair = bundled_pair()
llm = LLM(pair.target, pair.draft, config=EngineConfig(options=RuntimeOptions(num_threads=1)))
prompts = ["def main(", "import os", "class A:", "for i in", "x =", "while"] * 4
params = [SamplingParams(temperature=1.0, seed=i, max_tokens=24, log_probs=0, ignore_eos=True) for i in range(24)]
texts = {}
for name, depth in (("on", 6), ("off", 0)):
    texts[name] = [(each.token_ids, each.log_probs) for each in llm.generate(prompts, params, depth=depth)]
alone = [llm.generate([prompt], each, depth=0)[0] for prompt, each in zip(prompts, params)]
texts["alone"] = [(each.token_ids, each.log_probs) for each in alone]
facts = llm.describe()
print(json.dumps({
    "exactness": alone[0].exactness, "row_class": facts["row_class"], "dtype": facts["target"]["dtype"],
    "limits": facts["target"]["isa_limits"], "same": texts["on"] == texts["off"] == texts["alone"],
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the instruction sets have other names here")
def test_lesser_instruction_sets_are_probed_by_themselves_and_keep_what_they_then_promise(tmp_path):
    found = []
    for limit in ("DEFAULT", "AVX2"):
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": limit, "OUTRIDER_CACHE": str(tmp_path)}
        command = [sys.executable, "-c", WITH_LESS]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        assert found[-1]["limits"]["ONEDNN_MAX_CPU_ISA"] == limit
        assert found[-1]["same"] or found[-1]["exactness"] == "seed"
    assert found[1]["dtype"] == "float32"  # these have no products of bfloat16 numbers
    assert len(list((tmp_path / "numerics").iterdir())) == 4  # target and draft, twice
    # Where the processor has more: bitwise still, of some in forwards of fewer rows (with AMX as many); or no longer.
    if found[0]["dtype"] == "bfloat16":
        assert found[1]["exactness"] == "seed" or found[1]["row_class"]["max_rows"] <= found[0]["row_class"]["max_rows"]
