# pyright: basic
# (matplotlib's annotations leave too much open.)
"""Plots of a checklist's findings, as SVG to be set into a page. Knows documents, no engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from outrider.bench.plots import INK, SERIES, svg_of

Rows = Sequence[Mapping[str, Any]]


def plots_of(document: Mapping[str, Any]) -> dict[str, str]:
    """By title; a plot that nothing was measured for is left out."""
    least = min((row["num_sequences"] for row in document["predictions"]), default=1)
    alone = [row for row in document["predictions"] if row["num_sequences"] == least]
    judged = [row for row in document["measured"] if row["predicted"]]
    wanted: dict[str, tuple[Callable[[Axes, Rows], None], Rows]] = {
        "Survival by depth": (_draw_survival, [row for row in document["agreement"] if row["survival"]]),
        "Cost of a forward by its rows, over that of a plain step": (_draw_curves, document["verify_cost"]),
        f"Predicted speedup by depth, {least} at once": (_draw_depths, alone),
        "Predicted speedup by texts at once, at the best depth of each": (_draw_concurrency, document["concurrency"]),
        "Predicted and measured": (_draw_judged, judged),
        "Predicted speedup over the bytes that drafting takes": (_draw_memory, _frontier(document, alone)),
    }
    return {title: svg_of(draw, rows, (7, 3.4)) for title, (draw, rows) in wanted.items() if rows}


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
    for number, row in enumerate(rows):
        known = [each for each in row["survival"] if each]
        depths = range(1, len(known) + 1)
        axes.plot(depths, [each["value"] for each in known], color=_color(number), label=_label(row))
        axes.fill_between(depths, [each["low"] for each in known], [each["high"] for each in known],
                          color=_color(number), alpha=0.15, linewidth=0)  # fmt: skip
    _finish(axes, "depth", "accepted, of all steps")


def _draw_curves(axes: Axes, rows: Rows) -> None:
    for number, row in enumerate(rows):
        base = row["points"][0][1]
        places, seconds = zip(*row["points"], strict=True)
        axes.plot(places, [each / base for each in seconds], color=_color(number), marker="o", markersize=3,
                  label=f"{row['context']} tokens before")  # fmt: skip
    _finish(axes, "rows", "times a plain step")


def _draw_depths(axes: Axes, rows: Rows) -> None:
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(_label(row), []).append(row)
    for number, (label, part) in enumerate(lines.items()):
        axes.plot([row["depth"] for row in part], [row["speedup"]["value"] for row in part], color=_color(number),
                  marker="o", markersize=3, label=label)  # fmt: skip
    _draw_one(axes)
    _finish(axes, "depth", "times as fast as plain")


def _draw_concurrency(axes: Axes, rows: Rows) -> None:
    axes.plot([row["num_sequences"] for row in rows], [row["speedup"]["value"] for row in rows], color=_color(0),
              marker="o", label="chosen drafter")  # fmt: skip
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
    axes.legend(fontsize=8)


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['drafter']}, " + ("greedy" if row["temperature"] == 0 else f"T = {row['temperature']:g}")


def _color(number: int) -> str:
    return SERIES[number % len(SERIES)]
