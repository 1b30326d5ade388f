"""`outrider run`: continue one prompt. Knows options; the engine is imported when they are known to be sound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from outrider.cli import INTERRUPTED
from outrider.cli.interrupt import noted_interrupt
from outrider.cli.output import STDOUT, TextWriter, as_document, check_json_target, save_json, summary
from outrider.cli.prompt import read_prompt
from outrider.demo import bundled_pair
from outrider.errors import ParameterError
from outrider.request import MAX_DEPTH, SamplingParams

if TYPE_CHECKING:
    from outrider.engine.llm import LLM, Generation, Prompt

Switch = Literal["on", "off"]
Dtype = Literal["float32", "bfloat16"]


def run(
    argument: Annotated[str | None, typer.Argument(metavar="PROMPT", help="The text to continue.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text to continue.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A UTF-8 file with the text.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt into the target's chat template.")] = False,
    target: Annotated[str | None, typer.Option(metavar="DIR", help="Whose text it is. [bundled]")] = None,
    draft: Annotated[
        str | None, typer.Option(metavar="DIR|suffix|none", help="What drafts. [bundled, or none]")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Tokens to draft a step. [4]")] = None,
    speculation: Annotated[Switch | None, typer.Option(help="off: plain decoding; the same text.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Length of the text at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Keep this many of the likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep tokens this fraction as likely as the likeliest.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text. [a fresh one]")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; repeatable.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="To compute in. [the checkpoint's]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="To compute with. [one per core]")] = None,
    runtime: Annotated[Literal["openvino", "torch"], typer.Option(help="What computes.")] = "openvino",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where; cuda needs --runtime torch.")] = "cpu",
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save the result; -: to stdout, no text.")] = None,
) -> None:
    """Continue a prompt, given as an argument, an option, a file or on stdin.

    The text goes to stdout as it comes, one line about it to stderr. Without --target, the bundled pair writes Python.
    """
    text = read_prompt(argument, prompt, prompt_file)
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop or ()),
        max_tokens=max_tokens,
    )
    _refuse_idle_truncation(params)
    models = _choose_models(target, draft, depth, speculation)
    check_json_target(json)

    from outrider.engine.config import EngineConfig
    from outrider.engine.llm import LLM
    from outrider.runtime.base import RuntimeOptions

    options = RuntimeOptions(dtype=dtype, num_threads=threads)
    llm = LLM(models.target, draft=models.draft, config=EngineConfig(runtime=runtime, device=device, options=options))
    writer = TextWriter(is_muted=json == STDOUT)
    generation = _generate(llm, _as_prompt(llm, text, chat=chat), params, models.depth, writer)
    if json is not None:
        save_json(json, {"engine": llm.describe(), "sequences": [as_document(generation)]})
    print(summary(generation), file=sys.stderr)  # noqa: T201 - to the user
    if generation.finish_reason == "cancelled":
        raise typer.Exit(INTERRUPTED)


class _Models(NamedTuple):
    """What to load, and how deep to draft where that was said."""

    target: str | Path
    draft: str | Path | None
    depth: int | None


def _choose_models(target: str | None, draft: str | None, depth: int | None, speculation: Switch | None) -> _Models:
    """What these options say together.

    Raises:
        ParameterError: they contradict each other.
    """
    if depth is not None and not 0 <= depth <= MAX_DEPTH:
        raise ParameterError(f"--depth is {depth}, but must be between 0 and {MAX_DEPTH}")
    if speculation == "off" and depth:
        raise ParameterError(f"--speculation off drafts nothing, but --depth is {depth}: leave one of them out")
    if speculation == "on" and depth == 0:
        raise ParameterError("--depth 0 drafts nothing, but --speculation is on: leave one of them out")
    target_model: str | Path | None = target
    draft_model: str | Path | None = draft
    if target_model is None:
        pair = bundled_pair()
        target_model, draft_model = pair.target, draft or (pair.draft if speculation != "off" else None)
    if draft_model in (None, "none") and (speculation == "on" or depth):
        option = "--speculation on" if speculation == "on" else f"--depth {depth}"
        raise ParameterError(f"{option} needs a drafter, but there is none: add --draft DIR or --draft suffix")
    return _Models(target_model, draft_model, 0 if speculation == "off" else depth)


def _refuse_idle_truncation(params: SamplingParams) -> None:
    if params.temperature == 0 and (params.top_k, params.top_p, params.min_p) != (0, 1.0, 0.0):
        raise ParameterError(
            "--top-k, --top-p and --min-p have no use at --temperature 0, which is greedy: raise it, or leave them out"
        )


def _as_prompt(llm: LLM, text: str, *, chat: bool) -> Prompt:
    if not chat or llm.tokenizer is None:
        return text
    from outrider.model.chat import render

    messages = [{"role": "user", "content": text}]
    rendered = render(llm.tokenizer.chat_template, messages, llm.tokenizer.special_tokens)
    return llm.tokenizer.encode(rendered, add_special_tokens=False)


def _generate(llm: LLM, prompt: Prompt, params: SamplingParams, depth: int | None, writer: TextWriter) -> Generation:
    """Run to the end, or to the step during which Ctrl-C came."""
    from outrider.engine.llm import DEFAULT_DEPTH

    sequence = llm.start(prompt, params, depth=DEFAULT_DEPTH if depth is None else depth)
    pieces: list[str] = []
    with noted_interrupt() as interrupted:
        while sequence.finish_reason is None:
            cancelled = llm.engine.cancel(sequence.request.request_id) if interrupted.is_set() else None
            for delta in [cancelled] if cancelled else llm.engine.step():
                pieces.append(delta.text)
                writer.write(delta.text)
    writer.finish()
    return llm.generation(sequence, "".join(pieces))
