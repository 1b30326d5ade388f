"""`outrider quantize`: a checkpoint with int8 matrices, and what that costs in quality. Knows options and words."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.cli.output import STDOUT, check_json_target, printable, tolerate_characters
from outrider.errors import ModelError


def quantize(
    target: Annotated[str, typer.Option(metavar="DIR", help="The checkpoint, float32 or bfloat16.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder that does not exist yet.")],
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts to measure on, one JSON object a line. [bundled]")
    ] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save it as JSON; -: to stdout, no text.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if outrider quantized it.")] = False,
) -> None:
    """Write a checkpoint with int8 matrices, whose products are of int8 numbers too, and measure what it costs.

    What runs with it afterwards is exact to the new target, not to the original. docs/quantisation.md says more.
    """
    tolerate_characters()
    check_json_target(json)

    from outrider.bench.provenance import to_json, write_json
    from outrider.check.prompts import bundled_prompts, read_prompts
    from outrider.model.checkpoint import resolve_checkpoint
    from outrider.model.tokenizer import Tokenizer
    from outrider.quantize.quantize import quantize as make

    chosen = bundled_prompts() if prompts is None else read_prompts(prompts)
    folder = resolve_checkpoint(target)
    if not (folder / "tokenizer.json").exists():
        raise ModelError(f"{folder} has no tokenizer.json, which the prompts need: give a folder with all its files")
    tokenizer = Tokenizer.from_folder(folder)
    token_ids = [prompt.token_ids(tokenizer) for prompt in chosen]
    with _progress() as report:
        document = make(folder, out, token_ids, report, replaces=force)
    if json == STDOUT:
        typer.echo(to_json(document), nl=False)
        return
    if json is not None:
        write_json(Path(json), document)
    typer.echo(printable("\n".join(_lines(out, document))))


@contextmanager
def _progress() -> Generator[Callable[[str], None]]:
    """Show on stderr how far it is."""
    from rich.console import Console

    with Console(stderr=True, highlight=False).status("reading the checkpoint") as status:
        yield status.update


def _lines(out: Path, document: Mapping[str, Any]) -> list[str]:
    quality, sizes = document["quality"], document["bytes"]

    def shown(name: str, digits: int) -> str:
        value, low, high = (f"{quality[name][part]:.{digits}f}" for part in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"

    return [
        f"{out}: {sizes['quantized'] / 1e6:,.1f} MB of weights, {sizes['original'] / 1e6:,.1f} MB before",
        f"beside the original, on {quality['num_tokens']} tokens of {quality['num_texts']} texts that it wrote:",
        f"  the same likeliest token  {shown('agreement', 4)}",
        f"  overlap of distributions  {shown('overlap', 4)}",
        f"  divergence (KL, nats)     {shown('divergence', 5)}",
        f"  ratio of perplexities     {shown('perplexity_ratio', 4)}",
        f"Its texts are exactly its own, level {quality['exactness']}; it is another model than the original.",
    ]
