"""What a recipe means for a command line: its models checked, its limits as options. Knows no prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from outrider.demo import bundled_pair
from outrider.errors import ModelError, ParameterError
from outrider.recipe import BUNDLED, Dtype, Recipe, read_recipe
from outrider.request import Depth


class RecipeModels(NamedTuple):
    """What a recipe names, found and checked.

    Attributes:
        target: the folder.
        drafts: folders or "suffix"; empty where the recipe says not to speculate.
        depth: tokens to draft a step.
        dtype: to compute in; None is each checkpoint's own.
    """

    target: Path
    drafts: tuple[str | Path, ...]
    depth: Depth
    dtype: Dtype | None


def load_recipe(path: Path, given: Mapping[str, bool]) -> Recipe:
    """A recipe, unless options that it decides are `given` too.

    Raises:
        UsageError: an option is given that the recipe has, or the recipe cannot be used.
    """
    if twice := [option for option, is_given in given.items() if is_given]:
        raise ParameterError(f"{twice[0]} is given, but --recipe {path} decides that: leave one of them out")
    recipe = read_recipe(path)
    if recipe.verification.rule != "coupled":
        raise ParameterError(
            f'{path}: verification.rule is "{recipe.verification.rule}", but a recipe is run under "coupled" only: '
            "write that, or give the models by hand with --verify block"
        )
    if recipe.policy.max_children > 1:
        raise ParameterError(
            f"{path}: policy.max_children is {recipe.policy.max_children}, but a recipe is run with chains only: "
            f"write 1, or give the models by hand with --max-children {recipe.policy.max_children}"
        )
    return recipe


def find_models(recipe: Recipe) -> RecipeModels:
    """Where its checkpoints are; each must be the one that it was made for.

    Raises:
        UsageError: one is missing, or another.
    """
    target = _found(recipe.target.name, "target", recipe.target.revision)
    recipe.check_target(_sha256(target))
    drafts: list[str | Path] = []
    asked: dict[Path, Dtype | None] = {target: recipe.target.dtype}
    for index, draft in enumerate(recipe.drafts if recipe.policy.speculate else ()):
        if draft.kind == "suffix":
            drafts.append("suffix")
            continue
        folder = _found(str(draft.name), "draft", draft.revision)
        recipe.check_draft(index, _sha256(folder))
        drafts.append(folder)
        asked[folder] = draft.dtype
    depth = recipe.policy.depth if recipe.policy.speculate else 0
    return RecipeModels(target, tuple(drafts), depth, _common_dtype(asked))


def _found(name: str, role: str, revision: str | None) -> Path:
    from outrider.model.checkpoint import resolve_checkpoint

    return getattr(bundled_pair(), role) if name == BUNDLED else resolve_checkpoint(name, revision)


def _sha256(folder: Path) -> str:
    from outrider.model.weights import fingerprint

    try:
        return fingerprint(folder)
    except OSError as error:
        raise ModelError(f"cannot read {error.filename} ({error.strerror}): {folder} is no whole checkpoint") from error


def _common_dtype(asked: Mapping[Path, Dtype | None]) -> Dtype | None:
    """The option that gives each model the dtype that is asked for; None where that is its own."""
    from outrider.model.config import read_config

    own: dict[Path, Dtype] = {folder: read_config(folder).dtype for folder in asked}
    wanted: dict[Path, Dtype] = {folder: asked[folder] or own[folder] for folder in asked}
    if wanted == own:
        return None
    dtypes = set(wanted.values())
    if len(dtypes) > 1:
        raise ParameterError(
            f"the recipe computes its models in {' and '.join(sorted(dtypes))}, but here all compute in one: use the "
            "checkpoints' own, or one for all"
        )
    return dtypes.pop()
