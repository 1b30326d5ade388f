"""`outrider explain`: in words why a run was fast or slow, from the figures of its result file. Knows options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli.output import printable, tolerate_characters


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="What run, bench or check saved as JSON.")],
    json: Annotated[bool, typer.Option("--json", help="The same as JSON on stdout.")] = False,
) -> None:
    """Say in words why a run was fast or slow: every sentence from figures in its result file.

    What the file lacks is said too. Nothing is loaded or run.
    """
    from outrider.bench.provenance import to_json
    from outrider.explain.document import explain_file
    from outrider.explain.story import KINDS

    tolerate_characters()
    story = explain_file(file)
    if json:
        sys.stdout.write(to_json({"file": str(file), **story.as_dict()}))
        return
    lines = [f"{file}: {KINDS[story.kind]}"]
    for topic, sentences in [*story.by_topic(), ("lacking", story.lacks), ("advice", [story.advice.rstrip(".")])]:
        lines += [_line("" if number else topic, sentence) for number, sentence in enumerate(sentences)]
    typer.echo(printable("\n".join(lines)))


def _line(topic: str, sentence: str) -> str:
    return f"{topic:<12} {sentence[0].upper()}{sentence[1:]}."
