"""`outrider check` from beginning to end: measure, show, save. Knows the terminal; measures nothing itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outrider.bench.machine import machine_to_ourselves
from outrider.bench.provenance import check_writable, provenance, to_json, write_json, write_text
from outrider.check.budget import Budget
from outrider.check.checklist import Checklist, CheckPlan, refuse_same_names
from outrider.check.recipe import recipe_of
from outrider.check.report import page_of
from outrider.check.texts import Watch
from outrider.check.verdict import Verdict
from outrider.cli import FAILED, INTERRUPTED
from outrider.cli.interrupt import noted_interrupt
from outrider.cli.output import printable, tolerate_characters
from outrider.errors import UsageError
from outrider.model.checkpoint import resolve_checkpoint
from outrider.model.weights import fingerprint

FILES = ("report.html", "check.json", "recipe.toml")
COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}


class Outputs(NamedTuple):
    """Where results go: a folder, and stdout."""

    folder: Path | None
    is_json: bool


def show_check(plan: CheckPlan, seconds: float, outputs: Outputs) -> None:
    """Run it.

    Raises:
        UsageError: a model, a prompt or the folder cannot be used; nothing was written.
    """
    tolerate_characters()
    console = Console(stderr=outputs.is_json, highlight=False)
    progress = Console(stderr=True, highlight=False)
    refuse_same_names(plan.drafts)
    if outputs.folder is not None:
        _check_folder(outputs.folder)
    began = provenance()
    with progress.status("reading") as status:

        def report(words: str) -> None:
            status.update(words)
            phase = words.partition(":")[0]
            if not progress.is_terminal and phase not in said:
                progress.print(phase, markup=False)
                said.append(phase)

        said: list[str] = []
        # Who still waits has measured nothing, so there Ctrl-C just ends.
        with (
            machine_to_ourselves(lambda: report("waiting for another timed run to end")),
            noted_interrupt() as interrupted,
        ):
            checklist = Checklist(plan, Budget(seconds), Watch(interrupted.is_set, report))
            found, verdict = checklist.run()
    models = {"target": _identity(plan.target), "drafts": list(map(_identity, plan.drafts))}
    document: dict[str, Any] = {"provenance": began, "models": models, **found}
    _show(console, document)
    if outputs.folder is not None:
        _save(outputs.folder, document, verdict, plan)
    if outputs.is_json:
        sys.stdout.write(to_json(document))
    if document["is_partial"]:
        raise typer.Exit(INTERRUPTED)
    if any((item["name"], item["status"]) == ("lossless", "fail") for item in document["items"]):
        raise typer.Exit(FAILED)


def _identity(model: str | Path) -> dict[str, Any]:
    folder = resolve_checkpoint(model)
    return {"name": folder.name, "sha256": fingerprint(folder)}


def _check_folder(folder: Path) -> None:
    """Make sure that files can be written there later; nothing is left behind."""
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror}): name a folder that can be made") from error
    for name in FILES:
        check_writable(folder / name)
    if is_new:
        folder.rmdir()


def _save(folder: Path, document: Mapping[str, Any], verdict: Verdict, plan: CheckPlan) -> None:
    """Prompts go into the JSON only, and only where that was asked for."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "check.json", document)
    write_text(folder / "report.html", page_of(document))
    recipe = recipe_of(document, verdict, plan.target, plan.drafts)
    if recipe is not None:
        write_text(folder / "recipe.toml", recipe.toml())


def _show(console: Console, document: Mapping[str, Any]) -> None:
    if document["is_partial"]:
        console.print("Interrupted: this is what was measured until then.", style="bold")
    table = Table(title="The checklist", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("item", overflow="fold", max_width=20)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("held against", overflow="fold", max_width=30)
    for item in document["items"]:
        status = Text(item["status"], style=COLORS[item["status"]])
        cells = (Text(printable(item[name])) for name in ("name", "value", "threshold"))
        name, value, threshold = cells
        table.add_row(name, status, value, threshold)
    console.print(table)
    for item in document["items"]:
        if item["status"] != "pass":
            advice = f" {item['remedy'].capitalize()}." if item["remedy"] else ""
            _say(console, f"{item['name']}: {item['why']}.{advice}")
    verdict = document["verdict"]
    console.print()
    console.print(Text(printable(" ".join(verdict["sentences"]))), style="bold", soft_wrap=True)
    for number, step in enumerate(verdict["next_steps"], 1):
        _say(console, f"{number}. {step['do']} It might be wrong: {step['might_be_wrong']}")
    for line in verdict["uncertain"]:
        _say(console, f"Uncertain: {line}")


def _say(console: Console, text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)
