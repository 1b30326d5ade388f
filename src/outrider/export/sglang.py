"""SGLang: flags of its server. Its count of draft tokens includes the root, so it is depth + 1."""

from __future__ import annotations

from outrider.export.base import (
    Ability,
    Export,
    Plan,
    about_limits,
    checkpoint,
    make_plan,
    with_option,
    without_levels,
)
from outrider.recipe import Recipe

ENGINE = "SGLang 0.5.23"
ABILITY = Ability(ENGINE, "greedy", "greedy guesses, each kept with the target's probability of it")
_IGNORED = "min_p has no effect while SGLang drafts, and penalties are only approximate: keep to temperature and top-p"


def export(recipe: Recipe) -> Export:
    """The command for this recipe. Raises UsageError where `make_plan` does."""
    plan = make_plan(recipe, ABILITY)
    target = recipe.target
    command = ["python", "-m", "sglang.launch_server", "--model-path", checkpoint(target.name, "target")]
    command += with_option("--revision", target.revision)
    command += with_option("--dtype", target.dtype)
    command += with_option("--max-running-requests", recipe.limits.max_sequences)
    notes = list(plan.notes)
    if plan.depth:
        command += _drafting(plan)
        notes += [
            *without_levels(plan, f"{ENGINE} with these drafters"),
            _IGNORED,
        ]
        if recipe.limits.max_sequences is None:
            notes.append("while drafting, SGLang runs 48 requests at once unless --max-running-requests says otherwise")
    return Export(
        engine=ENGINE,
        command=command,
        notes=[*notes, *about_limits(recipe)],
        depth=plan.depth,
        prediction=plan.prediction,
    )


def _drafting(plan: Plan) -> list[str]:
    num_draft_tokens = ["--speculative-num-draft-tokens", str(plan.depth + 1)]
    if plan.model is None:
        # one guess under each node: the chain that was measured
        breadth = ["--speculative-ngram-min-bfs-breadth", "1", "--speculative-ngram-max-bfs-breadth", "1"]
        return ["--speculative-algorithm", "NGRAM", *num_draft_tokens, *breadth]
    return [
        "--speculative-algorithm",
        "STANDALONE",
        "--speculative-draft-model-path",
        checkpoint(str(plan.model.name), "draft"),
        *with_option("--speculative-draft-model-revision", plan.model.revision),
        "--speculative-num-steps",
        str(plan.depth),
        "--speculative-eagle-topk",
        "1",
        *num_draft_tokens,
    ]
