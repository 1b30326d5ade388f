"""The verbs together. Knows their options; what a verb runs is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from outrider import __version__
from outrider.cli.audit import app as audit
from outrider.cli.bench import app as bench
from outrider.cli.check import check
from outrider.cli.demo import demo
from outrider.cli.explain_file import explain
from outrider.cli.export import export
from outrider.cli.quantize import quantize
from outrider.cli.run import run

# Plain help: rich would take longer to import than all the rest of `--help`.
app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(run)
app.command()(demo)
app.command()(check)
app.command()(explain)
app.command()(export)
app.command()(quantize)
app.add_typer(bench, name="bench")
app.add_typer(audit, name="audit")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"outrider {__version__}")
        raise typer.Exit


@app.callback()
def outrider(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Speculative decoding you can trust: the target's own text, sooner."""
