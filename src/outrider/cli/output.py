"""What a command says of a generation: its JSON, its one-line summary, and text that is safe to show."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the engine is imported when it runs, not when options are read
    from outrider.engine.llm import Generation

STDOUT = "-"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters that a model may write and a terminal would obey; line ends and tabs are text.
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\t"), ord("\n")}, _REPLACEMENT)


def printable(text: str) -> str:
    """The text without what a terminal would take for a command."""
    return text.translate(_CONTROLS)


def tolerate_characters() -> None:
    """Let stdout show a question mark for a character that its encoding lacks."""
    stream: object = sys.stdout  # a test may have put another kind in its place
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")


class TextWriter:
    """Text to stdout as it comes: exactly the text, but a terminal gets no commands, and a last line end.

    Args:
        is_muted: write nothing; the text is in the JSON.
    """

    def __init__(self, *, is_muted: bool = False) -> None:
        self._is_muted = is_muted
        self._is_terminal = sys.stdout.isatty()
        tolerate_characters()

    def write(self, piece: str) -> None:
        if not self._is_muted:
            sys.stdout.write(printable(piece) if self._is_terminal else piece)
            sys.stdout.flush()

    def finish(self) -> None:
        if self._is_terminal:
            self.write("\n")


def check_json_target(name: str | None) -> None:
    """Raise UsageError unless the result can be written there later."""
    if name is not None and name != STDOUT:
        from outrider.bench.provenance import check_writable

        check_writable(Path(name))


def save_json(name: str, document: dict[str, Any]) -> None:
    """Write a result with its provenance to a file, whole or not at all, or to stdout."""
    from outrider.bench.provenance import provenance, to_json, write_json

    document = {"provenance": provenance(), **document}
    if name == STDOUT:
        sys.stdout.write(to_json(document))
    else:
        write_json(Path(name), document)


def as_document(generation: Generation) -> dict[str, Any]:
    """A generation as JSON has it."""
    stats = generation.stats
    seconds = {stage: value for stage, value in stats.seconds.items() if stage != "prefill"}
    return {
        "text": generation.text,
        "token_ids": list(generation.token_ids),
        "num_prompt_tokens": len(generation.prompt_token_ids),
        "finish_reason": generation.finish_reason,
        "seed": generation.seed,
        "exactness": generation.exactness,
        "steps": stats.num_steps,
        "acceptance_length": stats.acceptance_length,
        "acceptance_rate": stats.acceptance_rate,
        "survival": stats.survival,
        "prefill_seconds": stats.seconds["prefill"],
        "seconds": seconds,
        "decode_tokens_per_second": stats.decode_tokens_per_second,
    }


def summary(generation: Generation) -> str:
    """A generation in one line."""
    stats = generation.stats
    facts = [f"{len(generation.token_ids)} tokens ({generation.finish_reason})"]
    if stats.decode_tokens_per_second is not None:
        facts.append(f"{stats.decode_tokens_per_second:.1f} tokens/s")
    if stats.acceptance_rate is not None:
        facts.append(f"acceptance length {stats.acceptance_length:.2f}, rate {stats.acceptance_rate:.2f}")
    facts += [f"exactness {generation.exactness}", f"seed {generation.seed}"]
    return "outrider: " + ", ".join(facts)
