"""A recipe: whose text, what drafts, how much, and what was measured when that was decided. One TOML file.

It is what a checklist writes, a person reads, and `run`, `bench`, `audit` and `export` take. Nothing is computed or
loaded here: a checkpoint is a name and a sha256.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from outrider.checked import (
    INTERVAL,
    SHA256,
    SWITCH,
    TEXT,
    TEXTS_BY_NAME,
    Part,
    lines_of,
    metadata,
    number,
    numbers,
    one_of,
    part_of,
    parts_of,
    refuse,
    refuse_unknown,
    whole,
)
from outrider.errors import ParameterError, UsageError
from outrider.files import read_text
from outrider.request import MAX_DEPTH, Depth, Exactness

FORMAT = 1
MAX_RECIPE_BYTES = 1024 * 1024
MAX_CHILDREN = 64
NUM_SHOWN_DIGITS = 12  # of a sha256
BUNDLED = "bundled"  # the name of the pair that comes with the package, whichever of the two

DraftKind = Literal["model", "suffix"]
Dtype = Literal["float32", "bfloat16"]
Rule = Literal["coupled", "block"]

_DTYPE = one_of("float32", "bfloat16")
_DEPTH = metadata(
    f'"auto" or a whole number between 0 and {MAX_DEPTH}',
    lambda value: value == "auto" or whole(0, MAX_DEPTH)["holds"](value),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetModel(Part):
    """Whose text it is.

    Attributes:
        name: a folder, a model's id on the hub, or "bundled".
        sha256: the checkpoint's fingerprint: config, and each shard's header and ends.
        revision: on the hub.
        dtype: computed in; None is the checkpoint's own.
    """

    place: ClassVar[str] = "target"
    kind: Literal["model"] = field(default="model", metadata=one_of("model"))
    name: str = field(metadata=TEXT)
    sha256: str = field(metadata=SHA256)
    revision: str | None = field(default=None, metadata=TEXT)
    dtype: Dtype | None = field(default=None, metadata=_DTYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeDraft(Part):
    """One of what drafts: a model, with the fields of `TargetModel`, or the suffix automaton, which has none."""

    place: ClassVar[str] = "draft"
    kind: DraftKind = field(metadata=one_of("model", "suffix"))
    name: str | None = field(default=None, metadata=TEXT)
    sha256: str | None = field(default=None, metadata=SHA256)
    revision: str | None = field(default=None, metadata=TEXT)
    dtype: Dtype | None = field(default=None, metadata=_DTYPE)

    def check_together(self) -> None:
        if self.kind == "model" and (self.name is None or self.sha256 is None):
            absent = "name" if self.name is None else "sha256"
            raise ParameterError(f'draft.{absent} is missing, but a draft of kind "model" needs it: add it')
        if self.kind == "suffix":
            for name in ("name", "sha256", "revision", "dtype"):
                if getattr(self, name) is not None:
                    raise ParameterError(f'draft.{name} is given, but kind "suffix" has no checkpoint: leave it out')


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice(Part):
    """How much to draft.

    Attributes:
        speculate: whether to draft at all; the answer may be no.
        depth: tokens to draft a step, or nodes of a tree; "auto" lets the engine find what pays.
        max_depth: that auto may reach, or an engine without it.
        off_above: sequences at once above which drafting does not pay; None if that was not met.
        max_temperature: above which it does not pay, so that texts are written plainly; None if that was not met.
        max_children: guesses under one node; 1 is a chain.
    """

    place: ClassVar[str] = "policy"
    speculate: bool = field(metadata=SWITCH)
    depth: Depth = field(default="auto", metadata=_DEPTH)
    max_depth: int = field(default=8, metadata=whole(1, MAX_DEPTH))
    off_above: int | None = field(default=None, metadata=whole(1))
    max_temperature: float | None = field(default=None, metadata=number(0))
    max_children: int = field(default=1, metadata=whole(1, MAX_CHILDREN))

    def check_together(self) -> None:
        if self.depth != "auto" and self.depth > self.max_depth:
            refuse("policy.depth", self.depth, f"at most policy.max_depth, which is {self.max_depth}: change one")
        if self.speculate and self.depth == 0:
            refuse("policy.depth", 0, '1 or more, or "auto", where policy.speculate is true: change one')


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Part):
    """What is kept of a draft, and the level of exactness that was found."""

    place: ClassVar[str] = "verification"
    rule: Rule = field(default="coupled", metadata=one_of("coupled", "block"))
    exactness: Exactness = field(default="seed", metadata=one_of("bitwise", "seed", "distribution"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Part):
    """Bounds of the deployment; None is none."""

    place: ClassVar[str] = "limits"
    memory_bytes: int | None = field(default=None, metadata=whole(1))
    max_sequences: int | None = field(default=None, metadata=whole(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredConcurrency(Part):
    """Speedup with so many sequences at once; `depth` is what was fastest there, if that was looked for."""

    place: ClassVar[str] = "measured.concurrency"
    num_sequences: int = field(metadata=whole(1))
    speedup: float = field(metadata=number(0))
    depth: int | None = field(default=None, metadata=whole(0, MAX_DEPTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTemperature(Part):
    """Speedup at one temperature by itself, with its 95 % interval, and where it stops to pay."""

    place: ClassVar[str] = "measured.temperatures"
    temperature: float = field(metadata=number(0))
    speedup: float = field(metadata=number(0))
    speedup_interval: tuple[float, float] | None = field(default=None, metadata=INTERVAL)
    off_above: int | None = field(default=None, metadata=whole(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Part):
    """What was found of these drafters together, on these prompts and this machine.

    Attributes:
        temperature: that agreement, overlap and survival were measured at.
        agreement: of the first guess, under the recipe's own rule.
        greedy_agreement: probability that the target gives the drafter's likeliest token: what is kept by engines that
            draft greedily. At temperature 0 it is the agreement.
        overlap: what is kept of one drawn guess by a rejection test.
        survival: of depth 1, 2 and so on.
        cost_ratio: seconds of one draft step over seconds of one plain step of the target.
        forward_costs: seconds of a forward of the target over 2, 3 and more rows, over those of a plain step.
        speedup: measured or predicted for the recipe as it stands, with its 95 % interval.
        temperatures: speedup at each temperature by itself, where there are several.
        concurrency: the same with more sequences at once.
        num_prompts: that were measured on.
        machine: in words.
    """

    place: ClassVar[str] = "measured"
    temperature: float = field(metadata=number(0))
    agreement: float | None = field(default=None, metadata=number(0, 1))
    greedy_agreement: float | None = field(default=None, metadata=number(0, 1))
    overlap: float | None = field(default=None, metadata=number(0, 1))
    survival: tuple[float, ...] = field(default=(), metadata=numbers(0, 1))
    cost_ratio: float | None = field(default=None, metadata=number(0))
    forward_costs: tuple[float, ...] = field(default=(), metadata=numbers(0))
    speedup: float | None = field(default=None, metadata=number(0))
    speedup_interval: tuple[float, float] | None = field(default=None, metadata=INTERVAL)
    num_prompts: int | None = field(default=None, metadata=whole(1))
    machine: str | None = field(default=None, metadata=TEXT)
    temperatures: tuple[MeasuredTemperature, ...] = ()
    concurrency: tuple[MeasuredConcurrency, ...] = ()

    def check_together(self) -> None:
        nums = [entry.num_sequences for entry in self.concurrency]
        if nums != sorted(set(nums)):
            refuse("measured.concurrency", nums, "in rising order of num_sequences, each once")
        temperatures = [each.temperature for each in self.temperatures]
        if len(set(temperatures)) < len(temperatures):
            refuse("measured.temperatures", temperatures, "each temperature once")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy(Part):
    """Where the recipe comes from: Outrider's version and others', when, and by which command."""

    place: ClassVar[str] = "made_by"
    outrider: str = field(metadata=TEXT)
    date: str | None = field(default=None, metadata=TEXT)
    command: str | None = field(default=None, metadata=TEXT)
    versions: Mapping[str, str] = field(default_factory=dict[str, str], metadata=TEXTS_BY_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Target, drafters, policy and verification of a deployment, and what they rest on.

    `toml()` and `parse_recipe` are each other's inverse.

    Raises:
        ParameterError: parts contradict each other. (A part raises it for a value of its own.)
    """

    target: TargetModel
    policy: PolicyChoice
    drafts: tuple[RecipeDraft, ...] = ()
    verification: Verification = field(default_factory=Verification)
    limits: Limits = field(default_factory=Limits)
    measured: Measured | None = None
    made_by: MadeBy | None = None

    def __post_init__(self) -> None:
        if self.policy.speculate and not self.drafts:
            raise ParameterError("policy.speculate is true, but there is no [[draft]]: add one, or say false")
        seen = [(draft.kind, draft.name) for draft in self.drafts]
        if len(set(seen)) < len(seen):
            raise ParameterError("a [[draft]] is given twice: keep one of them")

    def check_target(self, sha256: str) -> None:
        """Raise UsageError if the recipe was made for another target than the one with this fingerprint."""
        check_same("target", self.target.name, self.target.sha256, sha256)

    def check_draft(self, index: int, sha256: str) -> None:
        """Raise UsageError if a draft model is another than the recipe's."""
        draft = self.drafts[index]
        check_same("draft", draft.name or draft.kind, draft.sha256 or "", sha256)

    def toml(self) -> str:
        """The file's content."""
        tables: list[tuple[str, Part]] = [("[target]", self.target), *(("[[draft]]", draft) for draft in self.drafts)]
        tables += [("[policy]", self.policy), ("[verification]", self.verification), ("[limits]", self.limits)]
        if self.measured is not None:
            tables.append(("[measured]", self.measured))
            tables += [("[[measured.temperatures]]", entry) for entry in self.measured.temperatures]
            tables += [("[[measured.concurrency]]", entry) for entry in self.measured.concurrency]
        if self.made_by is not None:
            tables.append(("[made_by]", self.made_by))
        lines = [f"format = {FORMAT}"]
        for head, part in tables:
            lines += ["", head, *lines_of(part)]
        return "\n".join(lines) + "\n"


def check_same(role: str, name: str, wanted: str, found: str) -> None:
    """Raise UsageError if a checkpoint has not the fingerprint that a recipe names."""
    if found != wanted:
        raise UsageError(
            f"the recipe is for another {role}: it has sha256 {wanted[:NUM_SHOWN_DIGITS]}..., but {name} has "
            f"{found[:NUM_SHOWN_DIGITS]}...: name the checkpoint it was made for, or make a recipe for this one"
        )


def read_recipe(path: Path) -> Recipe:
    """A recipe from its file.

    Raises:
        UsageError: it cannot be read, is no recipe, is of a newer format, or a value is not as it must be.
    """
    return parse_recipe(read_text(path, MAX_RECIPE_BYTES, "the recipe"), str(path))


def parse_recipe(text: str, place: str = "recipe") -> Recipe:
    """A recipe from its text; `place` begins messages. Raises as `read_recipe`."""
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{place} is not TOML ({error}): mend it, or make the recipe again") from error
    try:
        return _recipe(tables)
    except UsageError as error:
        raise type(error)(f"{place}: {error}") from error


_TABLES: dict[str, type[Part]] = {
    "target": TargetModel,
    "policy": PolicyChoice,
    "verification": Verification,
    "limits": Limits,
    "measured": Measured,
    "made_by": MadeBy,
}


def _recipe(tables: dict[str, Any]) -> Recipe:
    found = tables.pop("format", None)
    if isinstance(found, int) and not isinstance(found, bool) and found > FORMAT:
        raise UsageError(f"format is {found}, but this Outrider reads up to {FORMAT}: install a newer Outrider")
    if found != FORMAT or isinstance(found, bool):
        refuse("format", found, f"{FORMAT}: is this a recipe?")
    refuse_unknown("", tables, [*_TABLES, "draft"])
    for name in ("target", "policy"):
        if name not in tables:
            raise ParameterError(f"[{name}] is missing: every recipe has it")
    parts: dict[str, Any] = {"drafts": parts_of(RecipeDraft, tables.pop("draft", []))}
    for name, table in cast("dict[str, object]", tables).items():
        parts[name] = _measured(table) if name == "measured" else part_of(_TABLES[name], table)
    return Recipe(**parts)


_INSIDE: dict[str, type[Part]] = {"temperatures": MeasuredTemperature, "concurrency": MeasuredConcurrency}


def _measured(table: object) -> Measured:
    """With the arrays of tables that are inside another table."""
    if not isinstance(table, dict):
        return part_of(Measured, table)
    values = cast("dict[str, object]", table)
    inside = {name: parts_of(kind, values[name]) for name, kind in _INSIDE.items() if name in values}
    return part_of(Measured, {**values, **inside})
