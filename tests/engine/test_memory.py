"""The ledger: what will be taken, said before it is; and a limit that is kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from outrider import LLM, EngineConfig, RuntimeOptions, bundled_pair
from outrider.draft.prediction import PredictionDrafter
from outrider.draft.suffix import MAX_TOKEN_BYTES, SuffixDrafter
from outrider.engine.load import ledger_of
from outrider.engine.memory import MIN_CACHE_TOKENS, ModelSize, parse_memory, plan_memory, readable
from outrider.errors import ParameterError, UsageError
from outrider.model.config import read_config
from outrider.model.weights import Weights
from outrider.runtime.openvino.processors import computed_form

# What a process holds at most, over what its ledger says.
LOWEST, HIGHEST = 0.6, 1.05

PROGRAM = """
import json, sys
from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams
options = RuntimeOptions(num_threads=1, num_forms=0)
config = EngineConfig(options=options, self_test=False, max_cache_tokens=2048)
llm = LLM(sys.argv[1], sys.argv[2], config=config)
prompts = [[index] * 100 for index in range(16)]
llm.generate(prompts, SamplingParams(max_tokens=60, ignore_eos=True), depth=4)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def size_of(folder: Path) -> ModelSize:
    """As a processor computes it that has products of bfloat16 numbers, whatever this one has."""
    config, weights = read_config(folder), Weights.from_folder(folder)
    return ModelSize(config, sum(weights[name].array.nbytes for name in weights.names), config.dtype)


@pytest.fixture(scope="module")
def target() -> ModelSize:
    return size_of(bundled_pair().target)


@pytest.fixture(scope="module")
def draft() -> ModelSize:
    return size_of(bundled_pair().draft)


def bytes_of(ledger) -> dict[str, int]:
    return {entry.name: entry.num_bytes for entry in ledger.entries}


def test_components_are_named_and_follow_from_the_checkpoint(target, draft):
    ledger, config = plan_memory(target, [draft], EngineConfig(max_cache_tokens=3200))
    assert config.max_cache_tokens == ledger.num_cache_tokens == 3200
    parts = bytes_of(ledger)
    assert parts["target weights"] == target.weight_bytes
    # all but the norms is multiplied with, the embedding as the head
    assert 0.99 * target.weight_bytes < parts["target packed weights"] < target.weight_bytes
    per_token = 2 * target.config.num_layers * target.config.num_kv_heads * target.config.head_dim * 2
    assert per_token * 3200 < parts["target cache"] < 1.1 * per_token * 3200
    assert {"draft weights", "draft packed weights", "draft cache", "draft buffers"} <= parts.keys()
    assert parts["target buffers"] > 512 * target.config.vocab_size * 4
    assert ledger.num_bytes == sum(parts.values())
    assert "\n" not in str(ledger)
    assert [name for name, *_ in ledger.table()] == [*parts, "at most"]
    assert json.loads(json.dumps(ledger.as_dict()))["total"] == ledger.num_bytes


def test_forms_of_single_numbers_of_rows_are_counted_where_there_may_be_any(target):
    some, none = (plan_memory(target._replace(num_forms=count), [], EngineConfig())[0] for count in (8, 0))
    assert "target forms" not in bytes_of(none)
    assert some.num_bytes - none.num_bytes == bytes_of(some)["target forms"]
    assert bytes_of(some)["target forms"] > 8 * 2 * bytes_of(some)["target packed weights"]


def test_what_a_fused_feed_forward_is_packed_from_is_counted_in_each_form_too(target):
    fused, apart = (
        plan_memory(target._replace(num_forms=8, is_fused=is_fused), [], EngineConfig())[0]
        for is_fused in (True, False)
    )
    config = target.config
    once = bytes_of(fused)["target fused weights"]
    assert once == 2 * 3 * config.num_layers * config.hidden_size * config.intermediate_size
    assert fused.num_bytes - apart.num_bytes == 9 * once


def test_a_memory_limit_is_for_the_cache_first():
    ledger = ledger_of(bundled_pair().target, None, EngineConfig(memory_limit=2**30))
    assert ledger is not None
    assert "target forms" not in bytes_of(ledger)


def test_single_precision_packs_twice_and_torch_not_at_all(target):
    bfloat16, float32 = (
        bytes_of(plan_memory(target._replace(dtype=d), [], EngineConfig())[0]) for d in ("bfloat16", "float32")
    )
    assert float32["target packed weights"] == 2 * bfloat16["target packed weights"]
    widened = bytes_of(plan_memory(target._replace(dtype="float32", is_widened=True), [], EngineConfig())[0])
    assert widened["target packed weights"] == widened["target widened weights"] == float32["target packed weights"]
    joined, with_gates = (
        bytes_of(plan_memory(target._replace(is_joined=True, is_gate_joined=gates), [], EngineConfig())[0])
        for gates in (False, True)
    )
    assert 0 < joined.pop("target joined weights") < with_gates.pop("target joined weights") < target.weight_bytes
    assert joined == with_gates == bfloat16
    torch = bytes_of(plan_memory(target._replace(dtype="float32"), [], EngineConfig(runtime="torch"))[0])
    assert torch["target weights"] == 2 * target.weight_bytes
    assert "target packed weights" not in torch


@pytest.mark.parametrize("has_draft", [False, True])
def test_a_limit_lowers_the_cache_to_what_fits_of_both_models_together(target, draft, has_draft):
    drafts = [draft] * has_draft
    free, _ = plan_memory(target, drafts, EngineConfig())
    limit = free.num_bytes - 300_000_000
    ledger, config = plan_memory(target, drafts, EngineConfig(memory_limit=limit))
    assert 0.99 * limit < ledger.num_bytes <= limit
    assert config.max_cache_tokens == ledger.num_cache_tokens < 131_072
    more, _ = plan_memory(target, drafts, EngineConfig(max_cache_tokens=config.max_cache_tokens + 32))
    assert more.num_bytes > limit
    _, roomy = plan_memory(target, drafts, EngineConfig(memory_limit=2 * free.num_bytes))
    assert roomy.max_cache_tokens == 131_072


def test_a_limit_below_the_smallest_cache_is_refused_with_need_limit_and_largest_part(target):
    least, _ = plan_memory(target, [], EngineConfig(max_cache_tokens=MIN_CACHE_TOKENS))
    _, config = plan_memory(target, [], EngineConfig(memory_limit=least.num_bytes))
    assert config.max_cache_tokens == MIN_CACHE_TOKENS
    wanted = (
        f"limit is {readable(least.num_bytes - 1)}, but these models need {readable(least.num_bytes)}.*program, 100 MiB"
    )
    with pytest.raises(UsageError, match=wanted):
        plan_memory(target, [], EngineConfig(memory_limit=least.num_bytes - 1))
    with pytest.raises(UsageError, match="lower max_sequences"):
        plan_memory(target, [], EngineConfig(memory_limit=10, max_prefill_tokens=100_000))


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("2GiB", 2**31), ("800MB", 800_000_000), ("1500000000", 1_500_000_000), ("1.5 gib", 3 * 2**29), ("7b", 7)],
)
def test_a_limit_is_read_with_its_unit(text, num_bytes):
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GB", "2 GX", "1e9", "nan", "0", "0.1B", "2G", "1,5GB", "٣GB"])
def test_a_limit_that_says_nothing_is_refused_with_an_example(text):
    with pytest.raises(ParameterError, match=r"memory limit is .*: try 2GiB"):
        parse_memory(text)


@pytest.mark.parametrize(("num_bytes", "text"), [(7, "7 bytes"), (2**20 - 1, "1024 KiB"), (3 * 2**29, "1.50 GiB")])
def test_sizes_are_readable(num_bytes, text):
    assert readable(num_bytes) == text


@pytest.mark.parametrize(("name", "value"), [("memory_limit", 0), ("max_prefix_tokens", -1), ("max_prefill_tokens", 0)])
def test_a_config_out_of_range_is_refused(name, value):
    with pytest.raises(ParameterError, match=f"{name} is {value}"):
        EngineConfig(**{name: value})


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's memory is read from /proc")
def test_a_process_holds_what_its_ledger_says():
    """From start to end with the bundled pair and a cache that is filled: not more, and not much less."""
    pair = bundled_pair()
    command = [sys.executable, "-c", PROGRAM, str(pair.target), str(pair.draft)]
    held = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    config = EngineConfig(options=RuntimeOptions(num_forms=0), max_cache_tokens=2048)
    ledger = ledger_of(pair.target, pair.draft, config)
    form = computed_form(read_config(pair.target), size_of(pair.target).weight_bytes, RuntimeOptions())
    assert ("target widened weights" in bytes_of(ledger)) == form.is_widened
    assert ("target fused weights" in bytes_of(ledger)) == form.is_fused
    assert ("target joined weights" in bytes_of(ledger)) == (form.is_joined and not form.is_widened)
    assert LOWEST * ledger.num_bytes < held <= HIGHEST * ledger.num_bytes


def test_what_branches_of_trees_borrow_is_declared_where_there_may_be_any(target):
    plain, trees, seed, torch = (
        {entry.name: entry.num_bytes for entry in plan_memory(target, [], EngineConfig(**config))[0].entries}
        for config in (
            {},
            {"max_children": 2},
            {"max_children": 2, "exactness": "seed"},
            {"max_children": 2, "runtime": "torch"},
        )
    )
    assert trees.pop("target branches") > 0
    assert trees == plain == seed
    assert "target branches" not in torch


def test_drafters_without_a_model_are_declared_by_name_and_held_to_it(target):
    config = EngineConfig(max_cache_tokens=3200)
    learning = SuffixDrafter(num_remembered=1000)
    plain, kept, learned = (
        bytes_of(plan_memory(target, [], config, drafters)[0])
        for drafters in ((), (PredictionDrafter(), SuffixDrafter()), (learning,))
    )
    assert kept.keys() - plain.keys() == {"prediction drafter", "suffix drafter"}
    assert kept["suffix drafter"] == SuffixDrafter().max_memory(3200) == 3200 * MAX_TOKEN_BYTES
    assert learned["suffix drafter"] - kept["suffix drafter"] == learning.max_memory(0) > 1000 * 200
    ledger = ledger_of(bundled_pair().target, ["suffix"], config)
    assert bytes_of(ledger)["suffix drafter"] == kept["suffix drafter"]
    assert "suffix drafter" in [name for name, *_ in ledger.table()]
    limit = ledger_of(bundled_pair().target, [learning], config).num_bytes
    here = target._replace(**computed_form(target.config, target.weight_bytes, RuntimeOptions())._asdict())
    _, lower = plan_memory(here, [], EngineConfig(memory_limit=limit - 10**6), (learning,))
    assert lower.max_cache_tokens < 3200
    llm = LLM(bundled_pair().target, draft=learning, config=dataclasses.replace(lower, self_test=False))
    assert learning._max_tokens == llm.config.max_cache_tokens <= lower.max_cache_tokens
