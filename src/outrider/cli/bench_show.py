"""`outrider bench` from beginning to end: load, measure, show, save. Knows the terminal; measures nothing itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outrider.bench.compare import BenchPlan, compare
from outrider.bench.groups import Interruption
from outrider.bench.machine import machine_to_ourselves
from outrider.bench.pairs import PAIR_FILE, PairPlan, make_pair
from outrider.bench.provenance import check_writable, provenance, to_json, write_json
from outrider.bench.report import check_report, write_report
from outrider.bench.results import document_of, num_faults
from outrider.bench.workloads import ALL
from outrider.cli import FAILED, INTERRUPTED
from outrider.cli.bench_words import list_texts, milliseconds, ratio_words, say_waiting
from outrider.cli.interrupt import noted_interrupt
from outrider.cli.options import Level
from outrider.cli.output import STDOUT, printable, tolerate_characters
from outrider.demo import BundledPair
from outrider.engine.config import EngineConfig, VerifyName
from outrider.engine.llm import LLM
from outrider.model.checkpoint import resolve_checkpoint
from outrider.model.fields import Fields
from outrider.model.weights import fingerprint
from outrider.runtime.base import RuntimeOptions

MIN_SEQUENCES = 16  # what is not timed is written together


class Run(NamedTuple):
    """Where results go, what computes them, how drafts are made and verified, and what results must promise."""

    json: str | None
    html: Path | None
    num_threads: int | None
    verify: VerifyName
    exactness: Level | None = None
    max_children: int = 1


def show_bench(target: str | Path, drafts: Sequence[str | Path], plan: BenchPlan, run: Run) -> None:
    """Run it.

    Raises:
        UsageError: a model, a prompt or an output file cannot be used.
    """
    tolerate_characters()
    console = Console(stderr=run.json == STDOUT, highlight=False)
    progress = Console(stderr=True, highlight=False)
    if run.html is not None:
        check_report(run.html)
        check_writable(run.html)
    began = provenance()
    with progress.status("loading the models") as status:
        llm = load_ours(target, drafts, plan, run)
        models = identities(target, drafts)
        # Who still waits has measured nothing, so there Ctrl-C just ends.
        with machine_to_ourselves(lambda: say_waiting(progress, status)), noted_interrupt() as interrupted:
            comparison = compare(llm, plan, Interruption(interrupted.is_set, status.update))
    document = {
        "provenance": began,
        "models": models,
        "engine": llm.describe(),
        "memory_bytes": llm.memory(),
        **document_of(plan, comparison),
    }
    _show(console, document)
    _save(document, run)
    if num_faults(document):
        raise typer.Exit(FAILED)
    if comparison.is_partial:
        raise typer.Exit(INTERRUPTED)


def load_ours(target: str | Path, drafts: Sequence[str | Path], plan: BenchPlan, run: Run) -> LLM:
    """Our engine, as it is measured.

    Raises:
        UsageError: a model cannot be used.
    """
    config = EngineConfig(
        max_sequences=max(MIN_SEQUENCES, *plan.concurrencies),
        max_prefix_tokens=0,  # or a prompt that was seen before would look free
        options=RuntimeOptions(num_threads=run.num_threads),
        verify=run.verify,
        exactness=run.exactness,
        max_children=run.max_children,
    )
    return LLM(target, draft=[*drafts], config=config)


def identities(target: str | Path, drafts: Sequence[str | Path]) -> dict[str, Any]:
    """Which checkpoints were measured."""
    return {"target": _identity(target), "drafts": list(map(_identity, drafts))}


def _identity(model: str | Path) -> dict[str, Any]:
    """Which checkpoint that was, whatever its folder; a pair that was made says how."""
    if model == "suffix":
        return {"name": model}
    folder = resolve_checkpoint(model)
    pair = folder.parent / PAIR_FILE
    made: Mapping[str, Any] = Fields.read(pair).values if pair.is_file() else {}
    facts = {key: made[key] for key in ("agreement", "damping", "epsilon", "num_parameters") if key in made}
    return {"name": folder.name, "fingerprint": fingerprint(folder)} | ({"pair": facts} if facts else {})


def show_make_pair(source: BundledPair, out: Path, plan: PairPlan) -> None:
    """Make a pair, saying how far it is."""
    console = Console(stderr=True, highlight=False)
    with console.status("loading the models") as status:

        def report(words: str) -> None:
            status.update(words)
            if not console.is_terminal:
                console.print(words)

        document = make_pair(source, out, plan, report)
    greedy, sampled = (document["agreement"][name] for name in ("0.0", "1.0"))
    num_parameters = document["num_parameters"]["target"]
    console.print(
        f"{out}: a target of {num_parameters:,} parameters; its draft agrees on {greedy:.3f} of its greedy tokens "
        f"and {sampled:.3f} at temperature 1 (damping {document['damping']:.4f})",
        soft_wrap=True,
        markup=False,
    )


def _show(console: Console, document: Mapping[str, Any]) -> None:
    if document["is_partial"]:
        console.print("Interrupted: this is what was measured until then.", style="bold")
    console.print(_table(document["rows"]))
    if not any(row["speedup"] for row in document["rows"]):
        console.print("No speedup: no text was fit to be measured, or none was measured.", style="bold")
    memory = ", ".join(
        f"{name.replace('_', ' ')} {count / 1e6:.1f} MB" for name, count in document["memory_bytes"].items()
    )
    console.print(f"Memory: {memory}.", markup=False)
    list_texts(console, "Not measured:", document["invalid"], lambda text: text["why"])
    list_texts(
        console,
        "Measured up to where they begin to repeat themselves:",
        [text for text in document["loops"] if not _is_in(text, document["invalid"])],
        lambda text: f"{text['period']} tokens again and again from token {text['start']} on",
    )
    list_texts(
        console,
        "DIFFERENT from what plain decoding wrote, and in no ratio:",
        document["differences"],
        lambda text: f"{text['side']}, {text['concurrency']} at once, from token {text['at_token']} on",
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Speculation against plain decoding",
        title_justify="left",
        caption="speedup: median [95 % interval over prompts]; ms to the first and for each\nfurther token: plain, "
        "speculative",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("workload", overflow="fold", min_width=8)
    for heading in ("T", "at\nonce", "speedup", "tokens\na step", "ac-\ncepted", "first\nms", "further\nms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        name = [printable(row["workload"]), f"{row['temperature']:g}", str(row["concurrency"])]
        is_total = row["workload"] == ALL
        cells = _cells(row) if row["speedup"] else ["nothing measured"]
        table.add_row(*map(Text, [*name, *cells]), style="bold" if is_total else "", end_section=is_total)
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    plain, speculative = row["plain"], row["speculative"]
    rate = speculative["acceptance_rate"]
    return [
        ratio_words(row["speedup"]),
        f"{speculative['acceptance_length']:.2f}",
        "" if rate is None else f"{100 * rate:.0f} %",
        *(
            f"{milliseconds(plain[name])} {milliseconds(speculative[name])}"
            for name in ("first_token_seconds", "seconds_per_further_token")
        ),
    ]


def _is_in(text: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    keys = ("workload", "prompt", "temperature")
    return any(all(text[key] == other[key] for key in keys) for other in others)


def _save(document: Mapping[str, Any], run: Run) -> None:
    if run.html is not None:
        write_report(run.html, document)
    if run.json == STDOUT:
        sys.stdout.write(to_json(document))
    elif run.json is not None:
        write_json(Path(run.json), document)
