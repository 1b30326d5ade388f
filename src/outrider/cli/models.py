"""Which models a command line means, and loading them. Knows no prompts' text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from outrider.cli.options import DraftOptions, EngineOptions
from outrider.cli.output import say
from outrider.cli.recipes import agreed, agreed_rule, find_models, load_recipe
from outrider.demo import bundled_pair
from outrider.errors import ParameterError
from outrider.recipe import Dtype, Limits, Rule
from outrider.request import Depth

if TYPE_CHECKING:  # the engine is imported when it runs, not when options are read
    from outrider.engine.llm import LLM
    from outrider.engine.memory import Ledger

# Tokens of earlier texts of the run that a learning suffix drafter keeps.
NUM_REMEMBERED = 65_536


class Models(NamedTuple):
    """What to load, and how much to draft.

    Attributes:
        drafts: folders or "suffix"; empty where nothing drafts but a prediction.
        learns: whether "suffix" also drafts from earlier outputs.
        depth: where a prompt does not say.
        is_plain: speculation is off, whatever a prompt says.
        max_children: of a draft's tokens.
        limits: of a recipe.
        dtype: that a recipe computes in, if that is not the checkpoints' own.
        rule: of a recipe's verification.
        max_temperature: above which a recipe drafts nothing.
    """

    target: str | Path
    drafts: tuple[str | Path, ...]
    learns: bool
    depth: Depth
    is_plain: bool
    max_children: int = 1
    limits: Limits = Limits()
    dtype: Dtype | None = None
    rule: Rule | None = None
    max_temperature: float | None = None

    def depth_at(self, temperature: float) -> Depth:
        """Of a prompt that does not say its own."""
        is_above = self.max_temperature is not None and temperature > self.max_temperature
        return 0 if is_above else self.depth

    def check_line(self, values: Mapping[str, Any], *, has_prediction: bool) -> None:
        """Hold a prompt's own depth and prediction against what the options say.

        Args:
            values: what the prompt says itself.
            has_prediction: its own, or that of all prompts.

        Raises:
            ParameterError: it asks for drafts that nobody makes, or brings what nobody would draft from.
        """
        depth: Depth = values.get("depth", self.depth)
        idle = {f"depth is {depth}": values.get("depth", 0) != 0, "there is a prediction": "prediction" in values}
        for words, is_given in idle.items():
            if self.is_plain and is_given:
                raise ParameterError(f"{words}, but speculation is off and drafts nothing: leave one of them out")
        if depth == 0 and "prediction" in values:
            raise ParameterError("prediction is there to be drafted from, but depth is 0: leave one of them out")
        if depth not in ("auto", 0) and not self.drafts and not has_prediction:
            raise ParameterError(f"depth {depth} needs a drafter, but there is none: add --draft DIR or --draft suffix")


def choose_models(
    options: DraftOptions,
    *,
    has_prediction: bool = False,
    may_predict: bool = False,
    by_default: tuple[str, ...] = (),
) -> Models:
    """What these options say together: the one answer for every verb.

    Args:
        options: a verb that lacks some leaves them at their defaults.
        has_prediction: whether there is --prediction.
        may_predict: whether prompts may bring predictions, which then may be all that drafts.
        by_default: what drafts for a target of the user's where no --draft is given.

    Raises:
        ParameterError: they contradict each other.
    """
    if options.recipe is not None:
        return _models_of_recipe(options.recipe, options, has_prediction=has_prediction)
    depth = options.asked_depth
    _refuse_contradictions(options, depth, has_prediction=has_prediction)
    target, drafts = _named(options, by_default)
    is_plain = options.speculation == "off"
    can_draft = bool(drafts) or has_prediction or may_predict
    if not can_draft and (options.speculation == "on" or depth not in (None, "auto", 0)):
        option = "--speculation on" if options.speculation == "on" else f"--depth {depth}"
        raise ParameterError(f"{option} needs a drafter, but there is none: add --draft DIR or --draft suffix")
    _check_learn(options, drafts)
    asked: Depth = "auto" if depth is None else depth
    return Models(
        target, () if is_plain else drafts, options.learn, 0 if is_plain else asked, is_plain, options.max_children or 1
    )


def _named(options: DraftOptions, by_default: tuple[str, ...]) -> tuple[str | Path, tuple[str | Path, ...]]:
    """Target and drafts, the bundled ones where no target is named."""
    given: tuple[str | Path, ...] = tuple(name for name in options.draft or () if name != "none")
    if options.target is not None:
        return options.target, given if options.draft else by_default
    pair = bundled_pair()
    return pair.target, given if options.draft else ("suffix", pair.draft)


def _check_learn(options: DraftOptions, drafts: Sequence[str | Path]) -> None:
    if options.learn and "suffix" not in drafts:
        raise ParameterError("--learn is for the suffix drafter, and it is not among the drafters: add --draft suffix")


def _models_of_recipe(path: Path, options: DraftOptions, *, has_prediction: bool) -> Models:
    given = {
        "--target": options.target is not None,
        "--draft": bool(options.draft),
        "--depth": options.depth is not None,
        "--max-children": options.max_children is not None,
        "--speculation": options.speculation is not None,
    }
    recipe = load_recipe(path, given)
    is_plain = not recipe.policy.speculate
    if is_plain and has_prediction:
        raise ParameterError(f"{path} says not to speculate, but there is --prediction: leave one of them out")
    found = find_models(recipe)
    _check_learn(options, found.drafts)
    return Models(
        target=found.target,
        drafts=found.drafts,
        learns=options.learn,
        depth=found.depth,
        is_plain=is_plain,
        max_children=found.max_children,
        limits=found.limits,
        dtype=found.dtype,
        rule=found.rule,
        max_temperature=found.max_temperature,
    )


def _refuse_contradictions(options: DraftOptions, depth: Depth | None, *, has_prediction: bool) -> None:
    names = options.draft or []
    if twice := {name for name in names if names.count(name) > 1}:
        raise ParameterError(f"--draft {min(twice)} is given twice: keep one of them")
    if "none" in names and len(names) > 1:
        other = next(name for name in names if name != "none")
        raise ParameterError(f"--draft none drafts nothing, but there is --draft {other}: leave one of them out")
    if (options.max_children or 1) > 1 and depth == 0:
        raise ParameterError(
            f"--max-children {options.max_children} says how drafts branch, but --depth 0 drafts nothing: "
            "leave one of them out"
        )
    if options.speculation == "on" and depth == 0:
        raise ParameterError("--depth 0 drafts nothing, but --speculation is on: leave one of them out")
    off = "--speculation off" if options.speculation == "off" else "--depth 0" if depth == 0 else None
    idle = {
        f"--depth is {depth}": depth not in (None, 0),
        "there is --learn": options.learn,
        "there is --prediction": has_prediction,
    }
    for words, is_given in idle.items():
        if off and is_given:
            raise ParameterError(f"{off} drafts nothing, but {words}: leave one of them out")


def load_llm(models: Models, options: EngineOptions, *, shows_table: bool, prepares: bool = True) -> tuple[LLM, Ledger]:
    """Say how much memory it will take, then take it; prepare unless it is for a single text.

    Raises:
        UsageError: a checkpoint cannot be used, or the memory does not suffice.
    """
    from outrider.engine.config import EngineConfig
    from outrider.engine.llm import LLM
    from outrider.engine.load import ledger_of
    from outrider.engine.memory import parse_memory
    from outrider.runtime.base import RuntimeOptions

    memory = None if options.memory is None else parse_memory(options.memory)
    batch = agreed("--batch", options.batch, models.limits.max_sequences)
    bounds: dict[str, Any] = {} if batch is None else {"max_sequences": batch}
    config = EngineConfig(
        runtime=options.runtime,
        device=options.device,
        verify=agreed_rule(options.verify, models.rule),
        exactness=options.exactness,
        max_children=models.max_children,
        options=RuntimeOptions(dtype=agreed("--dtype", options.dtype, models.dtype), num_threads=options.threads),
        prepares=prepares,
        memory_limit=agreed("--memory", memory, models.limits.memory_bytes),
        **bounds,
    )
    drafts = [_drafter(draft, models) for draft in models.drafts]
    ledger = ledger_of(models.target, drafts, config)
    assert ledger is not None, "nothing is loaded yet"
    say(f"memory: {ledger}")
    for line in _aligned(ledger.table()) if shows_table else ():
        say(f"  {line}")
    return LLM(models.target, draft=drafts, config=config), ledger


def _drafter(draft: str | Path, models: Models) -> Any:
    if draft != "suffix" or not models.learns:
        return draft
    from outrider.draft.suffix import SuffixDrafter

    return SuffixDrafter(num_remembered=NUM_REMEMBERED)


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """A small table: sizes stand to the right, words to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"{name:<{widths[0]}}  {size:>{widths[1]}}  {note}".rstrip() for name, size, note in rows]
