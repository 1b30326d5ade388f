"""`outrider audit` from beginning to end: load, write, judge, show, save. Knows the terminal; judges nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from outrider.audit.audit import Findings, audit
from outrider.audit.replay import Difference
from outrider.audit.texts import AuditPlan, Interruption, NamedPrompt
from outrider.audit.verdict import Status, Verdict, document_of, judge, largest_near_tie, num_near_ties, num_replayed
from outrider.bench.workloads import read_workloads
from outrider.cli import FAILED, INCONCLUSIVE, INTERRUPTED
from outrider.cli.interrupt import noted_interrupt
from outrider.cli.output import STDOUT, printable, save_json, tolerate_characters
from outrider.demo.prompts import PROMPTS
from outrider.engine.config import EngineConfig
from outrider.engine.llm import LLM

MAX_LISTED = 8
WORDS: Mapping[Status, str] = {
    "lossless": "lossless as far as tested",
    "difference": "DIFFERENCE FOUND",
    "inconclusive": "inconclusive",
}


def read_prompts(name: str | None) -> tuple[NamedPrompt, ...]:
    """Those of a file or a workload, or the demo's.

    Raises:
        UsageError: it cannot be read.
    """
    if name is None:
        return tuple(NamedPrompt(prompt.name, prompt.text) for prompt in PROMPTS)
    (workload,) = read_workloads([name])
    return tuple(NamedPrompt(prompt.name, prompt.text) for prompt in workload.prompts)


def load(target: str | Path, drafts: Sequence[str | Path], config: EngineConfig) -> LLM:
    """The target and its drafters.

    Raises:
        UsageError: a checkpoint cannot be used.
    """
    return LLM(target, draft=list(drafts), config=config)


def show_audit(load_llm: Callable[[], LLM], plan: AuditPlan, json: str | None) -> None:
    """Run it.

    Raises:
        UsageError: a model or a prompt cannot be used.
    """
    tolerate_characters()
    console = Console(stderr=json == STDOUT, highlight=False)
    progress = Console(stderr=True, highlight=False)
    with progress.status("loading the models") as status, noted_interrupt() as interrupted:
        llm = load_llm()

        def report(words: str) -> None:
            status.update(printable(words))

        findings = audit(llm, plan, Interruption(interrupted.is_set, report))
    verdict = judge(findings)
    document = {"engine": llm.describe(), **document_of(findings, verdict)}
    _show(console, findings, verdict, document)
    if json is not None:
        save_json(json, document)
    if verdict.status == "difference":
        raise typer.Exit(FAILED)
    if findings.is_partial:
        raise typer.Exit(INTERRUPTED)
    if verdict.status == "inconclusive":
        raise typer.Exit(INCONCLUSIVE)


def _show(console: Console, findings: Findings, verdict: Verdict, document: Mapping[str, Any]) -> None:
    console.print(_settings_table(document["settings"]))
    for line in (*_replay_lines(findings), *_test_lines(findings)):
        console.print(printable(line), markup=False, soft_wrap=True)
    console.print()
    level = document["level"] or document["engine"]["exactness"]
    console.print(f"{WORDS[verdict.status]}, level {level}", style="bold", markup=False)
    for reason in verdict.reasons:
        console.print(printable(f"- {reason}"), markup=False, soft_wrap=True)


def _settings_table(settings: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="What was written", title_justify="left", box=SIMPLE_HEAD)
    for name in ("drafter", "depth", "batch", "T"):
        table.add_column(name, no_wrap=True)
    for name in ("tokens", "accepted", "trees", "differ"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in settings:
        accepted = f"{row['num_accepted']:,}/{row['num_drafted']:,}" if row["num_drafted"] else ""
        table.add_row(
            printable(row["drafter"]), str(row["depth"]), str(row["batch"]), f"{row['temperature']:g}",
            f"{row['num_tokens']:,}", accepted, f"{row['num_branching']:,}" if row["num_branching"] else "",
            f"{row['num_differing']}/{row['num_texts']} texts",
        )  # fmt: skip
    return table


def _replay_lines(findings: Findings) -> Iterator[str]:
    if not findings.replayed:
        return
    yield (
        f"Chosen again: {num_replayed(findings):,} tokens of {len(findings.replayed)} different texts; rounding moved "
        f"logits by {findings.rounding.largest:.2g} at most."
    )
    differences = [(text, each) for text in findings.replayed for each in text.differences]
    differences.sort(key=lambda pair: (not pair[1].is_fault, -pair[1].margin))
    if (margin := largest_near_tie(findings)) is not None:
        yield f"  {num_near_ties(findings):,} near-ties that rounding explains, with margins up to {margin:.2g}"
    for text, each in differences[:MAX_LISTED]:
        yield f"  {each.kind}: {text.prompt} ({text.setting}), token {each.at}: {_details(each)}"
    if len(differences) > MAX_LISTED:
        yield f"  ... {len(differences) - MAX_LISTED:,} more in --json"


def _details(difference: Difference) -> str:
    if not math.isfinite(difference.margin):
        return "the text does not end where it must"
    chosen = "" if difference.chosen is None else f"{difference.emitted} emitted, {difference.chosen} chosen, "
    return f"{chosen}margin {difference.margin:.3g}, rounding explains {difference.bound:.2g}"


def _test_lines(findings: Findings) -> Iterator[str]:
    test = findings.test
    if not test.num_tokens:
        return
    threshold = -math.log(test.alpha)
    yield (
        f"Sequential test: {test.num_tokens:,} sampled tokens, log evidence {test.log_evidence:.2f}, at most "
        f"{test.peak:.2f}; {threshold:.2f} would refute the target's distribution at alpha {test.alpha:g}."
    )
    yield (
        f"  A fault that is worth less than {threshold / test.num_tokens:.2g} nats a token could not be seen in so few."
    )
    if findings.num_passed:
        yield f"  {findings.num_passed:,} tokens at the border of truncation were passed over."
