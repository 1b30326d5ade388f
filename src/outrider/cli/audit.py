"""`outrider audit`: is what speculation writes the target's own text? Knows options; what audits is imported then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from outrider.cli.models import Models, choose_models
from outrider.cli.options import VERIFY_HELP, DraftOptions, Dtype, RecipeFile, Verify, numbers, refuse_idle_options
from outrider.cli.output import check_json_target
from outrider.cli.recipes import agreed, agreed_rule
from outrider.errors import ParameterError
from outrider.request import MAX_SEED, SamplingParams

if TYPE_CHECKING:  # the audit is imported when it runs, not when options are read
    from outrider.audit.texts import AuditPlan

MAX_BATCH = 256
BATCHES = (1, 8)
MAX_TOKENS = 96

# Plain help, as in app.py.
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    target: Annotated[str | None, typer.Option(metavar="DIR", help="Whose text it is. [bundled]")] = None,
    draft: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR|suffix|none", help="What drafts; repeatable. [suffix; bundled: its draft too]"),
    ] = None,
    recipe: RecipeFile = None,
    prompts: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="*.jsonl, *.txt, a workload. [bundled]")
    ] = None,
    temperature: Annotated[str, typer.Option(metavar="T,T", help="0 is greedy.")] = "0,1",
    top_k: Annotated[int, typer.Option(help="Keep this many of the likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep tokens this fraction as likely as the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: against tokens of prompt and text.")] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="Above 0: against tokens of the text.")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option(help="The same, each time that they occur.")] = 0.0,
    batch: Annotated[str | None, typer.Option(metavar="N,N", help="Texts written at once. [1,8]")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a text at most. [96; block: to decide]")] = None,
    verify: Annotated[Verify | None, typer.Option(help=VERIFY_HELP)] = None,
    max_children: Annotated[int | None, typer.Option(min=1, help="Guesses at one place: above 1, trees. [1]")] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the first text's noise.")] = 0,
    alpha: Annotated[float, typer.Option(help="Probability that a sound engine is accused of its samples.")] = 1e-3,
    dtype: Annotated[Dtype | None, typer.Option(help="To compute in. [the checkpoint's]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="To compute with. [one per core]")] = None,
    runtime: Annotated[Literal["openvino", "torch"], typer.Option(help="What computes.")] = "openvino",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where; cuda needs --runtime torch.")] = "cpu",
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save what was found; -: to stdout.")] = None,
) -> None:
    """Find out whether speculation changes a text: other drafters, other company, and every token chosen again.

    Exits with 0 if it is lossless as far as tested, 1 if there is a difference, 2 for a mistake in what was asked, and
    3 if nothing can be said yet; then it says what would decide. 70 is an audit that broke off.
    """
    if context.invoked_subcommand is not None:
        refuse_idle_options(context)
        return
    models = _choose(recipe, target, draft, max_children)
    rule = agreed_rule(verify, models.rule)
    params = SamplingParams(
        temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
        max_tokens=max_tokens or MAX_TOKENS,
    )  # fmt: skip
    temperatures = numbers("--temperature", temperature, float, lambda number: SamplingParams(temperature=number))
    batches = _batches(batch, models.limits.max_sequences)
    check_json_target(json)

    from outrider.audit.texts import AuditPlan
    from outrider.cli.audit_show import load, read_prompts, show_audit
    from outrider.engine.config import EngineConfig
    from outrider.runtime.base import RuntimeOptions

    plan = AuditPlan(
        prompts=read_prompts(prompts), params=params, temperatures=temperatures, batches=batches, seed=seed,
        alpha=alpha, depth=models.depth,
    )  # fmt: skip
    plan = _settled(plan, models, rule, is_length_open=max_tokens is None)
    config = EngineConfig(
        runtime=runtime, device=device, verify=rule, max_children=models.max_children,
        options=RuntimeOptions(dtype=agreed("--dtype", dtype, models.dtype), num_threads=threads),
        max_sequences=models.limits.max_sequences or max(16, *batches), memory_limit=models.limits.memory_bytes,
    )  # fmt: skip
    show_audit(lambda: load(models.target, models.drafts, config), plan, json)


@app.command("verifier")
def verifier_command(
    name: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="A verifier of yours, importable from here.")],
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save what was found; -: to stdout.")] = None,
) -> None:
    """Certify a verifier: enumerate every choice it may make, in exact fractions, and compare with the target.

    Exits with 0 if the distance is exactly 0, and with 1 if it is not.
    """
    check_json_target(json)

    from outrider.cli.audit_verifier import show_certificate

    show_certificate(name, json)


def _choose(recipe: Path | None, target: str | None, draft: list[str] | None, max_children: int | None) -> Models:
    """What is audited; where nothing is said of drafters, suffix is one.

    Raises:
        UsageError: options contradict each other or the recipe, or the recipe cannot be used.
    """
    options = DraftOptions(recipe=recipe, target=target, draft=draft, max_children=max_children)
    models = choose_models(options, by_default=("suffix",))
    if models.is_plain:
        raise ParameterError(f"{recipe} says not to speculate, so there is nothing to audit: name a drafter by hand")
    return models


def _batches(text: str | None, most: int | None) -> tuple[int, ...]:
    """Texts at once; a recipe may say how many there are at most."""
    if text is None:
        return BATCHES if most is None else tuple(dict.fromkeys(min(each, most) for each in BATCHES))
    found = numbers("--batch", text, int, _check_batch)
    if most is not None and max(found) > most:
        raise ParameterError(f"--batch is {text}, but --recipe says {most} at most: lower it, or edit the recipe")
    return found


def _settled(plan: AuditPlan, models: Models, rule: Verify, *, is_length_open: bool) -> AuditPlan:
    """The plan, with a length that can decide where none was asked for, before anything is loaded.

    Raises:
        ParameterError: it takes chance that there is not.
    """
    from outrider.audit.texts import PLAIN, TOGETHER, num_seeds
    from outrider.audit.verdict import decisive_length

    drafters = [PLAIN, *map(str, models.drafts), TOGETHER] if models.drafts else [PLAIN]
    count = num_seeds(plan, drafters, is_seeded=rule == "coupled")
    if not 0 < plan.alpha < 1:
        raise ParameterError(f"--alpha is {plan.alpha}, but must be between 0 and 1")
    if plan.seed + count - 1 > MAX_SEED:
        raise ParameterError(
            f"--seed is {plan.seed}, but it takes {count} seeds from there on, of which the last may be {MAX_SEED}: "
            "lower it"
        )
    if rule == "coupled" or not is_length_open:
        return plan
    # Without seeds to replay, evidence is how many tokens were sampled.
    return replace(plan, params=replace(plan.params, max_tokens=decisive_length(plan, drafters)))


def _check_batch(number: int) -> None:
    if not 1 <= number <= MAX_BATCH:
        raise ParameterError(f"--batch is {number}, but must be between 1 and {MAX_BATCH}")
