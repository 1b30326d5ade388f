"""What each engine is told: options that it has, depth as it counts it, nothing lossy, and what stays behind."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from outrider.errors import UsageError
from outrider.export.engines import EXPORTS
from outrider.export.prediction import best_depth
from outrider.recipe import Measured
from tests.export.recipes import CONCURRENCY, MEASURED, MODEL, SUFFIX, make_recipe

ACCEPTED = json.loads(Path(__file__).with_name("options.json").read_text())
LOSSY = ("fly", "synthetic", "relaxed", "threshold-single", "threshold-acc", "ensemble", "synth")
KEEPS = {
    "vllm": "rejection",
    "transformers": "rejection",
    "llama.cpp": "greedy",
    "sglang": "greedy",
    "tensorrt-llm": "greedy",
}
RECIPES = {
    "model": make_recipe(MODEL),
    "fixed": make_recipe(MODEL, depth=3),
    "suffix": make_recipe(SUFFIX),
    "both": make_recipe(SUFFIX, MODEL),
    "table": make_recipe(MODEL, measured=MEASURED | {"concurrency": CONCURRENCY}, off_above=12),
    "plain": make_recipe(MODEL, speculate=False),
}


def after(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def vllm_config(recipe) -> dict:
    return json.loads(after(EXPORTS["vllm"](recipe).command, "--speculative-config"))


def trt_file(recipe) -> str:
    return EXPORTS["tensorrt-llm"](recipe).files["trtllm.yaml"]


def words_of(exported) -> str:
    return " ".join([shlex.join(exported.command), *exported.files.values()])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("engine", EXPORTS)
def test_nothing_lossy_is_written(engine, recipe):
    assert not [word for word in LOSSY if word in words_of(EXPORTS[engine](recipe))]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_every_flag_is_one_that_the_engine_has(engine, recipe):
    command = EXPORTS[engine](recipe).command
    known = ACCEPTED[engine]["flags"]
    flags = [word for word in command[3 if engine == "sglang" else 1 :] if word.startswith("-")]
    assert flags
    assert set(flags) <= set(known)
    for flag, choices in ACCEPTED[engine]["choices"].items():
        if flag in command:
            assert set(after(command, flag).split(",")) <= set(choices)


@pytest.mark.parametrize("recipe", [RECIPES[name] for name in RECIPES if name != "plain"])
def test_every_key_of_vllms_config_is_one_that_it_has(recipe):
    config = vllm_config(recipe)
    assert set(config) <= set(ACCEPTED["vllm"]["fields"])
    assert all(config.get(field, choices[0]) in choices for field, choices in ACCEPTED["vllm"]["choices"].items())


@pytest.mark.parametrize("recipe", [RECIPES[name] for name in RECIPES if name != "plain"])
def test_every_key_of_tensorrt_llms_config_is_one_that_it_has(recipe):
    lines = trt_file(recipe).partition("speculative_config:\n")[2].splitlines()
    config = dict(line.strip().split(": ", 1) for line in lines)
    assert set(config) <= set(ACCEPTED["tensorrt-llm"]["fields"])
    assert json.loads(config["decoding_type"]) in ACCEPTED["tensorrt-llm"]["choices"]["decoding_type"]


def test_depth_is_counted_as_each_engine_counts():
    recipe = RECIPES["fixed"]
    assert vllm_config(recipe)["num_speculative_tokens"] == 3
    sglang = EXPORTS["sglang"](recipe).command
    flags = [f"--speculative-{name}" for name in ("num-steps", "eagle-topk", "num-draft-tokens")]
    assert [after(sglang, flag) for flag in flags] == ["3", "1", "4"]
    assert after(EXPORTS["llama.cpp"](recipe).command, "--spec-draft-n-max") == "3"
    assert "  max_draft_len: 3\n" in trt_file(recipe)
    settings = json.loads(EXPORTS["transformers"](recipe).files["generation.json"])
    assert settings["draft"]["generation_config"]["num_assistant_tokens"] == 3


@pytest.mark.parametrize("engine", EXPORTS)
def test_auto_becomes_the_best_depth_under_the_engines_rule(engine):
    exported = EXPORTS[engine](RECIPES["model"])
    assert exported.depth == best_depth(Measured(**MEASURED), KEEPS[engine], 4) > 0
    assert exported.prediction.acceptance == {"rejection": 0.85, "greedy": 0.7}[KEEPS[engine]]
    assert any('depth "auto" became' in note for note in exported.notes)
    assert any(f"{exported.prediction.speedup:.2f}x" in note for note in exported.notes)


@pytest.mark.parametrize("engine", EXPORTS)
def test_target_and_draft_keep_their_names_and_limits(engine):
    exported = EXPORTS[engine](RECIPES["model"])
    assert "org/target" in words_of(exported)
    assert "org/draft" in words_of(exported)
    if engine != "transformers":  # one text at a time
        assert "32" in words_of(exported)
    assert any("1000 bytes" in note for note in exported.notes)


@pytest.mark.parametrize("engine", EXPORTS)
def test_a_recipe_that_says_no_switches_nothing_on(engine):
    exported = EXPORTS[engine](RECIPES["plain"])
    assert exported.depth == 0
    assert "org/draft" not in words_of(exported)
    assert not [word for word in ("speculative", "--spec-", "prompt_lookup") if word in words_of(exported)]
    assert "do not speculate" in exported.notes[0]


@pytest.mark.parametrize("engine", EXPORTS)
def test_drafting_that_does_not_pay_there_is_not_switched_on(engine):
    exported = EXPORTS[engine](make_recipe(MODEL, measured=MEASURED | {"cost_ratio": 2.0}))
    assert exported.depth == 0
    assert "org/draft" not in words_of(exported)
    assert "no depth pays" in exported.notes[0]


def test_a_table_over_sequences_is_written_where_the_engine_has_one():
    recipe = RECIPES["table"]
    depth = EXPORTS["vllm"](recipe).depth
    assert depth > 2
    assert vllm_config(recipe)["num_speculative_tokens_per_batch_size"] == [[1, 1, depth], [2, 12, 2], [13, 32, 0]]
    assert "  max_concurrency: 12\n" in trt_file(recipe)
    for engine in ("sglang", "llama.cpp", "transformers"):
        assert any("2 to 12: 2; 13 or more: 0" in note for note in EXPORTS[engine](recipe).notes)


def test_sequences_at_which_it_was_slower_end_drafting_without_a_limit_too():
    recipe = make_recipe(MODEL, depth=4, measured=MEASURED | {"concurrency": CONCURRENCY})
    assert vllm_config(recipe)["num_speculative_tokens_per_batch_size"] == [[1, 1, 4], [2, 8, 2], [9, 32, 0]]
    assert "max_concurrency: 8" in trt_file(recipe)


def test_without_a_table_none_is_written():
    assert "num_speculative_tokens_per_batch_size" not in vllm_config(RECIPES["model"])
    assert "max_concurrency" not in trt_file(RECIPES["model"])


def test_a_suffix_becomes_each_engines_lookup():
    recipe = make_recipe(SUFFIX, depth=4)
    assert vllm_config(recipe) == {"method": "suffix", "num_speculative_tokens": 4}
    sglang = EXPORTS["sglang"](recipe).command
    assert (after(sglang, "--speculative-algorithm"), after(sglang, "--speculative-num-draft-tokens")) == ("NGRAM", "5")
    llama = EXPORTS["llama.cpp"](recipe).command
    assert (after(llama, "--spec-type"), after(llama, "--spec-ngram-simple-size-m")) == ("ngram-simple", "4")
    assert 'decoding_type: "SA"' in trt_file(recipe)
    settings = json.loads(EXPORTS["transformers"](recipe).files["generation.json"])
    assert (settings["draft"], settings["generate"]) == (None, {"prompt_lookup_num_tokens": 4})


@pytest.mark.parametrize("engine", EXPORTS)
def test_a_suffix_is_kept_alike_under_every_rule(engine):
    assert EXPORTS[engine](make_recipe(SUFFIX, depth=2)).prediction.acceptance == MEASURED["agreement"]


@pytest.mark.parametrize("engine", EXPORTS)
def test_what_cannot_draft_together_is_named(engine):
    exported = EXPORTS[engine](RECIPES["both"])
    left_out = any("left out: suffix" in note for note in exported.notes)
    assert left_out == (engine != "llama.cpp")
    if engine == "llama.cpp":
        assert after(exported.command, "--spec-type") == "draft-simple,ngram-simple"


@pytest.mark.parametrize("engine", EXPORTS)
def test_without_measurements_a_depth_must_be_given(engine):
    with pytest.raises(UsageError, match=r"measured\.cost_ratio"):
        EXPORTS[engine](make_recipe(MODEL, measured=None))
    exported = EXPORTS[engine](make_recipe(MODEL, measured=None, depth=2))
    assert (exported.depth, exported.prediction) == (2, None)
    assert any("not predicted" in note for note in exported.notes)


def test_what_cannot_be_predicted_for_a_rule_says_what_is_missing():
    facts = {name: value for name, value in MEASURED.items() if name != "greedy_agreement"}
    exported = EXPORTS["sglang"](make_recipe(MODEL, measured=facts))
    assert exported.prediction is None
    assert any("the recipe has no measured.greedy_agreement" in note for note in exported.notes)


@pytest.mark.parametrize("engine", EXPORTS)
def test_a_highest_temperature_stays_behind_and_is_noted(engine):
    notes = EXPORTS[engine](make_recipe(MODEL, max_temperature=0.5)).notes
    assert any("drafting pays up to temperature 0.5 only" in note for note in notes)
