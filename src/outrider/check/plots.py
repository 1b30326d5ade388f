# pyright: basic
# (matplotlib's annotations leave too much open.)
"""Plots of a checklist's findings, as SVG to be set into a page. Knows documents, no engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from outrider.bench.plots import INK, SERIES, svg_of

LINES = ("-", "--", ":", "-.")
Rows = Sequence[Mapping[str, Any]]


def plots_of(document: Mapping[str, Any]) -> dict[str, str]:
    """By title; a plot that nothing was measured for is left out."""
    least = min((row["num_sequences"] for row in document["predictions"]), default=1)
    alone = [row for row in document["predictions"] if row["num_sequences"] == least]
    judged = [row for row in document["measured"] if row["predicted"]]
    by_load = document["concurrency_by_temperature"]
    several = by_load if len({row["num_sequences"] for row in by_load}) > 1 else []
    wanted: dict[str, tuple[Callable[[Axes, Rows], None], Rows]] = {
        "Survival by depth": (_draw_survival, [row for row in document["agreement"] if row["survival"]]),
        "Cost of a forward by its rows, over that of a plain step": (_draw_curves, document["verify_cost"]),
        f"Predicted speedup by depth, {least} at once": (_draw_depths, alone),
        "Speedup by texts at once, measured where it was, else predicted of the best depth of each": (
            _draw_concurrency,
            several,
        ),
        "Predicted and measured": (_draw_judged, judged),
        "Predicted speedup over the bytes that drafting takes": (_draw_memory, _frontier(document, alone)),
    }
    return {title: svg_of(draw, rows, (8, 3.4)) for title, (draw, rows) in wanted.items() if rows}


def _frontier(document: Mapping[str, Any], alone: Rows) -> Rows:
    """Each drafter's bytes and best mean speedup."""
    # A row is of the suffix drafter with a draft model, where there is one.
    known = {entry["name"]: entry["bytes"] for row in document["memory"] for entry in row["entries"]}
    suffix = known.get("suffix drafter", 0)
    num_bytes = {row["drafter"]: row["draft"] - suffix for row in document["memory"]} | {"suffix": suffix}
    points: list[dict[str, Any]] = []
    for drafter in dict.fromkeys(row["drafter"] for row in alone):
        best = max(row["speedup"]["value"] for row in alone if row["drafter"] == drafter)
        points.append({"drafter": drafter, "bytes": sum(num_bytes.get(name, 0) for name in drafter.split(" + ")),
                       "speedup": best})  # fmt: skip
    return points


def _draw_survival(axes: Axes, rows: Rows) -> None:
    for label, look, (row, *_) in _lines(rows):
        known = [each for each in row["survival"] if each]
        depths = range(1, len(known) + 1)
        axes.plot(depths, [each["value"] for each in known], label=label, **look)
        axes.fill_between(depths, [each["low"] for each in known], [each["high"] for each in known],
                          color=look["color"], alpha=0.12, linewidth=0)  # fmt: skip
    axes.set_ylim(0, 1)
    _finish(axes, "depth", "accepted, of all steps")


def _draw_curves(axes: Axes, rows: Rows) -> None:
    for number, row in enumerate(rows):
        base = row["points"][0][1]
        places, seconds = zip(*row["points"], strict=True)
        axes.plot(places, [each / base for each in seconds], color=_color(number), marker="o", markersize=3,
                  label=f"{row['context']} tokens before")  # fmt: skip
    _finish(axes, "rows", "times a plain step")


def _draw_depths(axes: Axes, rows: Rows) -> None:
    for label, look, part in _lines(rows):
        axes.plot([row["depth"] for row in part], [row["speedup"]["value"] for row in part], marker="o", markersize=3,
                  label=label, **look)  # fmt: skip
    _draw_one(axes)
    _finish(axes, "depth", "times as fast as plain")


def _draw_concurrency(axes: Axes, rows: Rows) -> None:
    numbers = sorted({row["num_sequences"] for row in rows})
    for number, temperature in enumerate(dict.fromkeys(row["temperature"] for row in rows)):
        part = [row for row in rows if row["temperature"] == temperature]
        axes.plot([numbers.index(row["num_sequences"]) for row in part], [row["speedup"]["value"] for row in part],
                  color=_color(number), marker="o", label=f"chosen drafter, {_words(temperature)}")  # fmt: skip
    axes.set_xticks(range(len(numbers)), list(map(str, numbers)))
    _draw_one(axes)
    _finish(axes, "texts at once", "times as fast as plain")


def _draw_judged(axes: Axes, rows: Rows) -> None:
    both = [(row["predicted"]["value"], row["speedup"]["value"]) for row in rows]
    ends = [min(map(min, both)), max(map(max, both))]
    axes.plot(ends, ends, color=INK, linewidth=1, linestyle="--", label="as predicted")
    axes.plot(*zip(*both, strict=True), color=_color(0), marker="o", linestyle="", label="measured")
    _finish(axes, "predicted", "measured")


def _draw_memory(axes: Axes, rows: Rows) -> None:
    for number, row in enumerate(rows):
        axes.plot([row["bytes"] / 2**20], [row["speedup"]], color=_color(number), marker="o", linestyle="",
                  label=row["drafter"])  # fmt: skip
    _draw_one(axes)
    _finish(axes, "MiB for drafting", "times as fast as plain")


def _draw_one(axes: Axes) -> None:
    axes.axhline(1.0, color=INK, linewidth=1, linestyle="--")


def _finish(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)  # beside the lines, never over them


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['drafter']}, {_words(row['temperature'])}"


def _words(temperature: float) -> str:
    return "greedy" if temperature == 0 else f"T = {temperature:g}"


def _lines(rows: Rows) -> list[tuple[str, Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Rows of one drafter and temperature together: label, how to draw it, rows.

    A drafter has one colour; temperatures are told apart by the line.
    """
    drafters = list(dict.fromkeys(row["drafter"] for row in rows))
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(_label(row), []).append(row)
    return [
        (
            label,
            {
                "color": _color(drafters.index(part[0]["drafter"])),
                "linestyle": LINES[temperatures.index(part[0]["temperature"]) % len(LINES)],
            },
            part,
        )
        for label, part in found.items()
    ]


def _color(number: int) -> str:
    return SERIES[number % len(SERIES)]
