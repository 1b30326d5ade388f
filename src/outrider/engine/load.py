"""From names to the parts of an engine: checkpoints, runtimes, tokenizers and drafters that fit each other."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import BLOCK_SIZE
from outrider.draft.base import Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.prediction import PredictionDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.batch import computed_rows
from outrider.engine.config import EngineConfig
from outrider.engine.memory import Ledger, ModelSize, plan_memory
from outrider.engine.rehearsal import rehearse
from outrider.errors import ModelError, UsageError
from outrider.model.checkpoint import resolve_checkpoint
from outrider.model.config import read_config
from outrider.model.tokenizer import Tokenizer
from outrider.model.weights import Weights, fingerprint
from outrider.policy.cost import Changes, StepCosts
from outrider.runtime.base import Runtime
from outrider.runtime.numerics import SelfTest, check_numerics, run_self_test
from outrider.runtime.profile import DRAFT_WIDTHS, NUM_TOGETHER, TARGET_WIDTHS, Profile, recalled_profile, warm_up
from outrider.runtime.remembered import isa_limits

# The first load of a larger checkpoint does not ask transformers, which would need as much memory again.
MAX_REFERENCE_BYTES = 2_000_000_000


class LoadedModel(NamedTuple):
    """A runtime and, where the checkpoint has one, its tokenizer; the folder of a model that came from one."""

    runtime: Runtime
    tokenizer: Tokenizer | None = None
    folder: Path | None = None


class Loaded(NamedTuple):
    """A target, what drafts for it, and how they are to run."""

    target: LoadedModel
    drafter: Drafter
    config: EngineConfig
    ledger: Ledger | None
    new_costs: Callable[[], StepCosts]


def load(target: Any, draft: Any, config: EngineConfig, tokenizer: str | Path | None = None) -> Loaded:
    """A target and its drafters, loaded at once: most of loading is compiling, which leaves Python to the other.

    Args:
        target: a folder, a hub id or a loaded transformers model.
        draft: None, "none", "suffix", a model like the target, a `Drafter`, or a list of these, cheapest first.
        config: how to run.
        tokenizer: a folder with a tokenizer.json, for a target that brings none.

    Raises:
        ModelError: a checkpoint cannot be used, or the two do not fit.
        UsageError: the runtime asked for is not installed, or cannot keep the exactness asked for.
    """
    drafts = _as_list(draft)
    ledger, config = _plan(target, drafts, config)
    with ThreadPoolExecutor(max_workers=1) as pool:
        loading = {
            place: pool.submit(_load, each, config, bitwise=False)
            for place, each in enumerate(drafts)
            if _is_model(each)
        }
        loaded = _load(target, config, bitwise=config.exactness != "seed")
        for place, model in loading.items():
            drafts[place] = model.result()
    if tokenizer is not None:
        loaded = loaded._replace(tokenizer=Tokenizer.from_folder(Path(tokenizer)))
    # One after the other: transformers, which may be asked, changes settings of the whole process while it loads.
    for model in (loaded, *drafts):
        if isinstance(model, LoadedModel) and config.self_test:
            found = _self_test(model, can_refer=config.memory_limit is None)
            if model is loaded and config.exactness == "bitwise":
                require_bitwise(loaded.runtime, found, config)
    new_costs = _costs(loaded, drafts, prepares=config.prepares)
    drafter = make_drafter(drafts, loaded, config)
    return Loaded(loaded, drafter, config, ledger, _rehearsed(loaded.runtime, drafter, new_costs))


def ledger_of(target: Any, draft: Any, config: EngineConfig) -> Ledger | None:
    """What `load` would take, of which nothing is taken yet; None where a model is loaded already.

    Raises:
        ModelError, UsageError: as `load` does; the memory limit does not suffice.
    """
    return _plan(target, _as_list(draft), config)[0]


def _plan(target: Any, drafts: list[Any], config: EngineConfig) -> tuple[Ledger | None, EngineConfig]:
    models = [target, *filter(_is_model, drafts)]
    if len(models) > 2:
        raise UsageError(f"{len(models) - 1} draft models are given, but one can draft: keep one of them")
    if not all(isinstance(model, str | Path) for model in models):
        if config.memory_limit is not None:
            raise UsageError(
                "memory_limit counts what is going to be loaded, but a model is loaded already: leave it out"
            )
        return None, config
    if config.memory_limit is not None and config.options.num_forms is None:
        config = dataclasses.replace(config, options=dataclasses.replace(config.options, num_forms=0))
    first, *others = (_size_of(model, config) for model in models)
    drafters = [SuffixDrafter() if each == "suffix" else each for each in drafts]
    without_models = [each for each in drafters if isinstance(each, Drafter)]
    return plan_memory(first, others, config, [PredictionDrafter(), *without_models])


def _size_of(source: str | Path, config: EngineConfig) -> ModelSize:
    folder = resolve_checkpoint(source)
    model_config = read_config(folder)
    num_bytes = Weights.from_folder(folder).num_bytes
    if config.runtime == "torch":
        return ModelSize(model_config, num_bytes, config.options.dtype or model_config.dtype)
    from outrider.runtime.openvino.processors import computed_form  # noqa: PLC0415 - as below

    return ModelSize(model_config, num_bytes, *computed_form(model_config, num_bytes, config.options))


def make_drafter(draft: Any, target: LoadedModel, config: EngineConfig) -> Drafter:
    """A cascade of what a user may name: None, "none", "suffix", a model (loaded or not), a `Drafter`, or a list.

    Predictions come with requests, so what drafts from them is always there.

    Raises:
        ModelError: a draft model of another vocabulary.
    """
    drafts = _as_list(draft)
    members = [make_member(each, target, config) for each in drafts if each not in (None, "none")]
    return Cascade([make_member(PredictionDrafter(), target, config), *members])


def _as_list(draft: Any) -> list[Any]:
    is_several = isinstance(draft, list | tuple) and not isinstance(draft, LoadedModel)
    return [*draft] if is_several else [draft]  # pyright: ignore[reportUnknownVariableType]


def make_member(draft: Any, target: LoadedModel, config: EngineConfig) -> Drafter:
    """A drafter from one name, model or drafter; raises as `make_drafter` does."""
    drafter = SuffixDrafter() if draft == "suffix" else draft
    if isinstance(drafter, Drafter):
        drafter.hold(config.max_cache_tokens)
        return drafter
    model = draft if isinstance(draft, LoadedModel) else _load(draft, config, bitwise=False)
    _check_vocabularies(target, model)
    return ModelDrafter(
        model.runtime,
        config.max_cache_tokens // BLOCK_SIZE,
        target.runtime.config.vocab_size,
        draws=config.verify == "block",
    )


def _is_model(draft: Any) -> bool:
    return not (draft in (None, "none", "suffix") or isinstance(draft, Drafter))


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


def _costs(target: LoadedModel, drafts: list[Any], *, prepares: bool) -> Callable[[], StepCosts]:
    """What a step costs, as far as that is known before the first."""
    profile = _profile(target)
    models = [each for each in drafts if isinstance(each, LoadedModel)]
    steps = [_profile(model, DRAFT_WIDTHS).points[0][1] for model in models]
    for model in (target, *models) if prepares else ():  # changes were timed as they are without
        model.runtime.prepare()
    for model in models:
        warm_up(model.runtime)
    max_rows = target.runtime.row_class.max_rows
    if max_rows is not None:  # a sequence alone is one forward, however far it is filled up
        max_rows = max(max_rows, target.runtime.computed_rows([1]))
    priors = {ModelDrafter.name: steps[0]} if steps else {}
    return lambda: StepCosts(
        profile.points,
        functools.partial(computed_rows, target.runtime),
        priors,
        changes=Changes(profile.change_seconds, target.runtime.is_ready_for),
        together=(NUM_TOGETHER, profile.together),
        max_rows=max_rows,
    )


def _rehearsed(target: Runtime, drafter: Drafter, new_costs: Callable[[], StepCosts]) -> Callable[[], StepCosts]:
    """What is known of costs, and what draft models were seen to take."""
    members = drafter.members if isinstance(drafter, Cascade) else (drafter,)
    rehearsals = [rehearse(target, member) for member in members if isinstance(member, ModelDrafter)]

    def rehearsed() -> StepCosts:
        costs = new_costs()
        for rehearsal in rehearsals:
            rehearsal.tell(costs)
        return costs

    return rehearsed


def _profile(model: LoadedModel, widths: Sequence[int] = TARGET_WIDTHS) -> Profile:
    """What a model's forwards cost, which its runtime then goes by."""
    profile = recalled_profile(model.runtime, fingerprint(model.folder) if model.folder else None, widths)
    model.runtime.set_change_price(profile.change_seconds, profile.change_rows)
    return profile


def _self_test(model: LoadedModel, *, can_refer: bool) -> SelfTest:
    """Check the runtime's numbers, against transformers' own where it is installed and would not fill the memory."""
    runtime, folder = model.runtime, model.folder
    if folder is None:  # transformers' own weights: nothing to compare with, and no file to remember them by
        found = run_self_test(runtime)
        runtime.exactness, runtime.row_class = found.exactness, found.row_class
        return found
    # what transformers would compute of a quantised checkpoint is another model
    can_refer &= not runtime.config.is_quantised
    can_refer &= runtime.memory().weights <= MAX_REFERENCE_BYTES and _is_installed("torch", "transformers")
    reference = functools.partial(_reference_logits, folder, str(runtime.options.dtype)) if can_refer else None
    return check_numerics(runtime, fingerprint(folder), reference)


def require_bitwise(runtime: Runtime, found: SelfTest, config: EngineConfig) -> None:
    """Refuse to promise what the self-test has not found, and say what may keep it.

    Raises:
        UsageError: it was not found, of chains or of the trees that are asked for.
    """
    here = f"the {runtime.name} runtime in {runtime.options.dtype} on this machine"
    if found.exactness != "bitwise":
        other_dtype = "bfloat16" if runtime.options.dtype == "float32" else "float32"
        others = [f"--dtype {other_dtype}"]
        others += ["--runtime openvino"] if runtime.name == "torch" else ["--runtime torch"] * _is_installed("torch")
        others += [f"without {name}={value} in the environment" for name, value in isa_limits().items()]
        raise UsageError(
            f"exactness is bitwise, but {here} cannot keep it for this model: {found.reason}; "
            f"try {', or '.join(others)}, or leave --exactness out for level seed"
        )
    if config.max_children > 1 and found.row_class.trees != "bitwise":
        raise UsageError(
            f"exactness is bitwise, but {here} keeps it for chains only, and max_children is {config.max_children}: "
            "set it to 1, or leave --exactness out for level seed"
        )


def _reference_logits(folder: Path, dtype: str, token_ids: list[int]) -> NDArray[np.float32]:
    # Importing transformers takes seconds, and happens only the first time that a checkpoint is seen.
    from outrider.runtime.torch.transformers import reference_logits  # noqa: PLC0415

    return reference_logits(folder, token_ids, dtype)


def _is_installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)
