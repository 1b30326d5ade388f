"""transformers: a script around `generate`. Its num_assistant_tokens is depth.

`generate` reads how much to draft from the generation config of the draft model, not from its own arguments, so the
script sets it there.
"""

from __future__ import annotations

import json
from typing import Any

from outrider.export.base import Ability, Export, Plan, about_limits, checkpoint, make_plan, without_levels
from outrider.recipe import Recipe

ENGINE = "transformers 5.23"
ABILITY = Ability(ENGINE, "rejection", "a rejection test of guesses that are drawn from the draft's probabilities")
SCRIPT, CONFIG_FILE = "generate.py", "generation.json"

_SCRIPT = '''"""Write on from a prompt, drafting as generation.json beside it says: python generate.py "import os"."""

import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

SETTINGS = json.loads(Path(__file__).with_name("{config_file}").read_text(encoding="utf-8"))


def load_drafting():
    """What to give to `generate` so that it drafts."""
    draft = SETTINGS["draft"]
    if draft is None:
        return dict(SETTINGS["generate"])
    model = AutoModelForCausalLM.from_pretrained(**draft["checkpoint"])
    model.generation_config.update(**draft["generation_config"])
    return {{**SETTINGS["generate"], "assistant_model": model}}


def main():
    """Print the text; further arguments of `generate`, such as do_sample, belong here."""
    target = AutoModelForCausalLM.from_pretrained(**SETTINGS["target"])
    tokenizer = AutoTokenizer.from_pretrained(**SETTINGS["tokenizer"])
    inputs = tokenizer(sys.argv[1], return_tensors="pt")
    tokens = target.generate(**inputs, max_new_tokens=128, **load_drafting())
    print(tokenizer.decode(tokens[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
'''


def export(recipe: Recipe) -> Export:
    """A script and its settings. Raises UsageError where `make_plan` does."""
    plan = make_plan(recipe, ABILITY)
    target = recipe.target
    settings = {
        "target": _loading(checkpoint(target.name, "target"), target.revision, target.dtype),
        "tokenizer": _loading(checkpoint(target.name, "target"), target.revision, None),
        **_drafting(plan),
    }
    notes = list(plan.notes)
    if plan.depth:
        notes += without_levels(plan, ENGINE)
        notes.append("transformers drafts for one text at a time only: a batch of more is refused")
    return Export(
        engine=ENGINE,
        command=["python", SCRIPT, "import os"],
        files={
            SCRIPT: _SCRIPT.format(config_file=CONFIG_FILE),
            CONFIG_FILE: json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
        },
        notes=[*notes, *about_limits(recipe)],
        depth=plan.depth,
        prediction=plan.prediction,
    )


def _drafting(plan: Plan) -> dict[str, Any]:
    if plan.depth == 0:
        return {"draft": None, "generate": {}}
    if plan.model is None:
        return {"draft": None, "generate": {"prompt_lookup_num_tokens": plan.depth}}
    model = plan.model
    constant = {
        "num_assistant_tokens": plan.depth,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }
    loading = _loading(checkpoint(str(model.name), "draft"), model.revision, model.dtype)
    return {"draft": {"checkpoint": loading, "generation_config": constant}, "generate": {}}


def _loading(name: str, revision: str | None, dtype: str | None) -> dict[str, str]:
    """Arguments of `from_pretrained`."""
    given = {"pretrained_model_name_or_path": name, "revision": revision, "dtype": dtype}
    return {option: value for option, value in given.items() if value is not None}
