"""llama.cpp: llama-server over GGUF files, and the script that makes those. Its n-max is depth."""

from __future__ import annotations

import shlex

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

ENGINE = "llama.cpp 0c1e57098"
ABILITY = Ability(ENGINE, "greedy", "greedy guesses, each kept if it is what the target samples", combines=True)
TARGET_FILE, DRAFT_FILE = "target.gguf", "draft.gguf"
OUTPUT_TYPES: dict[str | None, str] = {None: "auto", "bfloat16": "bf16", "float32": "f32"}


def export(recipe: Recipe) -> Export:
    """The command for this recipe, and convert.sh. Raises UsageError where `make_plan` does."""
    plan = make_plan(recipe, ABILITY)
    command = ["llama-server", "-m", TARGET_FILE, *with_option("--parallel", recipe.limits.max_sequences)]
    notes = [
        *plan.notes,
        "run convert.sh where llama.cpp's convert_hf_to_gguf.py is: it makes the GGUF files of checkpoint folders",
    ]
    if plan.depth:
        command += _drafting(plan)
        notes += [
            *without_levels(plan, ENGINE),
            "log-probabilities of drafted tokens are not to be trusted there: they come out as 1",
        ]
    return Export(
        engine=ENGINE,
        command=command,
        files={"convert.sh": _conversion(recipe, plan)},
        notes=[*notes, *about_limits(recipe)],
        depth=plan.depth,
        prediction=plan.prediction,
    )


def _drafting(plan: Plan) -> list[str]:
    types = ["draft-simple"] * (plan.model is not None) + ["ngram-simple"] * plan.has_suffix
    options = ["--spec-type", ",".join(types)]
    if plan.model is not None:
        # without a least probability: the depth was chosen for chains that are never cut
        options += ["-md", DRAFT_FILE, "--spec-draft-n-max", str(plan.depth), "--spec-draft-n-min", "0"]
        options += ["--spec-draft-p-min", "0.0"]
    if plan.has_suffix:
        options += ["--spec-ngram-simple-size-m", str(plan.depth)]
    return options


def _conversion(recipe: Recipe, plan: Plan) -> str:
    models = [(recipe.target.name, "target", TARGET_FILE, recipe.target.dtype)]
    if plan.model is not None:
        models.append((str(plan.model.name), "draft", DRAFT_FILE, plan.model.dtype))
    lines = ["#!/bin/sh", "set -e"]
    for name, role, file, dtype in models:
        words = ["python", "convert_hf_to_gguf.py", checkpoint(name, role)]
        lines.append(shlex.join([*words, "--outtype", OUTPUT_TYPES[dtype], "--outfile", file]))
    return "\n".join(lines) + "\n"
