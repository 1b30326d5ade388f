"""From names to the parts of an engine: checkpoints, runtimes, tokenizers and drafters that fit each other."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import BLOCK_SIZE
from outrider.draft.base import Drafter
from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.config import EngineConfig
from outrider.errors import ModelError, UsageError
from outrider.model.checkpoint import resolve_checkpoint
from outrider.model.tokenizer import Tokenizer
from outrider.model.weights import fingerprint
from outrider.runtime.base import Runtime
from outrider.runtime.numerics import check_numerics, run_self_test

# The first load of a larger checkpoint does not ask transformers, which would need as much memory again.
MAX_REFERENCE_BYTES = 2_000_000_000


class LoadedModel(NamedTuple):
    """A runtime and, where the checkpoint has one, its tokenizer; the folder of a model that came from one."""

    runtime: Runtime
    tokenizer: Tokenizer | None = None
    folder: Path | None = None


def load_pair(
    target: Any, draft: Any, config: EngineConfig, tokenizer: str | Path | None = None
) -> tuple[LoadedModel, Drafter]:
    """A target and its drafter, loaded at once: most of loading is compiling, which leaves Python to the other.

    Raises:
        ModelError: a checkpoint cannot be used, or the two do not fit.
        UsageError: the runtime asked for is not installed.
    """
    is_model = not (draft in (None, "none", "suffix") or isinstance(draft, Drafter))
    with ThreadPoolExecutor(max_workers=1) as pool:
        loading = pool.submit(_load, draft, config, bitwise=False) if is_model else None
        loaded = _load(target, config, bitwise=True)
        draft = loading.result() if loading else draft
    if tokenizer is not None:
        loaded = loaded._replace(tokenizer=Tokenizer.from_folder(Path(tokenizer)))
    # One after the other: transformers, which may be asked, changes settings of the whole process while it loads.
    for model in (loaded, draft):
        if isinstance(model, LoadedModel) and config.self_test:
            _self_test(model)
    return loaded, make_drafter(draft, loaded, config)


def make_drafter(draft: Any, target: LoadedModel, config: EngineConfig) -> Drafter:
    """A drafter from what a user may say: None, "none", "suffix", a model (loaded or not), or a `Drafter` of their own.

    Raises:
        ModelError: a draft model of another vocabulary.
    """
    if isinstance(draft, Drafter):
        return draft
    if draft is None or draft == "none":
        return NoDrafter()
    if draft == "suffix":
        return SuffixDrafter()
    model = draft if isinstance(draft, LoadedModel) else _load(draft, config, bitwise=False)
    _check_vocabularies(target, model)
    return ModelDrafter(model.runtime, config.max_cache_tokens // BLOCK_SIZE, target.runtime.config.vocab_size)


def _load(source: Any, config: EngineConfig, *, bitwise: bool) -> LoadedModel:
    """Load a folder, a hub id, or a loaded transformers model (torch runtime only)."""
    options = dataclasses.replace(config.options, bitwise=bitwise and config.options.bitwise)
    if not isinstance(source, (str, Path)):
        if config.runtime != "torch":
            raise UsageError(f"a loaded model needs the torch runtime, but runtime is {config.runtime!r}")
        return LoadedModel(_torch_runtime().from_transformers(source, options))
    folder = resolve_checkpoint(source)
    tokenizer = Tokenizer.from_folder(folder) if (folder / "tokenizer.json").exists() else None
    if config.runtime == "torch":
        return LoadedModel(_torch_runtime().from_folder(folder, options, device=config.device), tokenizer, folder)
    # OpenVINO is imported when it computes: a CUDA machine without it still runs the torch runtime.
    from outrider.runtime.openvino.runtime import OpenVinoRuntime  # noqa: PLC0415

    return LoadedModel(OpenVinoRuntime.from_folder(folder, options), tokenizer, folder)


def _torch_runtime() -> Any:
    if not _is_installed("torch", "transformers"):
        raise UsageError("the torch runtime needs torch and transformers: pip install 'outrider[torch]'")
    # torch takes seconds to import and is optional.
    from outrider.runtime.torch.runtime import TorchRuntime  # noqa: PLC0415

    return TorchRuntime


def _check_vocabularies(target: LoadedModel, draft: LoadedModel) -> None:
    target_size, draft_size = target.runtime.config.vocab_size, draft.runtime.config.vocab_size
    if target.tokenizer and draft.tokenizer:
        difference = target.tokenizer.first_difference(draft.tokenizer)
    else:
        difference = None if target_size == draft_size else f"sizes are {target_size} and {draft_size}"
    if difference:
        raise ModelError(
            f"target and draft have different vocabularies: {difference}; take a draft of the target's family, "
            f"or --draft suffix"
        )


def _self_test(model: LoadedModel) -> None:
    """Check the runtime's numbers, against transformers' own where it is installed and would not fill the memory."""
    runtime, folder = model.runtime, model.folder
    if folder is None:  # transformers' own weights: nothing to compare with, and no file to remember them by
        runtime.exactness = run_self_test(runtime).exactness
        return
    can_refer = runtime.memory().weights <= MAX_REFERENCE_BYTES and _is_installed("torch", "transformers")
    reference = functools.partial(_reference_logits, folder, str(runtime.options.dtype)) if can_refer else None
    check_numerics(runtime, fingerprint(folder), reference)


def _reference_logits(folder: Path, dtype: str, token_ids: list[int]) -> NDArray[np.float32]:
    # Importing transformers takes seconds, and happens only the first time that a checkpoint is seen.
    from outrider.runtime.torch.transformers import reference_logits  # noqa: PLC0415

    return reference_logits(folder, token_ids, dtype)


def _is_installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)
