"""Inverse frequencies against transformers' own, in every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRotaryEmbedding

from outrider.model.config import parse_config
from outrider.runtime.rope import InverseFrequencies, inverse_frequencies

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
ROPES = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 8.3},
    "llama3": LLAMA3,
    "llama3 of the 3.2 models": {**LLAMA3, "factor": 32.0},
    "yarn": YARN,
    "yarn without truncation": {**YARN, "truncate": False},
    "yarn with its own slopes": {**YARN, "beta_fast": 20.0, "beta_slow": 2.0},
    "yarn with its own scaling": {**YARN, "attention_factor": 0.75},
    "yarn with mscale": {**YARN, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0},
    "yarn within the original context": {**YARN, "factor": 1.0},
    "yarn of a short context": {**YARN, "original_max_position_embeddings": 64},
}


def both(
    rope: dict[str, Any], head_dim: int, theta: float, max_position: int = 16384
) -> tuple[InverseFrequencies, Any]:
    """Ours and transformers' `(values, attention_scaling)` for the same config."""
    config = AutoConfig.for_model(
        "llama",
        architectures=["LlamaForCausalLM"],
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=max_position,
        rope_parameters={**rope, "rope_theta": theta},
    )
    ours = parse_config(config.to_dict(), {})
    default = LlamaRotaryEmbedding.compute_default_rope_parameters
    theirs = ROPE_INIT_FUNCTIONS.get(rope["rope_type"], default)(config)
    return inverse_frequencies(ours.rope, ours.head_dim, ours.max_context), theirs


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 256])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1_000_000.0])
def test_every_kind_equals_transformers_to_the_last_bit(rope, head_dim, theta):
    (values, scaling), (their_values, their_scaling) = both(rope, head_dim, theta)
    assert values.dtype == np.float32
    assert scaling == their_scaling
    # torch's vectorised power rounds a few values wrongly by one bit, which yarn's blend can double
    np.testing.assert_array_max_ulp(values, their_values.numpy(), maxulp=2)
    assert np.sum(values != their_values.numpy()) <= 2


def test_the_kinds_differ_from_each_other():
    values = [both(ROPES[kind], 128, 10_000.0)[0].values for kind in ("default", "linear", "llama3", "yarn")]
    for index, one in enumerate(values):
        assert not any(np.array_equal(one, other) for other in values[index + 1 :])


def test_dynamic_is_the_default_up_to_the_original_context_in_transformers_forward_too():
    (values, scaling), _ = both(ROPES["dynamic"], 64, 10_000.0, max_position=128)
    config = AutoConfig.for_model(
        "llama",
        hidden_size=128,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=8,
        num_hidden_layers=1,
        vocab_size=8,
        max_position_embeddings=128,
        rope_parameters={**ROPES["dynamic"], "rope_theta": 10_000.0},
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model(torch.zeros(1, 128, dtype=torch.int64))
    np.testing.assert_array_max_ulp(values, model.model.rotary_emb.inv_freq.numpy(), maxulp=1)
    with torch.no_grad():
        model(torch.zeros(1, 129, dtype=torch.int64))
    assert not np.allclose(values, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-4)
    assert scaling == 1.0


def test_dynamic_beyond_the_original_context_is_a_bug_of_ours():
    rope = parse_config(
        AutoConfig.for_model(
            "llama", architectures=["LlamaForCausalLM"], rope_parameters={**ROPES["dynamic"], "rope_theta": 1e4}
        ).to_dict(),
        {},
    ).rope
    with pytest.raises(AssertionError):
        inverse_frequencies(rope, 64, 2049)
