"""What a recipe means for a command line: its models checked, its limits as options. Knows no prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from outrider.demo import bundled_pair
from outrider.errors import ModelError, ParameterError
from outrider.recipe import BUNDLED, Dtype, Limits, Recipe, Rule, read_recipe
from outrider.request import Depth

Value = TypeVar("Value")


class RecipeModels(NamedTuple):
    """What a recipe names, found and checked.

    Attributes:
        target: the folder.
        drafts: folders or "suffix"; empty where the recipe says not to speculate.
        depth: tokens to draft a step.
        dtype: to compute in; None is each checkpoint's own.
        rule: of verification.
        max_children: guesses at one place; above 1, `depth` is a number of nodes.
        limits: of the deployment.
        max_temperature: above which nothing is to be drafted.
    """

    target: Path
    drafts: tuple[str | Path, ...]
    depth: Depth
    dtype: Dtype | None
    rule: Rule
    max_children: int
    limits: Limits
    max_temperature: float | None


def load_recipe(path: Path, given: Mapping[str, bool]) -> Recipe:
    """A recipe, unless options that it decides are `given` too.

    Raises:
        UsageError: an option is given that the recipe has, or the recipe cannot be used.
    """
    if twice := [option for option, is_given in given.items() if is_given]:
        raise ParameterError(f"{twice[0]} is given, but --recipe {path} decides that: leave one of them out")
    return read_recipe(path)


def agreed(option: str, asked: Value | None, of_recipe: Value | None) -> Value | None:
    """What an option or a recipe says; they may say the same.

    Raises:
        ParameterError: they do not.
    """
    if asked is not None and of_recipe is not None and asked != of_recipe:
        raise ParameterError(
            f"{option} is {asked}, but --recipe says {of_recipe}: leave {option} out, or edit the recipe"
        )
    return of_recipe if asked is None else asked


def agreed_rule(asked: Rule | None, of_recipe: Rule | None) -> Rule:
    """Of verification, as `agreed`; "coupled" where nobody says."""
    found: Rule | None = agreed("--verify", asked, of_recipe)
    return found or "coupled"


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
    policy = recipe.policy
    return RecipeModels(
        target=target,
        drafts=tuple(drafts),
        depth=policy.depth if policy.speculate else 0,
        dtype=_common_dtype(asked),
        rule=recipe.verification.rule,
        max_children=policy.max_children if policy.speculate else 1,
        limits=recipe.limits,
        max_temperature=policy.max_temperature,
    )


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
