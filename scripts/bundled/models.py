"""The two shapes of the bundled pair, and how their checkpoints are read and written.

Both are Qwen3 (normalised queries and keys train stably in bf16) with a tied head. The target is deep and narrow, so
that its cost is that of a chain of layers; the draft has two layers, the fewest
that can copy what followed an earlier occurrence of a token.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tokenizer import VOCABULARY_SIZE

CONTEXT = 1024
TARGET_SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 14,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DRAFT_SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def make_model(shape: dict[str, int]) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        rms_norm_eps=1e-6,
        initializer_range=0.02,
        **shape,
    )
    return Qwen3ForCausalLM(config)


def save(model: Qwen3ForCausalLM, tokenizer_folder: Path, out: Path) -> None:
    """Write config, bf16 safetensors and the tokenizer; leaves `model` itself as it is."""
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / name, out / name)
