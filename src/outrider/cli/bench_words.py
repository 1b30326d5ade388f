"""What tables and lists of measurements are written with. Knows the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.status import Status

from outrider.cli.output import printable

MAX_LISTED = 12


def say_waiting(console: Console, status: Status) -> None:
    """Of another timed run: on the line of how far it is, or where nobody sees that line, on one of its own."""
    words = "waiting for another timed run to end"
    status.update(words)
    if not console.is_terminal:
        console.print(words)


def milliseconds(spread: Mapping[str, float]) -> str:
    """The median of seconds."""
    found = 1000 * spread["median"]
    return f"{found:.0f}" if found >= 100 else f"{found:.1f}"


def ratio_words(ratio: Mapping[str, float]) -> str:
    """A median, and its interval where there is one."""
    low, high = ratio["low"], ratio["high"]
    return f"{ratio['median']:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low < high else "")


def list_texts(
    console: Console, heading: str, texts: Sequence[Mapping[str, Any]], words: Callable[[Mapping[str, Any]], str]
) -> None:
    """A few of them; the JSON and the page have all."""
    if not texts:
        return
    console.print(f"{heading} {len(texts)} texts.", style="bold", markup=False)
    for text in texts[:MAX_LISTED]:
        name = f"{text['workload']}, {text['prompt']}, T = {text['temperature']:g}"
        console.print(printable(f"  {name}: {words(text)}"), markup=False, soft_wrap=True)
    if len(texts) > MAX_LISTED:
        console.print(f"  and {len(texts) - MAX_LISTED} more", markup=False)
