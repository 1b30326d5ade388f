"""TensorRT-LLM: a YAML file for `trtllm-serve --config`. Its max_draft_len is depth.

YAML takes JSON for scalars, so names and texts are written as JSON writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from outrider.export.base import Ability, Export, Plan, about_limits, checkpoint, make_plan
from outrider.recipe import Recipe

ENGINE = "TensorRT-LLM 1.3"
ABILITY = Ability(ENGINE, "greedy", "greedy guesses, each kept if it is what the target samples")
CONFIG_FILE = "trtllm.yaml"


def export(recipe: Recipe) -> Export:
    """The command for this recipe, and its file. Raises UsageError where `make_plan` does."""
    plan = make_plan(recipe, ABILITY)
    settings: dict[str, Any] = {}
    if recipe.limits.max_sequences is not None:
        settings["max_batch_size"] = recipe.limits.max_sequences
    if recipe.target.dtype is not None:
        settings["dtype"] = recipe.target.dtype
    notes = list(plan.notes)
    if plan.depth:
        settings["speculative_config"] = _config(plan)
        notes.append("TensorRT-LLM refuses min_p, and penalties unless enable_penalty is set, while it drafts")
        if len(plan.levels) > (1 if plan.off_above is None else 2):
            notes.append("of the table over sequences at once only the number above which it is off goes along")
    revised = [model for model in (recipe.target, plan.model) if model is not None and model.revision is not None]
    notes += [f"revision {model.revision} of {model.name} has no option here: give its folder" for model in revised]
    return Export(
        engine=ENGINE,
        command=["trtllm-serve", checkpoint(recipe.target.name, "target"), "--config", CONFIG_FILE],
        files={CONFIG_FILE: _yaml(settings)},
        notes=[*notes, *about_limits(recipe)],
        depth=plan.depth,
        prediction=plan.prediction,
    )


def _config(plan: Plan) -> dict[str, Any]:
    off = {} if plan.off_above is None else {"max_concurrency": plan.off_above}
    if plan.model is None:
        # -1: the longest match that there is
        return {"decoding_type": "SA", "max_draft_len": plan.depth, "max_matching_ngram_size": -1, **off}
    model = checkpoint(str(plan.model.name), "draft")
    return {"decoding_type": "Draft_Target", "max_draft_len": plan.depth, "speculative_model": model, **off}


def _yaml(settings: Mapping[str, Any]) -> str:
    """Tables of scalars, one level deep."""
    lines: list[str] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            table = cast("Mapping[str, object]", value)
            lines += [f"{name}:", *(f"  {inner}: {json.dumps(each)}" for inner, each in table.items())]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return "\n".join(lines or ["{}"]) + "\n"
