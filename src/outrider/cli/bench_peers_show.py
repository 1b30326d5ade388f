"""`outrider bench --peers` from beginning to end: load, measure, show, save. Knows the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outrider.bench.compare import BenchPlan
from outrider.bench.groups import Interruption
from outrider.bench.machine import machine_to_ourselves
from outrider.bench.peers.compare import compare_peers
from outrider.bench.peers.peer import PeerEngine, Work, load_peer
from outrider.bench.peers.report import write_peers_report
from outrider.bench.peers.results import num_differing, peers_document
from outrider.bench.peers.worker import GivenUpError, PeerError
from outrider.bench.provenance import check_writable, provenance, to_json, write_json
from outrider.bench.workloads import ALL, Workload
from outrider.cli import FAILED, INTERRUPTED
from outrider.cli.bench_peers import AskedPeers
from outrider.cli.bench_show import Run, identities, load_ours
from outrider.cli.bench_words import list_texts, ratio_words, say_waiting
from outrider.cli.interrupt import noted_interrupt
from outrider.cli.models import Models
from outrider.cli.output import STDOUT, printable, tolerate_characters
from outrider.engine.llm import LLM
from outrider.errors import UsageError
from outrider.model.checkpoint import resolve_checkpoint

Plans = tuple[BenchPlan, Sequence[Workload]]


def show_peers(asked: AskedPeers, models: Models, plans: Plans, run: Run) -> None:
    """Run it.

    Args:
        asked: which peers.
        models: what all of them load; peers draft with the first draft model, if there is one.
        plans: what to measure, and what settings are chosen by.
        run: where results go, and how ours computes.

    Raises:
        UsageError: a model, a prompt or an output file cannot be used, or there is no peer to measure.
    """
    tolerate_characters()
    console = Console(stderr=run.json == STDOUT, highlight=False)
    progress = Console(stderr=True, highlight=False)
    if run.html is not None:
        check_writable(run.html)
    began = provenance()
    plan, tuning = plans
    peers: list[PeerEngine] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [peer.close() for peer in peers])
        status = stack.enter_context(progress.status("loading the models"))
        llm = load_ours(models.target, models.drafts, plan, run)
        # Who still waits has measured nothing, so there Ctrl-C just ends.
        stack.enter_context(machine_to_ourselves(lambda: say_waiting(progress, status)))
        interruption = Interruption(stack.enter_context(noted_interrupt()).is_set, status.update)
        try:
            skipped = _load(asked, _work(llm, models, asked), peers, interruption)
        except GivenUpError:
            raise typer.Exit(INTERRUPTED) from None
        comparison = compare_peers(llm, peers, plan, tuning, interruption)
    num_faults = num_differing(comparison)
    document = {
        "provenance": began,
        "models": identities(models.target, models.drafts),
        "engine": llm.describe(),
        **peers_document(plan, comparison, {peer.name: peer.facts for peer in peers}, skipped),
        "num_differing": num_faults,
    }
    _show(console, document)
    _save(document, run)
    if num_faults:
        raise typer.Exit(FAILED)
    if comparison.is_partial:
        raise typer.Exit(INTERRUPTED)


def _work(llm: LLM, models: Models, asked: AskedPeers) -> Work:
    folders = [resolve_checkpoint(draft) for draft in models.drafts if draft != "suffix"]
    options = llm.target.options
    assert options.dtype is not None
    assert options.num_threads is not None
    return Work(
        target=resolve_checkpoint(models.target),
        draft=folders[0] if folders else None,
        dtype=options.dtype,
        num_threads=options.num_threads,
        pythons=asked.pythons,
    )


def _load(asked: AskedPeers, work: Work, peers: list[PeerEngine], interruption: Interruption) -> dict[str, str]:
    """Add those that can be loaded to `peers`; returns the others, and why not.

    Raises:
        UsageError: none can.
    """
    skipped: dict[str, str] = {}
    for name in asked.names:
        interruption.report(f"loading {name}: the first time, checkpoints are converted")
        try:
            peers.append(load_peer(name, work, interruption.is_wanted))
        except PeerError as error:
            skipped[name] = str(error)
    if not peers:
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UsageError(f"no peer can be measured: {why}")
    return skipped


def _show(console: Console, document: Mapping[str, Any]) -> None:
    def say(words: str) -> None:
        console.print(printable(words), markup=False, soft_wrap=True)

    if document["is_partial"]:
        console.print("Interrupted: this is what was measured until then.", style="bold")
    for peer in document["peers"]:
        say(f"{peer['name']} {peer['version']}" + (f": {peer['notes']}" if peer.get("notes") else ""))
    for peer in document["skipped"]:
        say(f"{peer['name']} is skipped: {peer['why']}")
    for peer in document["lost"]:
        say(f"{peer['name']} ended on the way: {peer['why']}")
    console.print(_table(document["rows"]))
    _show_faults(say, document)
    list_texts(console, "Not measured:", document["invalid"], lambda text: text["why"])
    if document["num_differing"]:
        words = f"DIFFERENT from what plain decoding wrote: {document['num_differing']} texts of ours."
        console.print(words, style="bold")


def _show_faults(say: Callable[[str], None], document: Mapping[str, Any]) -> None:
    rows = [row for row in document["rows"] if row["fault"]]
    for row in {(row["engine"], row["temperature"], row["concurrency"]): row for row in rows}.values():
        say(f"{row['engine']}, T = {row['temperature']:g}, {row['concurrency']} at once: {row['fault']}")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Outrider beside its peers",
        title_justify="left",
        caption="two lines: at the best setting, plain; tokens/s: prompts included; our ratio: a peer's\n"
        "seconds per token over ours, median [95 %]; same: texts that are the engine's own plain ones",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("workload", overflow="fold", min_width=8)
    for heading in ("T", "at\nonce"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("engine,\nbest setting", no_wrap=True)
    for heading in ("tokens/s", "our ratio", "same"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        name = [printable(row["workload"]), f"{row['temperature']:g}", str(row["concurrency"])]
        is_last = index + 1 == len(rows) or _place(rows[index + 1]) != _place(row)
        style = "bold" if row["workload"] == ALL else ""
        table.add_row(*map(Text, [*name, *_cells(row)]), style=style, end_section=is_last)
    return table


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["workload"], row["temperature"], row["concurrency"]


def _cells(row: Mapping[str, Any]) -> list[str]:
    if not row["num_texts"]:
        return [row["engine"], "nothing"]
    same = row["num_same_texts"]
    return [
        f"{row['engine']}\n{row['setting']}",
        f"{row['tokens_per_second']:.1f}\n{row['plain_tokens_per_second']:.1f}",
        "\n".join(ratio_words(row[name]) for name in ("ratio", "plain_ratio") if row[name]),
        "" if same is None else f"{same}/{row['num_texts']}",
    ]


def _save(document: Mapping[str, Any], run: Run) -> None:
    if run.html is not None:
        write_peers_report(run.html, document)
    if run.json == STDOUT:
        sys.stdout.write(to_json(document))
    elif run.json is not None:
        write_json(Path(run.json), document)
