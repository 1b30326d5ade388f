"""`outrider bench --url` from beginning to end: meet, measure, show, save. Knows the terminal."""

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

from outrider.bench.groups import Interruption
from outrider.bench.machine import machine_to_ourselves
from outrider.bench.provenance import check_writable, provenance, to_json, write_json
from outrider.bench.remote.compare import RemotePlan, Role, compare_servers
from outrider.bench.remote.completion import Asked
from outrider.bench.remote.endpoint import Endpoint
from outrider.bench.remote.report import write_remote_report
from outrider.bench.remote.results import remote_document
from outrider.bench.remote.server import Patience, Server, meet
from outrider.bench.remote.together import GivenUpError
from outrider.bench.workloads import ALL
from outrider.cli import INTERRUPTED
from outrider.cli.bench_words import list_texts, milliseconds, ratio_words, say_waiting
from outrider.cli.interrupt import noted_interrupt
from outrider.cli.output import STDOUT, printable, tolerate_characters

ROLES: tuple[Role, Role] = ("server", "against")


class Asking(NamedTuple):
    """Which servers, for which model, and whether prompts are messages in any case."""

    endpoints: list[Endpoint]
    model: str | None
    is_chat: bool


def show_servers(asking: Asking, plan: RemotePlan, json: str | None, html: Path | None) -> None:
    """Run it.

    Raises:
        UsageError: a server cannot be measured, or an output file cannot be written. What was measured until a server
            failed is shown and saved first.
    """
    tolerate_characters()
    console = Console(stderr=json == STDOUT, highlight=False)
    progress = Console(stderr=True, highlight=False)
    if html is not None:
        check_writable(html)
    began = provenance()
    with progress.status("meeting the server") as status:
        try:
            # Who still waits has measured nothing, so there Ctrl-C just ends.
            with machine_to_ourselves(lambda: say_waiting(progress, status)), noted_interrupt() as interrupted:
                interruption = Interruption(interrupted.is_set, status.update)
                servers = _meet(asking, plan, Patience(plan.timeout, interrupted.is_set))
                comparison = compare_servers(servers, plan, interruption)
        except GivenUpError:
            raise typer.Exit(INTERRUPTED) from None
    document = {"provenance": began, **remote_document(servers, plan, comparison)}
    _show(console, document)
    if html is not None:
        write_remote_report(html, document)
    if json == STDOUT:
        sys.stdout.write(to_json(document))
    elif json is not None:
        write_json(Path(json), document)
    if comparison.error is not None:
        raise comparison.error
    if comparison.is_partial:
        raise typer.Exit(INTERRUPTED)


def _meet(asking: Asking, plan: RemotePlan, patience: Patience) -> dict[Role, Server]:
    prompts = [prompt for workload in plan.workloads for prompt in workload.prompts]
    is_chat = asking.is_chat or any(prompt.messages for prompt in prompts)
    asked = Asked(prompts[0], plan.temperatures[0], plan.seed, plan.max_tokens)
    return {
        role: meet(endpoint, asking.model, asked, patience, is_chat=is_chat)
        for role, endpoint in zip(ROLES, asking.endpoints, strict=False)
    }


def _show(console: Console, document: Mapping[str, Any]) -> None:
    if document["is_partial"]:
        why = "A server failed" if document["error"] else "Interrupted"
        console.print(f"{why}: this is what was measured until then.", style="bold")
    for server in document["servers"]:
        counters = server["draft_counters"]
        what = "its tokens" if server["counts"] == "tokens" else "pieces, since it counts no tokens"
        drafts = f"{counters} counters of drafts" if counters else "no counters of drafts"
        line = f"{server['role']}: {server['model']} at {server['url']}{server['asked_at']}, {what}, {drafts}"
        console.print(printable(line), markup=False, soft_wrap=True)
    roles = [server["role"] for server in document["servers"]]
    console.print(_table(document["rows"], roles, document["ratio_per"]))
    rows = [row for row in document["rows"] if row["num_prompts"]]
    if not rows:
        console.print("No figure: no text was fit to be measured, or none was measured.", style="bold")
    if any(row[role]["cached_prompt_share"] for row in rows for role in roles):
        console.print("A server had prompts in its cache: times to the first token are of prompts seen before.")
    counted: list[Mapping[str, Any]] = [row[role]["drafts"] or {} for row in rows for role in roles]
    if any(each.get("has_others") for each in counted):
        console.print("Others asked a server meanwhile: its counters have their drafts, too.", style="bold")
    list_texts(console, "In no figure:", document["invalid"], lambda text: text["why"])
    list_texts(
        console,
        "Measured, where enough comes before, up to about where they begin to repeat themselves:",
        document["loops"],
        lambda text: f"{text['period']} words again and again from about token {text['start']} on",
    )


def _table(rows: Sequence[Mapping[str, Any]], roles: Sequence[str], unit: str) -> Table:
    has_two = len(roles) > 1
    ratio = f"ratio: seconds per further {unit}, against over server, median [95 %]; two lines:\nserver, against; "
    table = Table(
        title="Two servers against each other" if has_two else "A server's speed",
        title_justify="left",
        caption=(ratio if has_two else "medians [95 % interval over prompts]; ")
        + "whole: to the last token; tokens/s: all together",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("workload", overflow="fold", min_width=8)
    headings = ["T", "at\nonce", *(["ratio"] if has_two else []), "first\nms", "further\nms", "whole\nms"]
    for heading in (*headings, "tokens/s", "tokens\na step", "ac-\ncepted"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        name = [printable(row["workload"]), f"{row['temperature']:g}", str(row["concurrency"])]
        is_total = row["workload"] == ALL
        cells = _cells(row, roles) if row["num_prompts"] else ["nothing"]
        table.add_row(*map(Text, [*name, *cells]), style="bold" if is_total else "", end_section=is_total)
    return table


def _cells(row: Mapping[str, Any], roles: Sequence[str]) -> list[str]:
    sides = [row[role] for role in roles]
    cells = [ratio_words(row["ratio"])] if len(roles) > 1 else []
    for name in ("first_token_seconds", "seconds_per_further_token", "last_token_seconds"):
        has_interval = len(roles) == 1 and name == "seconds_per_further_token"
        cells.append("\n".join(_interval(side[name]) if has_interval else milliseconds(side[name]) for side in sides))
    rates: Mapping[str, float] = row.get("throughput", {})
    cells.append("\n".join(f"{rates[role]:.1f}" for role in roles if role in rates))
    drafts: list[Mapping[str, Any]] = [side["drafts"] or {} for side in sides]
    lengths, accepted = ([each.get(name) for each in drafts] for name in ("acceptance_length", "acceptance_rate"))
    cells.append("\n".join("-" if length is None else f"{length:.2f}" for length in lengths))
    cells.append("\n".join("-" if rate is None else f"{100 * rate:.0f} %" for rate in accepted))
    return cells


def _interval(spread: Mapping[str, float]) -> str:
    low, high = (milliseconds({"median": spread[name]}) for name in ("low", "high"))
    return milliseconds(spread) + (f" [{low}, {high}]" if spread["low"] < spread["high"] else "")
