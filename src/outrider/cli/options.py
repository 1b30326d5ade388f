"""The options of `outrider run`, by what they are about. Knows how they are written, not what comes of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from outrider.errors import ParameterError, UsageError
from outrider.request import MAX_DEPTH, Depth, SamplingParams

Switch = Literal["on", "off"]
Dtype = Literal["float32", "bfloat16"]
Verify = Literal["coupled", "block"]
VERIFY_HELP = "coupled: same seed, same text; block: more accepted at high temperature, same distribution. [coupled]"
Level = Literal["bitwise", "seed"]
Number = TypeVar("Number", int, float)
BATCH_SUFFIX = ".jsonl"
RecipeFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A recipe.toml, for models, depth, verification and limits.")
]


def as_depth(text: str) -> Depth:
    """Of "auto" or a number.

    Raises:
        ParameterError: it is neither, or out of range.
    """
    if text == "auto":
        return "auto"
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and int(text) <= MAX_DEPTH:
        return int(text)
    raise ParameterError(f"--depth is {text!r}, but must be auto or a whole number between 0 and {MAX_DEPTH}")


def numbers(option: str, text: str, kind: type[Number], check: Callable[[Number], object]) -> tuple[Number, ...]:
    """An option's numbers, separated by commas, each once.

    Raises:
        ParameterError: one is none, or `check` refuses it.
    """
    found: list[Number] = []
    for part in text.split(","):
        try:
            found.append(kind(part))
        except ValueError as error:
            example = "1,4,8" if kind is int else "0,0.7,1"
            raise ParameterError(f"{option} is {text!r}, but must be numbers such as {example}") from error
        check(found[-1])
    if len(set(found)) < len(found):
        raise ParameterError(f"{option} is {text!r}, which holds a number twice: keep one of them")
    return tuple(found)


def refuse_idle_options(context: typer.Context) -> None:
    """Raise UsageError for options of a verb that stand before one of its own verbs, which does not know them."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} stands before {context.invoked_subcommand}, which takes its options after its name")


def _checked(depth: str | None) -> str | None:
    """For typer, which looks at options before anything runs."""
    if depth is not None:
        as_depth(depth)
    return depth


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """What the text goes on from."""

    argument: Annotated[str | None, typer.Argument(metavar="PROMPT", help="The text to continue.")] = None
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text to continue.")] = None
    prompt_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"With the text, UTF-8; *{BATCH_SUFFIX}: many prompts.")
    ] = None
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt into the target's chat template.")] = False
    prediction: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text that the output may resemble, to draft from.")
    ] = None

    @property
    def batch_file(self) -> Path | None:
        """The file of many prompts, if there is one."""
        is_batch = self.prompt_file is not None and self.prompt_file.suffix.lower() == BATCH_SUFFIX
        return self.prompt_file if is_batch else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftOptions:
    """Whose text it is, and what drafts."""

    recipe: RecipeFile = None
    target: Annotated[str | None, typer.Option(metavar="DIR", help="Whose text it is. [bundled]")] = None
    draft: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR|suffix|none", help="What drafts; repeatable, cheapest first. [bundled, or none]"),
    ] = None
    learn: Annotated[bool, typer.Option("--learn", help="Let suffix draft from this run's other texts too.")] = False
    depth: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Tokens to draft a step. [auto]", callback=_checked),
    ] = None
    max_children: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Guesses at one place: above 1, drafts may be trees. [1]")
    ] = None
    speculation: Annotated[
        Switch | None, typer.Option(help="off: plain decoding, the same text; on: refuse to go without a drafter.")
    ] = None

    @property
    def asked_depth(self) -> Depth | None:
        """Of --depth, where it is given."""
        return None if self.depth is None else as_depth(self.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How the target samples, and when a text ends: the fields of `SamplingParams`."""

    max_tokens: Annotated[int, typer.Option(help="Length of the text at most.")] = 128
    min_tokens: Annotated[int, typer.Option(help="Length that no end token and no stop text may undercut.")] = 0
    n: Annotated[int, typer.Option("-n", metavar="N", help="Texts of each prompt, each with noise of its own.")] = 1
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0
    top_k: Annotated[int, typer.Option(help="Keep this many of the likeliest tokens; 0: all.")] = 0
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = 1.0
    min_p: Annotated[float, typer.Option(help="Keep tokens this fraction as likely as the likeliest.")] = 0.0
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: against tokens of prompt and text.")] = 1.0
    presence_penalty: Annotated[float, typer.Option(help="Above 0: against tokens of the text.")] = 0.0
    frequency_penalty: Annotated[float, typer.Option(help="The same, each time that they occur.")] = 0.0
    logit_bias: Annotated[
        list[str] | None, typer.Option(metavar="ID=VALUE", help="Add to this token's logit; repeatable.")
    ] = None
    bad_word: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Never write this; repeatable.")] = None
    seed: Annotated[int | None, typer.Option(help="Same seed, same text. [a fresh one]")] = None
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; repeatable.")] = None
    stop_token_id: Annotated[list[int] | None, typer.Option(metavar="ID", help="End with this token; repeatable.")] = (
        None
    )
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Write on after the model's end token.")] = False
    log_probs: Annotated[
        int | None, typer.Option(metavar="N", help="Each token's log-probability and the N likeliest, in the JSON.")
    ] = None

    def params(self) -> SamplingParams:
        """The same for the engine.

        Raises:
            ParameterError: a value is out of its range, or no value.
        """
        same = {name: getattr(self, name) for name in _SAME_NAMES}
        return SamplingParams(
            **same,
            logit_bias=_biases(self.logit_bias or ()),
            bad_words=tuple(self.bad_word or ()),
            stop=tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_id or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What computes, and within which bounds."""

    batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Texts written at once, at most. [16]")] = None
    memory: Annotated[str | None, typer.Option(metavar="LIMIT", help="Not to be passed: 2GiB, 800MB, bytes.")] = None
    verify: Annotated[Verify | None, typer.Option(help=VERIFY_HELP)] = None
    dtype: Annotated[Dtype | None, typer.Option(help="To compute in. [the checkpoint's]")] = None
    threads: Annotated[int | None, typer.Option(min=1, help="To compute with. [one per core]")] = None
    exactness: Annotated[
        Level | None, typer.Option(help="bitwise: or refuse; seed: spare its price. [bitwise where it is found]")
    ] = None
    runtime: Annotated[Literal["openvino", "torch"], typer.Option(help="What computes.")] = "openvino"
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where; cuda needs --runtime torch.")] = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What is said of it."""

    explain: Annotated[
        bool, typer.Option("--explain", help="Say how much was drafted, why, and what took time and memory.")
    ] = False
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save the result; -: to stdout, no text.")] = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose options are the fields of the dataclasses that `command` takes."""
    groups: dict[str, Any] = get_type_hints(command)
    del groups["return"]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        command(**{name: group(**_part(values, group)) for name, group in groups.items()})

    parameters = [parameter for group in groups.values() for parameter in _parameters(group)]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # typer reads the signature, not the function.
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    return run


_RENAMED = {"bad_words", "stop_token_ids"}
_PARSED = {"logit_bias", "stop"}
_SAME_NAMES = [field.name for field in dataclasses.fields(SamplingParams) if field.name not in _RENAMED | _PARSED]


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    annotations = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotations[field.name]
        )


def _part(values: Mapping[str, Any], group: Any) -> dict[str, Any]:
    return {field.name: values[field.name] for field in dataclasses.fields(group)}


def _biases(texts: Sequence[str]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for text in texts:
        match = re.fullmatch(r"(\d{1,18})=([-+]?[\d.]+(?:[eE][-+]?\d+)?)", text, re.ASCII)
        try:
            token_id, value = (int(match[1]), float(match[2])) if match else (None, 0.0)
        except ValueError:
            token_id, value = None, 0.0
        if token_id is None:
            raise ParameterError(f"--logit-bias is {text!r}, but must be ID=VALUE, a token id and a number: 42=-1.5")
        if token_id in biases:
            raise ParameterError(f"--logit-bias is given twice for token {token_id}: keep one of them")
        biases[token_id] = value
    return biases
