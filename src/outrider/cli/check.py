"""`outrider check`: does speculation pay here, with which drafter, how much, and why. Knows options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli.bench import check_concurrency
from outrider.cli.models import Models, choose_models
from outrider.cli.options import DraftOptions, numbers
from outrider.errors import ParameterError
from outrider.request import SamplingParams

if TYPE_CHECKING:
    from outrider.check.prompts import CheckPrompt


def check(
    target: Annotated[str | None, typer.Option(metavar="DIR", help="Whose text it is. [bundled]")] = None,
    draft: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR|suffix", help="What may draft; repeatable. suffix is tried anyway. [bundled]"),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your prompts, one JSON object a line. [bundled]")
    ] = None,
    temperature: Annotated[str, typer.Option(metavar="T,T", help="0 is greedy.")] = "0,1",
    concurrency: Annotated[str, typer.Option(metavar="N,N", help="Texts written at once.")] = "1,2,4,8",
    context: Annotated[str, typer.Option(metavar="N,N", help="Tokens at which forwards are timed.")] = "512,4096",
    memory: Annotated[str | None, typer.Option(metavar="LIMIT", help="Memory allowed, such as 2GiB.")] = None,
    verify: Annotated[bool, typer.Option(help="Put the prediction to the test.")] = True,
    budget: Annotated[str, typer.Option(metavar="TIME", help="How long it may take: 90s, 5m.")] = "3m",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html, check.json and recipe.toml there.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was found as JSON on stdout.")] = False,
    include_prompts: Annotated[bool, typer.Option("--include-prompts", help="Prompts and outputs go into files.")] = (
        False
    ),
) -> None:
    """Measure, predict and say whether speculation pays here, and how to set it up; which may be: do not.

    Without options it looks at the bundled pair. Ctrl-C ends it early; what was measured is shown.
    docs/speculative-decoding.md explains the method with your own pair as the example, docs/check.md what is measured.
    """
    from outrider.check.budget import parse_seconds
    from outrider.engine.memory import parse_memory

    temperatures = numbers("--temperature", temperature, float, lambda each: SamplingParams(temperature=each))
    concurrencies = tuple(sorted(numbers("--concurrency", concurrency, int, check_concurrency)))
    contexts = numbers("--context", context, int, _check_context)
    seconds = parse_seconds(budget)
    memory_limit = None if memory is None else parse_memory(memory)
    models = _choose(target, draft)
    chosen = _read(prompts)

    from outrider.check.checklist import CheckPlan
    from outrider.cli.check_show import Outputs, show_check

    plan = CheckPlan(
        target=models.target,
        drafts=models.drafts,
        prompts=tuple(chosen),
        is_own=prompts is not None,
        temperatures=temperatures,
        concurrencies=concurrencies,
        contexts=contexts,
        memory_limit=memory_limit,
        verify=verify,
        includes_prompts=include_prompts,
    )
    show_check(plan, seconds, Outputs(out, json))


def _read(prompts: Path | None) -> list[CheckPrompt]:
    from outrider.check.prompts import bundled_prompts, read_prompts

    return bundled_prompts() if prompts is None else read_prompts(prompts)


def _choose(target: str | None, draft: list[str] | None) -> Models:
    """Target and drafts. The suffix drafter costs nothing and is tried anyway; plain decoding is what is compared."""
    models = choose_models(DraftOptions(target=target, draft=draft))
    if "none" in (draft or ()):
        raise ParameterError(
            "--draft none drafts nothing, and plain decoding is what all is compared with: leave it out"
        )
    return models._replace(drafts=tuple(name for name in models.drafts if name != "suffix"))


def _check_context(number: int) -> None:
    if not 1 <= number <= 1_000_000:
        raise ParameterError(f"--context is {number}, but must be between 1 and 1000000 tokens")
