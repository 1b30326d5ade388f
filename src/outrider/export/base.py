"""What every engine's export needs: which drafter goes along, how deep, when off, and what is left behind.

Knows recipes; how an engine names its options is in that engine's file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from outrider.demo import bundled_pair
from outrider.errors import UsageError
from outrider.export.prediction import Keeps, Prediction, best_depth, predict
from outrider.recipe import BUNDLED, Recipe, RecipeDraft


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A recipe in the words of another engine.

    Attributes:
        engine: with the version that these words are of.
        command: to start it, if it is started by one.
        files: contents by name; the command, or the notes, name them.
        notes: what could not be carried over, and what to know.
        depth: tokens to draft a step; 0 where it does not draft.
        prediction: for this engine's rule; None where too little was measured.
    """

    engine: str
    command: list[str] | None
    files: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    depth: int = 0
    prediction: Prediction | None = None


class Ability(NamedTuple):
    """What an engine can do, as far as a recipe asks.

    Attributes:
        engine: name and version.
        keeps: what it keeps of a draft model's guesses.
        rule: the same in words.
        combines: whether a draft model and a lookup in the text can draft together.
    """

    engine: str
    keeps: Keeps
    rule: str
    combines: bool = False


class Level(NamedTuple):
    """With `first` to `last` sequences at once, draft so deep; the last level is open: `last` is None."""

    first: int
    last: int | None
    depth: int


class Plan(NamedTuple):
    """A recipe reduced to what an engine with one static depth can do.

    Attributes:
        model: the draft model, if one goes along.
        has_suffix: whether a lookup in the text drafts.
        depth: 0 if nothing drafts.
    """

    notes: list[str]
    model: RecipeDraft | None = None
    has_suffix: bool = False
    depth: int = 0
    prediction: Prediction | None = None
    levels: Sequence[Level] = ()

    @property
    def off_above(self) -> int | None:
        """The number of sequences above which the last level drafts nothing."""
        last = self.levels[-1] if self.levels else None
        return last.first - 1 if last is not None and last.depth == 0 and last.first > 1 else None


def make_plan(recipe: Recipe, ability: Ability) -> Plan:
    """What this engine is to do.

    Raises:
        UsageError: a depth is to be chosen, and nothing was measured to choose it from.
    """
    notes: list[str] = []
    if not recipe.policy.speculate:
        return Plan(["the recipe says: do not speculate; nothing of it is switched on here"])
    model, has_suffix = _drafters(recipe, ability, notes)
    keeps: Keeps = ability.keeps if model is not None else "match"
    depth = _depth(recipe, keeps, ability, notes)
    if depth == 0:
        return Plan(notes)
    prediction = predict(recipe.measured, keeps, depth)
    notes += _about_rule(recipe, ability, keeps, prediction)
    return Plan(notes, model, has_suffix, depth, prediction, _levels(recipe, depth))


def _drafters(recipe: Recipe, ability: Ability, notes: list[str]) -> tuple[RecipeDraft | None, bool]:
    models = [draft for draft in recipe.drafts if draft.kind == "model"]
    has_suffix = len(models) < len(recipe.drafts)
    left_out = [f"draft model {draft.name}" for draft in models[1:]]
    if models and has_suffix and not ability.combines:
        left_out.append("suffix")
        has_suffix = False
    if left_out:
        notes.append(
            f"left out: {', '.join(left_out)}; {ability.engine} drafts with one of them, and what was measured is of "
            "all together, so expect less"
        )
    return (models[0] if models else None), has_suffix


def _depth(recipe: Recipe, keeps: Keeps, ability: Ability, notes: list[str]) -> int:
    policy = recipe.policy
    if policy.depth != "auto":
        return policy.depth
    measured = recipe.measured
    chosen = None if measured is None else best_depth(measured, keeps, policy.max_depth)
    if chosen is None:
        raise UsageError(
            f'policy.depth is "auto", but {ability.engine} wants a number, and to choose one the recipe needs '
            "measured.cost_ratio and measured.survival or measured.agreement: add them, or set policy.depth"
        )
    if chosen == 0:
        notes.append(
            f"by what was measured, no depth pays with the rule of {ability.engine}: nothing of it is switched on here"
        )
    else:
        notes.append(
            f'depth "auto" became {chosen}, the fastest by what was measured; here it never adapts to the text'
        )
    return chosen


def _about_rule(recipe: Recipe, ability: Ability, keeps: Keeps, prediction: Prediction | None) -> list[str]:
    own = recipe.verification
    notes = [f"verification: {ability.rule}, where the recipe has {own.rule}"]
    if own.exactness != "distribution":
        notes.append("a seed's text is not the same with drafting as without: that promise stays behind")
    if prediction is not None:
        assert recipe.measured is not None
        where = f" on {recipe.measured.machine}" if recipe.measured.machine else ""
        notes.append(
            f"predicted for that rule: {prediction}; from what Outrider measured{where} at temperature "
            f"{recipe.measured.temperature:g}. Another engine has other costs: measure there"
        )
    else:
        needed = {"rejection": "measured.overlap", "greedy": "measured.greedy_agreement", "match": "measured.agreement"}
        notes.append(f"not predicted for that rule: the recipe has no {needed[keeps]}")
    if recipe.policy.max_temperature is not None:
        notes.append(
            f"drafting pays up to temperature {recipe.policy.max_temperature:g} only, and {ability.engine} has no such "
            "limit: send it no requests above that, or run another without drafting for them"
        )
    if recipe.policy.max_children > 1:
        notes.append(f"trees of up to {recipe.policy.max_children} children became chains")
    return notes


def _levels(recipe: Recipe, depth: int) -> list[Level]:
    """The table over sequences at once; one level means that it says nothing."""
    rows = recipe.measured.concurrency if recipe.measured is not None else ()
    off_above = recipe.policy.off_above
    found: list[Level] = []
    first = 1
    for row in rows:
        if off_above is not None and row.num_sequences > off_above:
            break
        found.append(
            Level(
                first,
                row.num_sequences,
                min(depth if row.depth is None else row.depth, depth) if row.speedup > 1 else 0,
            )
        )
        first = row.num_sequences + 1
    if off_above is not None:
        if first <= off_above:
            found.append(Level(first, off_above, found[-1].depth if found else depth))
        found.append(Level(off_above + 1, None, 0))
    merged: list[Level] = []
    for level in found:
        if merged and merged[-1].depth == level.depth:
            merged[-1] = merged[-1]._replace(last=level.last)
        else:
            merged.append(level)
    if not merged:
        return [Level(1, None, depth)]
    return [*merged[:-1], merged[-1]._replace(last=None)]


def without_levels(plan: Plan, engine: str) -> list[str]:
    """The note for an engine that has no such table."""
    if len(plan.levels) < 2:
        return []
    table = "; ".join(
        f"{level.first} or more: {level.depth}"
        if level.last is None
        else f"{level.first} to {level.last}: {level.depth}"
        for level in plan.levels
    )
    return [f"{engine} has no table of depth over sequences at once, which the recipe has ({table})"]


def about_limits(recipe: Recipe) -> list[str]:
    """The note on memory, whose books are another engine's own."""
    if recipe.limits.memory_bytes is None:
        return []
    return [f"the limit of {recipe.limits.memory_bytes} bytes is of this engine's books: set that engine's own"]


def checkpoint(name: str, role: str) -> str:
    """The folder of a checkpoint of the bundled pair, or the name as it stands."""
    return str(getattr(bundled_pair(), role)) if name == BUNDLED else name


def with_option(option: str, value: object) -> Sequence[str]:
    """An option of a command line, or nothing where there is no value."""
    return () if value is None else (option, str(value))
