"""What is read of a config.json, and what is refused by name. The parity with transformers is in test_parity.py."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from outrider.errors import ModelError
from outrider.model.config import ModelConfig, RopeConfig, parse_config, read_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
ARCHITECTURE = {"mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def config_of(family: str = "llama", **changes: Any) -> dict[str, Any]:
    names = {} if family == "llama" else {"model_type": family, "architectures": [ARCHITECTURE[family]]}
    return {**LLAMA, **names, **changes}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in LLAMA.items() if key not in keys}


def read(folder: Path, config: Any, generation: Any = None) -> ModelConfig:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return read_config(folder)


def test_a_plain_llama_is_read_whole(tmp_path):
    assert read(tmp_path, LLAMA) == ModelConfig(
        family="llama",
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        rope=RopeConfig(theta=10_000.0, kind="default", parameters={}),
        max_context=512,
        tie_word_embeddings=False,
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        qk_norm=False,
        eos_token_ids=(2,),
        dtype="bfloat16",
    )


@pytest.mark.parametrize(
    ("family", "changes", "biased"),
    [
        ("llama", {}, ""),
        ("llama", {"attention_bias": True}, "qkv output"),
        ("llama", {"mlp_bias": True}, "mlp"),
        ("mistral", {"attention_bias": True, "mlp_bias": True}, ""),
        ("qwen2", {}, "qkv"),
        ("qwen2", {"attention_bias": True, "mlp_bias": True}, "qkv"),
        ("qwen3", {}, ""),
        ("qwen3", {"attention_bias": True, "mlp_bias": True}, "qkv output"),
    ],
)
def test_each_family_has_biases_where_transformers_gives_it_some(family, changes, biased):
    config = parse_config(config_of(family, **changes), {})
    assert (config.qkv_bias, config.output_bias, config.mlp_bias) == tuple(
        name in biased for name in ("qkv", "output", "mlp")
    )
    assert config.qk_norm == (family == "qwen3")


@pytest.mark.parametrize(
    ("family", "changes", "max_context"),
    [
        ("llama", {"sliding_window": 100}, 512),
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": 1000}, 512),
        ("mistral", {"sliding_window": None}, 512),
        ("mistral", {"max_position_embeddings": 8192}, 4096),
        ("mistral", {"sliding_window": 100, "layer_types": ["full_attention"] * 2}, 100),
        ("qwen2", {"sliding_window": 100}, 512),
        ("qwen2", {"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 1}, 100),
        ("qwen2", {"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 2}, 512),
        ("qwen3", {"sliding_window": 100, "use_sliding_window": True, "layer_types": ["full_attention"] * 2}, 512),
        (
            "qwen3",
            {
                "sliding_window": 100,
                "use_sliding_window": True,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            100,
        ),
    ],
)
def test_the_context_ends_where_a_sliding_window_begins_to_hide(family, changes, max_context):
    assert parse_config(config_of(family, **changes), {}).max_context == max_context


@pytest.mark.parametrize(
    ("changes", "theta", "kind", "parameters"),
    [
        ({"rope_theta": 5e5}, 5e5, "default", {}),
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5, "default", {}),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 1e4, "linear", {"factor": 2.0}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 3.0}, 1e6, "default", {}),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}},
            1e4,
            "dynamic",
            {"factor": 2.0, "original_max_position_embeddings": 512},
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            1e4,
            "yarn",
            {"factor": 4.0, "original_max_position_embeddings": 512, "truncate": True},
        ),
        (
            {"rope_parameters": {**YARN, "truncate": False, "beta_fast": 16, "mscale": None}},
            1e4,
            "yarn",
            {"factor": 4.0, "original_max_position_embeddings": 128, "truncate": False, "beta_fast": 16.0},
        ),
        (
            {"rope_parameters": YARN, "original_max_position_embeddings": 256},
            1e4,
            "yarn",
            {"factor": 4.0, "original_max_position_embeddings": 256, "truncate": True},
        ),
    ],
)
def test_rope_is_read_in_the_old_and_the_new_form(changes, theta, kind, parameters):
    rope = parse_config(config_of(**changes), {}).rope
    assert rope == RopeConfig(theta=theta, kind=kind, parameters=parameters)


@pytest.mark.parametrize(
    ("in_config", "in_generation", "eos_token_ids"),
    [
        ({}, None, (2,)),
        ({"eos_token_id": [5, 6]}, None, (5, 6)),
        ({"eos_token_id": None}, None, ()),
        ({"eos_token_id": 5}, {"eos_token_id": [7, 8]}, (7, 8)),
        ({"eos_token_id": 5}, {"eos_token_id": None}, (5,)),
    ],
)
def test_the_generation_config_knows_the_end_tokens_best(tmp_path, in_config, in_generation, eos_token_ids):
    assert read(tmp_path, config_of(**in_config), in_generation).eos_token_ids == eos_token_ids


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [({"torch_dtype": None}, "float32"), ({"dtype": "float32"}, "float32"), ({"dtype": "bfloat16"}, "bfloat16")],
)
def test_the_dtype_is_read_under_its_old_and_new_name(changes, dtype):
    assert parse_config(config_of(**changes), {}).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3"}, "'Gemma3ForCausalLM'.*LlamaForCausalLM"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}, "'Qwen3MoeForCausalLM'"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "qwen3"}, "'LlamaForCausalLM' with model_type 'qwen3'"),
        ({"architectures": ["LlamaModel"]}, "'LlamaModel'"),
        ({"architectures": None, "model_type": "mamba"}, "'mamba'"),
        ({"architectures": None, "model_type": None}, "model_type None"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantization_config.*'awq'"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}, "auto_map.*never run"),
        ({"num_local_experts": 8}, "num_local_experts 8.*dense"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'.*'silu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "partial_rotary_factor 0.25"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "'longrope'.*yarn"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}, "'mrope'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope for each layer type"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "'linear_attention'"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'.*sliding_window"),
        ({"torch_dtype": "float16"}, "'float16'.*float32 and bfloat16"),
    ],
)
def test_what_we_do_not_compute_is_refused_by_name(tmp_path, changes, said):
    with pytest.raises(ModelError, match=said) as caught:
        read(tmp_path, config_of(**changes))
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "not valid"),
        ('{"vocab_size": 12', "not valid"),
        ("[" * 100_000, "not valid"),
        ("[1, 2]", "not an object"),
        (without("vocab_size"), "vocab_size is missing"),
        (without("max_position_embeddings"), "max_position_embeddings is missing"),
        (config_of(vocab_size="128"), "vocab_size is '128'"),
        (config_of(vocab_size=True), "vocab_size is True"),
        (config_of(num_hidden_layers=0), "num_hidden_layers is 0"),
        (config_of(max_position_embeddings=1), "max_position_embeddings is 1, .* from 2"),
        (config_of("mistral", sliding_window=1), "sliding_window is 1, .* from 2"),
        (config_of(hidden_size=64.0), "hidden_size is 64.0"),
        (config_of(intermediate_size=10**30), "intermediate_size is 10000"),
        (config_of(num_key_value_heads=3), "divisor of num_attention_heads, which is 4"),
        (config_of(hidden_size=66), "multiple of num_attention_heads, which is 4"),
        (config_of(head_dim=15), "even"),
        (config_of(rms_norm_eps=0), "rms_norm_eps is 0"),
        (config_of(rms_norm_eps=10**400), "rms_norm_eps is 1000"),
        ('{"rms_norm_eps": NaN, ' + json.dumps(without("rms_norm_eps"))[1:], "rms_norm_eps is nan"),
        (config_of(rope_theta="big"), "rope_theta is 'big'"),
        (config_of(rope_scaling={"rope_type": "linear"}), "factor is missing"),
        (config_of(rope_scaling=[1]), "rope_scaling is"),
        (config_of(rope_scaling={**YARN, "truncate": 1}), "truncate is 1"),
        (
            config_of(rope_scaling={"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            "high_freq_factor is 4",
        ),
        (config_of(tie_word_embeddings="yes"), "tie_word_embeddings is 'yes'"),
        (config_of(eos_token_id=[2, "</s>"]), "eos_token_id is"),
        (config_of(eos_token_id=[2, None]), "eos_token_id is"),
        (config_of(layer_types=["full_attention"]), "each of the 2 layers"),
        (config_of("qwen2", use_sliding_window=True, max_window_layers=None), "max_window_layers is None"),
    ],
)
def test_a_damaged_config_is_one_clear_line(tmp_path, config, said):
    with pytest.raises(ModelError, match=said) as caught:
        read(tmp_path, config)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path)


def test_a_damaged_generation_config_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"generation_config\.json: eos_token_id"):
        read(tmp_path, LLAMA, {"eos_token_id": "x"})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
KEYS = [*LLAMA, "head_dim", "rope_scaling", "rope_parameters", "layer_types", "sliding_window", "auto_map", "dtype"]
ROPE_KEYS = ["type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "truncate"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["llama", *ARCHITECTURE]),
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=3),
    st.dictionaries(st.sampled_from(ROPE_KEYS), JSON_VALUES, max_size=3),
    st.sampled_from(["linear", "dynamic", "llama3", "yarn"]),
)
def test_whatever_a_config_holds_it_is_read_or_refused(family, changes, rope, kind):
    with suppress(ModelError):
        parse_config(config_of(family, **{"rope_scaling": {"rope_type": kind, **rope}, **changes}), {})


def test_reading_a_config_needs_only_the_standard_library():
    code = (
        "import sys, outrider.model.config\n"
        "heavy = {'numpy', 'openvino', 'tokenizers', 'jinja2', 'huggingface_hub', 'torch'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
