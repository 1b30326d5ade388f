"""Checkpoints small enough to load in no time: random weights, and a tokenizer whose tokens are bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from outrider.model.config import read_config
from outrider.model.weights import expected_shapes

END_OF_TEXT = "<|endoftext|>"
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "eos_token_id": None,
    "dtype": "bfloat16",
}


def make_tiny(folder: Path, *, seed: int = 0, scale: float = 1.0, **overrides: Any) -> Path:
    """A checkpoint with everything; `scale` multiplies its matrices, `overrides` change its config."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | overrides))
    save_byte_tokenizer(folder)
    generator = np.random.default_rng(seed)
    weights = {
        name: np.ones(shape) if len(shape) == 1 else generator.normal(size=shape) * scale * shape[1] ** -0.5
        for name, shape in expected_shapes(read_config(folder)).items()
    }
    save_bfloat16(folder / "model.safetensors", weights)
    return folder


def save_bfloat16(path: Path, weights: dict[str, np.ndarray]) -> None:
    header: dict[str, Any] = {}
    data = b""
    for name, array in weights.items():
        content = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
        end = len(data) + len(content)
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [len(data), end]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def save_byte_tokenizer(folder: Path) -> None:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([END_OF_TEXT, *alphabet])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))


def comes_with_prompt(document: dict[str, Any]) -> bool:
    """Whether a text's first token took no decoding step, by what a run's JSON says of the engine."""
    return document["engine"]["row_class"]["max_root_rows"] > 0
