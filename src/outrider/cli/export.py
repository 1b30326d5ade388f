"""`outrider export`: a recipe in the words of another engine. Knows options and how they are shown."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli.output import STDOUT, check_json_target, printable, save_json, say, tolerate_characters
from outrider.errors import UsageError
from outrider.export.engines import EXPORTS, EngineName
from outrider.recipe import read_recipe

if TYPE_CHECKING:
    from outrider.export.base import Export

COMMAND_FILE = "command.sh"


def export(
    recipe: Annotated[Path, typer.Option(metavar="FILE", help="What to hand over: a recipe.toml.")],
    to: Annotated[EngineName, typer.Option(help="The engine.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the command and its files there.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save it as JSON; -: to stdout, no text.")] = None,
) -> None:
    """Write a recipe as another engine's command and configuration, and say what cannot be carried over.

    Nothing is started or loaded. Options that would change the target's text are never written.
    """
    tolerate_characters()
    check_json_target(json)
    exported = EXPORTS[to](read_recipe(recipe))
    if out is not None:
        _save(exported, out)
    if json is not None:
        save_json(json, _document(exported, to))
    if json != STDOUT:
        typer.echo(printable(_text(exported, shows_files=out is None)), nl=False)


def _text(exported: Export, *, shows_files: bool) -> str:
    """Notes as comments, then the command, then the files."""
    lines = [f"# {exported.engine}", *(f"# - {note}" for note in exported.notes)]
    if exported.command is not None:
        lines.append(shlex.join(exported.command))
    for name, content in exported.files.items() if shows_files else ():
        lines += ["", f"# file {name}", content.rstrip("\n")]
    return "\n".join(lines) + "\n"


def _save(exported: Export, folder: Path) -> None:
    """All files, none of which may be there already.

    Raises:
        UsageError: one is, or the folder cannot be written to.
    """
    from outrider.bench.provenance import check_writable, write_text

    files = dict(exported.files)
    if exported.command is not None:
        files[COMMAND_FILE] = "#!/bin/sh\n" + _text(exported, shows_files=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder} ({error.strerror}): name another with --out") from error
    for name in files:
        if (folder / name).exists():
            raise UsageError(f"{folder / name} exists already: name another folder with --out")
        check_writable(folder / name)
    for name, content in files.items():
        write_text(folder / name, content)
    say(f"wrote {', '.join(files)} to {folder}")


def _document(exported: Export, to: EngineName) -> dict[str, Any]:
    prediction = exported.prediction
    return {
        "to": to,
        "engine": exported.engine,
        "command": exported.command,
        "files": exported.files,
        "notes": exported.notes,
        "depth": exported.depth,
        "prediction": None if prediction is None else prediction._asdict(),
    }
