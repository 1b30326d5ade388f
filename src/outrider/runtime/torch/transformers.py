# pyright: basic
# (transformers' own types are partly unknown)
"""What we take from transformers: its own forward as the yardstick, and models that it has loaded.

Imported only where one of the two is asked for: importing transformers takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from outrider.errors import ModelError
from outrider.model.config import ARCHITECTURES, ModelConfig, parse_config
from outrider.runtime.torch.dense import LoadTensor


def reference_logits(folder: Path, token_ids: Sequence[int], dtype: str) -> NDArray[np.float32]:
    """Logits [tokens, vocab] of one text by transformers' own forward, computed in `dtype`."""
    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    finally:
        if shows_progress:
            logging.enable_progress_bar()
    with torch.inference_mode():
        return model(torch.tensor([list(token_ids)])).logits[0].float().numpy()


def adopt(model: torch.nn.Module) -> tuple[ModelConfig, LoadTensor]:
    """The config of a loaded model, and its tensors by the names of a checkpoint, shared.

    Raises:
        ModelError: the model is not of a family that we compute, or asks for something that we do not compute.
    """
    name = type(model).__name__
    if name not in ARCHITECTURES or not isinstance(model, PreTrainedModel):
        raise ModelError(f"a loaded model is a {name}, but must be one of {', '.join(ARCHITECTURES)}")
    values = model.config.to_dict() | {"dtype": str(model.dtype).removeprefix("torch.")}
    generation = model.generation_config.to_dict() if model.generation_config is not None else {}
    state = model.state_dict()
    return parse_config(values, generation), state.__getitem__
