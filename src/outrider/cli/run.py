"""`outrider run`: continue one prompt or many. Knows options; the engine is imported when they prove sound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from outrider.cli import INTERRUPTED
from outrider.cli.jobs import Defaults, Job, open_jobs
from outrider.cli.models import choose_models, load_llm
from outrider.cli.options import (
    DraftOptions,
    EngineOptions,
    OutputOptions,
    PromptOptions,
    SamplingOptions,
    with_options,
)
from outrider.cli.output import (
    STDOUT,
    TextsWriter,
    as_document,
    asked_document,
    check_json_target,
    run_document,
    save_json,
    say,
    summary,
)
from outrider.cli.prompt import Chat, read_prediction, read_prompt, refuse_several_prompts
from outrider.errors import NumericsError, ParameterError
from outrider.request import SamplingParams

if TYPE_CHECKING:
    from outrider.engine.llm import LLM, Generation


@with_options
def run(
    prompts: PromptOptions,
    drafts: DraftOptions,
    sampling: SamplingOptions,
    engine: EngineOptions,
    output: OutputOptions,
) -> None:
    """Continue a prompt, given as an argument, an option, a file or on stdin; or each prompt of a .jsonl file.

    The text goes to stdout as it comes, a line about it to stderr. Without --target, the bundled pair writes Python.
    A line of a .jsonl file is an object with prompt, messages or token_ids, and perhaps id, depth, prediction or
    sampling parameters, for which the options are the defaults; its text is a line of JSON on stdout.
    """
    params = sampling.params()
    if prompts.batch_file is not None:
        _run_batch(prompts, drafts, params, engine, output)
        return
    text = read_prompt(prompts.argument, prompts.prompt, prompts.prompt_file)
    prediction = read_prediction(prompts.prediction)
    _refuse_idle(params, output)
    models = choose_models(drafts, has_prediction=prediction is not None)
    check_json_target(output.json)
    llm, ledger = load_llm(models, engine, shows_table=output.explain, prepares=False)
    job = Job(
        index=0,
        place="the prompt",
        id=None,
        prompt=Chat.of(text) if prompts.chat else text,
        params=params,
        depth=models.depth_at(params.temperature),
        prediction=prediction,
    )
    began = time.perf_counter()
    generations, is_complete = _generate(llm, job, is_muted=output.json == STDOUT)
    if output.json is not None:
        sequences = [asked_document(job) | as_document(generation, llm.tokenizer) for generation in generations]
        save_json(output.json, run_document(llm, ledger, sequences, time.perf_counter() - began))
    _report(llm, generations, explains=output.explain)
    if error := next((each.error for each in generations if each.error is not None), None):
        raise NumericsError(error)
    if not is_complete:
        raise typer.Exit(INTERRUPTED)


def _run_batch(
    prompts: PromptOptions,
    drafts: DraftOptions,
    params: SamplingParams,
    engine: EngineOptions,
    output: OutputOptions,
) -> None:
    assert prompts.batch_file is not None
    refuse_several_prompts(prompts.argument, prompts.prompt, prompts.batch_file)
    prediction = read_prediction(prompts.prediction)
    models = choose_models(drafts, has_prediction=prediction is not None)
    check_json_target(output.json)
    defaults = Defaults(params=params, models=models, is_chat=prompts.chat, prediction=prediction)
    with open_jobs(prompts.batch_file, defaults) as jobs:
        llm, ledger = load_llm(models, engine, shows_table=output.explain)
        from outrider.cli.batch import run_batch

        is_complete = run_batch(llm, ledger, jobs, output)
    if not is_complete:
        raise typer.Exit(INTERRUPTED)


def _refuse_idle(params: SamplingParams, output: OutputOptions) -> None:
    """What would have no effect is a mistake. A batch has lines of its own, for which it may have one."""
    if params.temperature == 0 and (params.top_k, params.top_p, params.min_p) != (0, 1.0, 0.0):
        raise ParameterError(
            "--top-k, --top-p and --min-p have no use at --temperature 0, which is greedy: raise it, or leave them out"
        )
    if params.log_probs is not None and output.json is None:
        raise ParameterError("--log-probs are in the JSON result only: add --json FILE, or --json - for stdout")


def _generate(llm: LLM, job: Job, *, is_muted: bool) -> tuple[list[Generation], bool]:
    """Run to the end, or to the step during which Ctrl-C came."""
    from outrider.cli.drive import Drive

    sink = TextsWriter(job.params.n, is_muted=is_muted)
    is_complete = Drive(llm, sink).run([job])
    return sink.generations, is_complete


def _report(llm: LLM, generations: list[Generation], *, explains: bool) -> None:
    from outrider.cli.explain import explain, explain_costs

    for generation in generations:
        name = f"text {generation.stream + 1}: " if len(generations) > 1 else ""
        for line in (summary(generation), *(explain(generation) if explains else ())):
            say(name + line)
    for line in explain_costs(llm.policy.describe()) if explains else ():
        say(line)
