# pyright: basic
# (matplotlib's annotations leave too much open.)
"""Plots of a comparison, as SVG to be set into a page: colours are the page's own. Knows documents, no engines."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from outrider.bench.workloads import ALL
from outrider.stats import STAGES, Stage

# Stand-ins that matplotlib draws with, and the page's variables that they become: light and dark need other colours.
INK, GRID = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
_VARIABLES = {INK: "var(--ink)", GRID: "var(--grid)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES)
}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "outrider",  # the same plot has the same bytes
    "text.parse_math": False,  # a name with dollars is no formula
    "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.edgecolor": GRID, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip
_MARKERS = "osD^vPX"

Rows = Sequence[Mapping[str, Any]]


def plots_of(document: Mapping[str, Any]) -> dict[str, str]:
    """By title; a plot that nothing was measured for is left out."""
    rows = [row for row in document["rows"] if row["speedup"]]
    concurrencies = {row["concurrency"] for row in rows}
    least = min(concurrencies, default=1)
    alone = [row for row in rows if row["concurrency"] == least]
    totals = _totals(rows)
    wanted: dict[str, tuple[Callable[[Axes, Rows], None], Rows, tuple[float, float]]] = {
        f"Speedup by workload, {least} at once": (_draw_speedups, alone, (8, 3.2)),
        "Speedup by the number of texts written at once": (
            _draw_concurrency,
            totals if len(concurrencies) > 1 else [],
            (6, 3.2),
        ),
        f"Survival by depth, {least} at once": (_draw_survival, alone, (6, 3.2)),
        "Where the time of a token goes": (_draw_stages, _totals(alone), (8, 3.2)),
    }
    return {title: svg_of(*parts) for title, parts in wanted.items() if parts[1]}


def _totals(rows: Rows) -> Rows:
    """Those of all workloads, or of the only one."""
    return [row for row in rows if row["workload"] == ALL] or rows


def svg_of(draw: Callable[[Axes, Rows], None], rows: Rows, size: tuple[float, float]) -> str:
    """A drawing as a page takes it: without what names hosts, its colours the page's own."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), rows)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # it would name hosts
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]  # without the declarations of a file of its own
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text


def _draw_speedups(axes: Axes, rows: Rows) -> None:
    temperatures = sorted({row["temperature"] for row in rows})
    names = list(dict.fromkeys(row["workload"] for row in rows))
    width = 0.8 / len(temperatures)
    for number, temperature in enumerate(temperatures):
        chosen = [row for row in rows if row["temperature"] == temperature]
        places = [names.index(row["workload"]) + (number - (len(temperatures) - 1) / 2) * width for row in chosen]
        axes.bar(places, [row["speedup"]["median"] for row in chosen], 0.9 * width, color=_color(number),
                 label=_words(temperature))  # fmt: skip
        axes.errorbar(places, [row["speedup"]["median"] for row in chosen], yerr=_error(chosen), fmt="none", color=INK,
                      capsize=2, linewidth=1)  # fmt: skip
    axes.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("times as fast as plain")
    axes.grid(visible=False, axis="x")
    axes.legend(ncols=len(temperatures), loc="lower left", bbox_to_anchor=(0, 1))


def _draw_concurrency(axes: Axes, rows: Rows) -> None:
    concurrencies = sorted({row["concurrency"] for row in rows})
    for number, (label, part) in enumerate(_by_line(rows).items()):
        places = [concurrencies.index(row["concurrency"]) for row in part]
        axes.errorbar(places, [row["speedup"]["median"] for row in part], yerr=_error(part), color=_color(number),
                      marker=_MARKERS[number % len(_MARKERS)], capsize=2, label=label)  # fmt: skip
    axes.axhline(1.0, color=INK, linewidth=1, linestyle="--")
    axes.set_xticks(range(len(concurrencies)), list(map(str, concurrencies)))
    axes.set_xlabel("texts at once")
    axes.set_ylabel("times as fast as plain")
    axes.legend()


def _draw_survival(axes: Axes, rows: Rows) -> None:
    for number, (label, part) in enumerate(_by_line(_totals(rows)).items()):
        survival = part[0]["speculative"]["survival"]
        axes.plot(range(1, len(survival) + 1), survival, color=_color(number),
                  marker=_MARKERS[number % len(_MARKERS)], markersize=4, label=label)  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_xlabel("depth")
    axes.set_ylabel("accepted, of drafts that deep")
    axes.legend()


def _draw_stages(axes: Axes, rows: Rows) -> None:
    """Bars beside each other for plain and speculative, stage upon stage."""
    stages: list[Stage] = [stage for stage in STAGES if stage != "prefill"]
    bars = [(row, side) for row in rows for side in ("plain", "speculative")]
    bottoms = [0.0] * len(bars)
    for number, stage in enumerate(stages):
        heights = [1000 * row[side]["seconds_per_token_by_stage"][stage] for row, side in bars]
        axes.barh(range(len(bars)), heights, 0.7, left=bottoms, color=_color(number), label=stage)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_yticks(
        range(len(bars)), [f"{_label(row, rows)}{_words(row['temperature'])}, {side}" for row, side in bars]
    )
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a token")
    axes.grid(visible=False, axis="y")
    axes.legend(ncols=len(stages), loc="lower left", bbox_to_anchor=(0, 1))


def _by_line(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that a line joins: of one workload at one temperature."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(_label(row, rows) + _words(row["temperature"]), []).append(row)
    return lines


def _label(row: Mapping[str, Any], rows: Rows) -> str:
    """What tells a row from the others, besides what is said anyway."""
    several = len({row["workload"] for row in rows}) > 1
    return f"{row['workload']}, " if several else ""


def _error(rows: Rows) -> list[list[float]]:
    speedups = [row["speedup"] for row in rows]
    below = [max(each["median"] - each["low"], 0.0) for each in speedups]
    above = [max(each["high"] - each["median"], 0.0) for each in speedups]
    return [below, above]


def _words(temperature: float) -> str:
    return "greedy" if temperature == 0 else f"T = {temperature:g}"


def _color(number: int) -> str:
    return SERIES[number % len(SERIES)]
