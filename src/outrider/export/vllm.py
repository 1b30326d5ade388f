"""vLLM: one command, with the drafting as JSON in `--speculative-config`. K there is draft tokens, as depth is here."""

from __future__ import annotations

import json
from typing import Any

from outrider.export.base import Ability, Export, Plan, about_limits, checkpoint, make_plan, with_option
from outrider.recipe import Recipe

ENGINE = "vLLM 0.33"
ABILITY = Ability(ENGINE, "rejection", "block verification of guesses that are drawn from the draft's probabilities")
MAX_TREE_DEPTH = 24  # of its suffix trees, by default


def export(recipe: Recipe) -> Export:
    """The command for this recipe. Raises UsageError where `make_plan` does."""
    plan = make_plan(recipe, ABILITY)
    target = recipe.target
    command = ["vllm", "serve", checkpoint(target.name, "target")]
    command += with_option("--revision", target.revision)
    command += with_option("--dtype", target.dtype)
    command += with_option("--max-num-seqs", recipe.limits.max_sequences)
    if plan.depth:
        command += ["--speculative-config", json.dumps(_config(recipe, plan))]
    return Export(
        engine=ENGINE,
        command=command,
        notes=[*plan.notes, *_notes(plan), *about_limits(recipe)],
        depth=plan.depth,
        prediction=plan.prediction,
    )


def _config(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    if plan.model is None:
        tree_depth = {"suffix_decoding_max_tree_depth": plan.depth} if plan.depth > MAX_TREE_DEPTH else {}
        return {"method": "suffix", "num_speculative_tokens": plan.depth, **tree_depth}
    config: dict[str, Any] = {
        "method": "draft_model",
        "model": checkpoint(str(plan.model.name), "draft"),
        "num_speculative_tokens": plan.depth,
        "draft_sample_method": "probabilistic",
        "rejection_sample_method": "block",
    }
    if plan.model.revision is not None:
        config["revision"] = plan.model.revision
    if len(plan.levels) > 1:
        config["num_speculative_tokens_per_batch_size"] = _table(recipe, plan)
    return config


def _table(recipe: Recipe, plan: Plan) -> list[list[int]]:
    """Ranges with both ends; the last depth holds beyond its end too, so that end is for the reader."""
    most = recipe.limits.max_sequences or 0
    return [
        [level.first, max(level.first, most) if level.last is None else level.last, level.depth]
        for level in plan.levels
    ]


def _notes(plan: Plan) -> list[str]:
    if not plan.depth:
        return []
    notes = ["vLLM refuses requests with min_p or logit_bias while it drafts; without drafting it takes them"]
    if plan.model is None:
        notes.append("suffix drafting needs the package arctic-inference, and runs on vLLM's older runner")
        if len(plan.levels) > 1:
            notes.append("the table over sequences at once is left out: that runner ignores it for suffix drafting")
    elif plan.model.dtype is not None:
        notes.append(f"the draft's dtype ({plan.model.dtype}) has no option: vLLM computes it in the target's")
    return notes
