"""The config and the tensors of a checkpoint are those that transformers reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from outrider.model.config import ARCHITECTURES, read_config
from outrider.model.weights import Weights, expected_shapes
from tests.runtime.checkpoints import FAMILIES, make_checkpoint, make_model

SMALL = {"vocab_size": 64, "hidden_size": 512, "intermediate_size": 96, "num_hidden_layers": 2}


def minimal_config(family: str) -> dict:
    """What a config must say; the rest is left to the defaults."""
    architecture = next(name for name, named in ARCHITECTURES.items() if named == family)
    shape = {**SMALL, "num_attention_heads": 32, "max_position_embeddings": 8192}
    return {"architectures": [architecture], "model_type": family, **shape}


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_that_are_left_out_have_the_values_of_transformers(tmp_path, family):
    (tmp_path / "config.json").write_text(json.dumps(minimal_config(family)), encoding="utf-8")
    ours, theirs = read_config(tmp_path), AutoConfig.from_pretrained(tmp_path)
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 512 // 32)
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.rope.kind == theirs.rope_parameters["rope_type"] == "default"
    assert ours.max_context == (theirs.sliding_window if family == "mistral" else theirs.max_position_embeddings)
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.qk_norm == (family == "qwen3")
    assert list(ours.eos_token_ids) == ([] if theirs.eos_token_id is None else [theirs.eos_token_id])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("has_extras", [False, True])
def test_the_expected_tensors_are_those_of_transformers_own_module(tmp_path, family, has_extras):
    overrides = {"tie_word_embeddings": has_extras}
    if has_extras and family in ("llama", "qwen3"):
        overrides["attention_bias"] = True
    if has_extras and family == "llama":
        overrides["mlp_bias"] = True
    model = make_model(family, **overrides)
    model.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if has_extras:
        del theirs["lm_head.weight"]  # tied
    assert expected_shapes(config) == theirs
    Weights.from_folder(tmp_path).check(config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("max_shard_size", ["1GB", "50KB"])
def test_the_stored_bits_are_those_that_transformers_reads(tmp_path, dtype, max_shard_size):
    model = make_model("qwen2", dtype=dtype)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (max_shard_size == "1GB") == (tmp_path / "model.safetensors").exists()
    weights = Weights.from_folder(tmp_path)
    theirs = model.state_dict()
    assert set(weights.names) == set(theirs)
    for name, tensor in theirs.items():
        raw = weights[name]
        assert raw.dtype == {"float32": "F32", "bfloat16": "BF16"}[dtype]
        bits = tensor.view(torch.int16 if dtype == "bfloat16" else torch.int32).numpy()
        assert np.array_equal(raw.array.view(bits.dtype), bits)


def test_a_checkpoint_of_each_dtype_says_so(tmp_path):
    assert read_config(make_checkpoint(tmp_path / "a", "llama", dtype="bfloat16")).dtype == "bfloat16"
    assert read_config(make_checkpoint(tmp_path / "b", "llama")).dtype == "float32"
