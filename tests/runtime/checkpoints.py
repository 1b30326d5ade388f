"""Random small checkpoints of the four families, made with transformers; shared by the tests.

Every parameter is random, norm weights and biases too: one that is left out, doubled or swapped shows in the logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import openvino as ov
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from outrider.runtime.openvino.processors import computes_bfloat16

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

HAS_BFLOAT16 = computes_bfloat16(ov.Core())
# OpenVINO computes in what the processor does; torch computes in bfloat16 everywhere.
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no products of bfloat16 numbers")
OPENVINO_DTYPES = ("float32", pytest.param("bfloat16", marks=needs_bfloat16))
RUNTIMES_AND_DTYPES = (
    ("openvino", "float32"),
    pytest.param(("openvino", "bfloat16"), marks=needs_bfloat16),
    ("torch", "float32"),
    ("torch", "bfloat16"),
)

SHAPE: dict[str, Any] = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}


def make_checkpoint(
    folder: Path, family: str, *, dtype: Literal["float32", "bfloat16"] = "float32", seed: int = 0, **overrides: Any
) -> Path:
    """Write config.json, generation_config.json and model.safetensors into `folder`; `overrides` change the config."""
    make_model(family, dtype=dtype, seed=seed, **overrides).save_pretrained(folder)
    return folder


def make_model(family: str, *, dtype: str = "float32", seed: int = 0, **overrides: Any) -> Any:
    """The transformers model itself, in evaluation mode."""
    settings = dict(SHAPE)
    if family in ("llama", "mistral", "qwen3"):
        settings["head_dim"] = 32
    if family == "mistral":
        settings["sliding_window"] = None
    config = AutoConfig.for_model(family, **(settings | overrides))
    model = AutoModelForCausalLM.from_config(config)
    _randomise(model, seed)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model.to(getattr(torch, dtype)).eval()


def _randomise(model: torch.nn.Module, seed: int) -> None:
    """Logits of order one, and attention that prefers some keys to others."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
