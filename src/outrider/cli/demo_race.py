"""Plain and speculative side by side: both are run and timed, then shown as they went, slowed down for the eye."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from outrider.cli.demo_drafters import Contest, DrafterName
from outrider.cli.output import printable
from outrider.demo.prompts import Prompt
from outrider.engine.llm import raise_errors
from outrider.engine.stream import Delta
from outrider.request import SamplingParams

# Not by colour alone: underlined, plain, struck through. Blue and orange are told apart by every kind of eye.
ACCEPTED, OWN, REJECTED, GIVEN = "underline bright_blue", "orange3", "strike dim", "dim"
SIDE_BY_SIDE_WIDTH = 100
PAIR: tuple[DrafterName, DrafterName] = ("none", "draft model")
FRAMES_PER_SECOND = 15
NUM_STEPS_SHOWN = 8
_BORDER = 2  # of a panel: rows above and below its text
_PADDING = 4  # and columns beside it


class Step(NamedTuple):
    """One step of one text, the decoding seconds at which it was done, and what its rejected tokens would have said."""

    seconds: float
    delta: Delta
    rejected: tuple[str, ...]


class Lane(NamedTuple):
    """A text with how it was written."""

    title: str
    prompt: str
    steps: list[Step]

    @property
    def seconds(self) -> float:
        return self.steps[-1].seconds

    @property
    def token_ids(self) -> list[int]:
        return [token_id for step in self.steps for token_id in step.delta.token_ids]


def run_lane(contest: Contest, drafter: DrafterName, prompt: Prompt, params: SamplingParams, depth: int) -> Lane:
    """Write one text, noting when each step was done; the prompt's own computation is before the start."""
    contest.give_turn(drafter)
    engine, tokenizer = contest.llm.engine, contest.llm.tokenizer
    assert tokenizer is not None
    (sequence,) = contest.llm.start(prompt.text, params, depth=depth)
    steps: list[Step] = []
    while sequence.finish_reason is None:
        for delta in engine.step():
            rejected = tuple(tokenizer.decode([token_id]) for token_id in delta.rejected_token_ids)
            steps.append(Step(sequence.stats.decode_seconds, delta, rejected))
    raise_errors([sequence])
    return Lane("plain" if drafter == "none" else "speculative", prompt.text, steps)


def show_race(console: Console, lanes: Sequence[Lane], *, seconds: float) -> None:
    """Replay the lanes on one clock, the slowest taking `seconds`, and leave the finished texts on the screen."""
    slowest = max(lane.seconds for lane in lanes)
    if console.is_interactive:
        began = time.monotonic()
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while (elapsed := time.monotonic() - began) < seconds:
                live.update(frame(console, lanes, slowest * elapsed / seconds), refresh=True)
                time.sleep(1 / FRAMES_PER_SECOND)
        console.print(f"(shown {seconds / slowest:.0f} times slower than it was)", style=GIVEN)
    console.print(side_by_side(console, [_panel(lane, slowest, _written(lane, lane.steps)) for lane in lanes]))
    console.print(legend())


def frame(console: Console, lanes: Sequence[Lane], now: float) -> RenderableType:
    """The lanes as they were at a moment, as much of their ends as fits the screen."""
    num_beside, num_above = (len(lanes), 1) if console.width >= SIDE_BY_SIDE_WIDTH else (1, len(lanes))
    num_lines = max((console.height - 2) // num_above - _BORDER, 1)
    width = console.width // num_beside - _PADDING
    panels: list[Panel] = []
    for lane in lanes:
        done = [step for step in lane.steps if step.seconds <= now]
        lines = _written(lane, done, shows_rejected=now < lane.seconds).wrap(console, width)
        num_shown = min(num_lines, len(_written(lane, lane.steps).wrap(console, width)))  # so that nothing moves about
        panel = _panel(lane, now, Text("\n").join(lines[-num_shown:]))
        panel.height = num_shown + _BORDER
        panels.append(panel)
    return Group(side_by_side(console, panels), legend())


def side_by_side(console: Console, panels: Sequence[Panel]) -> RenderableType:
    """Beside each other where the terminal is wide enough, else one above the other."""
    if console.width < SIDE_BY_SIDE_WIDTH:
        return Group(*panels)
    grid = Table.grid(expand=True)
    for _ in panels:
        grid.add_column(ratio=1)
    grid.add_row(*panels)
    return grid


def legend() -> Text:
    """What the styles mean."""
    return Text("  ").join(
        [Text("drafted and accepted", ACCEPTED), Text("the target's own", OWN), Text("rejected", REJECTED)]
    )


def steps_table(lane: Lane) -> Table:
    """The first steps one by one; says without colour what the styles say."""
    table = Table(
        title="The first steps", title_justify="left", caption="· a space  ⏎ a line end", caption_justify="left"
    )
    for heading in ("drafted and accepted", "rejected", "the target's own"):
        table.add_column(heading, overflow="fold")
    for step in lane.steps[:NUM_STEPS_SHOWN]:
        pieces, num_accepted = step.delta.pieces, step.delta.num_accepted
        table.add_row(
            _visible(pieces[:num_accepted], ACCEPTED),
            _visible(step.rejected, REJECTED),
            _visible(pieces[num_accepted:], OWN),
        )
    return table


def _panel(lane: Lane, now: float, text: Text) -> Panel:
    num_tokens = sum(len(step.delta.token_ids) for step in lane.steps if step.seconds <= now)
    seconds = min(now, lane.seconds)
    rate = f", {num_tokens / seconds:.0f} tokens/s" if seconds else ""
    return Panel(text, title=lane.title, subtitle=f"{num_tokens} tokens in {seconds:.2f} s{rate}")


def _written(lane: Lane, steps: Sequence[Step], *, shows_rejected: bool = False) -> Text:
    """The text after these steps; what the last one rejected stands where it would have stood, and is no part of it."""
    text = Text()
    text.append(lane.prompt, GIVEN)
    for step in steps:
        pieces, num_accepted = step.delta.pieces, step.delta.num_accepted
        _append(text, pieces[:num_accepted], ACCEPTED)
        if shows_rejected and step is steps[-1]:
            _append(text, step.rejected, REJECTED)
        _append(text, pieces[num_accepted:], OWN)
    return text


def _append(text: Text, pieces: Iterable[str], style: str) -> None:
    for word in re.split(r"(\s+)", printable("".join(pieces))):
        text.append(word, "" if word.isspace() else style)  # an underlined indentation would look like a form


def _visible(pieces: Iterable[str], style: str) -> Text:
    """Each token by itself, its spaces and line ends too."""
    return Text(" ").join(Text(printable(piece).replace(" ", "·").replace("\n", "⏎"), style) for piece in pieces)
