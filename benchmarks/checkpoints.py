"""Checkpoints of a stated size with random weights: they cost what their size costs, and write nothing of sense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from outrider import bundled_pair

# Qwen3 shapes. "0.44b" streams 0.87 GB a step; "152k" has the vocabulary of Qwen2 and Qwen3 under fewer layers.
SHAPES = {
    "0.44b": {"num_hidden_layers": 32, "vocab_size": 32_000},
    "152k": {"num_hidden_layers": 20, "vocab_size": 152_000},
}
COMMON = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64,
    "max_position_embeddings": 4096, "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
DRAFT = {
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def make_checkpoint(name: str, folder: Path, *, draft: bool = False) -> Path:
    """Write (or find) a bf16 checkpoint; token ids below the bundled vocabulary's size keep their text."""
    out = folder / (f"{name}-draft" if draft else name)
    if (out / "done").exists():
        return out
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

    set_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen3Config(**{**COMMON, **SHAPES[name], **(DRAFT if draft else {})})
    Qwen3ForCausalLM(config).save_pretrained(out)
    torch.set_default_dtype(torch.float32)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_pair().target / file, out / file)
    (out / "done").write_text(json.dumps(config.to_dict(), default=str))
    return out
