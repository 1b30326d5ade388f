"""Predicted beside measured, setting by setting, and how often the first was right. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.steady import SteadyRun
from outrider.check.agreement import estimate
from outrider.predict.clock import Later
from outrider.predict.prediction import Predictor
from outrider.predict.trace import Trace

NEAR = 0.10
MIN_DEPTHS = 4


def judge(
    setting: tuple[str, int, float, int],
    predictor: Predictor,
    traces: tuple[Sequence[Trace], Sequence[Trace]],
    rounds: Sequence[Sequence[SteadyRun]],
    plain: Sequence[Sequence[SteadyRun]],
    num_rounds: int,
) -> dict[str, Any]:
    """One row.

    Args:
        setting: pair, depth, temperature, texts at once.
        predictor: that knows what steps cost.
        traces: of the texts that are predicted from, and of those that are measured on.
        rounds: runs of all queues.
        plain: the same of plain decoding.
        num_rounds: that are judged by; those after them show how much they would differ another time.
    """
    pair, depth, temperature, num_sequences = setting
    predicted_from, measured_on = traces
    # All settings share what plain decoding took, so all of it that is known counts.
    run, beside = pooled(rounds[:num_rounds]), pooled(plain)
    num_turns, num_plain_turns = sum(map(len, rounds[:num_rounds])), sum(map(len, plain))
    later = Later(len(measured_on), num_turns, num_plain_turns, run.num_steps / num_turns)
    found = predictor.predict(pair, predicted_from, depth, num_sequences, later=later)
    known = predictor.predict(pair, measured_on, depth, num_sequences)
    assert found is not None
    assert known is not None
    measured = run.tokens_per_second / beside.tokens_per_second
    again = None
    if len(rounds) > num_rounds:
        again = pooled(rounds[num_rounds:]).tokens_per_second / pooled(plain[num_rounds:]).tokens_per_second
    return {
        "pair": pair,
        "depth": depth,
        "temperature": temperature,
        "num_sequences": num_sequences,
        "num_prompts": [len(predicted_from), len(measured_on)],
        "num_tokens": run.num_tokens,
        "num_turns": [num_turns, num_plain_turns],
        "agreement": found.agreement,
        "measured": measured,
        "measured_again": again,
        "predicted": estimate(found.speedup),
        "error": found.speedup.value / measured - 1,
        "is_inside": found.speedup.low <= measured <= found.speedup.high,
        "foreign_share": run.foreign_share,
        "error_on_measured_texts": known.speedup.value / measured - 1,
        "tokens": _beside(found.tokens_per_step, run.tokens_per_step)
        | {"predicted_on_measured_texts": known.tokens_per_step},
        "seconds": _beside(math.fsum(found.seconds.values()), run.seconds / run.num_steps),
        "plain_seconds": _beside(found.plain_seconds, beside.seconds / beside.num_steps),
        "by_stage": {"predicted": found.seconds, "measured": _stages(run), "plain": _stages(beside)},
    }


def pooled(rounds: Sequence[Sequence[SteadyRun]]) -> SteadyRun:
    """Over all rounds and queues."""
    return reduce(add, (run for runs in rounds for run in runs))


def _beside(predicted: float, measured: float) -> dict[str, float]:
    return {"predicted": predicted, "measured": measured, "error": predicted / measured - 1}


def _stages(run: SteadyRun) -> dict[str, float]:
    seconds = {stage: each / run.num_steps for stage, each in run.by_stage.items()}
    return {"draft": seconds["draft"], "target": seconds["target"], "other": seconds["sample"] + seconds["other"]}


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of all settings, and of groups of them; the noise of what was measured twice."""
    groups: dict[str, list[Mapping[str, Any]]] = {"all": [*rows]}
    for row in rows:
        groups.setdefault(f"pair {row['pair']}", []).append(row)
        groups.setdefault(f"T = {row['temperature']:g}", []).append(row)
        groups.setdefault(f"{row['num_sequences']} at once", []).append(row)
        groups.setdefault(f"depth {row['depth']}", []).append(row)
    return {name: _shares(part) for name, part in groups.items()}


def choices(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each pair, temperature and number of texts at once: the depth predicted to be fastest, beside the fastest.

    Plain decoding is a choice as well, where nothing is predicted to be faster. Where few depths were measured, too
    little is known of the fastest.
    """
    cases: dict[tuple[str, float, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        cases.setdefault((row["pair"], row["temperature"], row["num_sequences"]), []).append(row)
    found: list[dict[str, Any]] = []
    for (pair, temperature, num_sequences), part in cases.items():
        if len(part) < MIN_DEPTHS:
            continue
        predicted = {0: 1.0} | {row["depth"]: row["predicted"]["value"] for row in part}
        measured = {0: 1.0} | {row["depth"]: row["measured"] for row in part}
        chosen, best = (max(each, key=each.__getitem__) for each in (predicted, measured))
        found.append(
            {
                "pair": pair,
                "temperature": temperature,
                "num_sequences": num_sequences,
                "chosen": chosen,
                "best": best,
                "share_of_best": measured[chosen] / measured[best],
            }
        )
    return found


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    errors = [abs(row["error"]) for row in rows]
    repeated = [abs(row["measured_again"] / row["measured"] - 1) for row in rows if row["measured_again"]]
    return {
        "num_settings": len(rows),
        "share_within_10_percent": sum(error <= NEAR for error in errors) / len(rows),
        "share_inside_interval": sum(row["is_inside"] for row in rows) / len(rows),
        "median_error": median(errors),
        "mean_signed_error": math.fsum(row["error"] for row in rows) / len(rows),
        "worst_error": max(errors),
        "share_within_10_percent_on_measured_texts": sum(abs(row["error_on_measured_texts"]) <= NEAR for row in rows)
        / len(rows),
        "num_repeated": len(repeated),
        "repeat_median": median(repeated) if repeated else None,
        "repeat_share_within_10_percent": sum(each <= NEAR for each in repeated) / len(repeated) if repeated else None,
    }


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Measured over predicted, each with its stated interval; the band is within 10 %."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    values = [each for row in rows for each in (row["measured"], row["predicted"]["value"])]
    ends = (0.95 * min(values), 1.05 * max(values))
    axes.fill_between(ends, [0.9 * end for end in ends], [1.1 * end for end in ends], color="0.92", label="within 10 %")
    axes.plot(ends, ends, color="0.4", linewidth=1)
    for number, pair in enumerate(dict.fromkeys(row["pair"] for row in rows)):
        part = [row for row in rows if row["pair"] == pair]
        places = [row["predicted"]["value"] for row in part]
        errors = [
            [row["predicted"]["value"] - row["predicted"]["low"] for row in part],
            [row["predicted"]["high"] - row["predicted"]["value"] for row in part],
        ]
        axes.errorbar(places, [row["measured"] for row in part], xerr=errors, fmt="o", markersize=4, linewidth=0.7,
                      color=f"C{number}", label=pair)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="predicted speedup, with its 95 % interval",
             ylabel="measured speedup")  # fmt: skip
    ticks = [each for each in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5) if ends[0] <= each <= ends[1]]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{each:g}x" for each in ticks])
        axis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "outrider"}
    ):  # text stays text, the same plot its bytes
        figure.savefig(path, format="svg", metadata={"Date": None})
