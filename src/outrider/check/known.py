"""What is known of a setting: its measurement or its prediction, whichever says more. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from outrider.check.agreement import estimate
from outrider.check.prediction import WORTH, Choice, geometric_mean, rows_by_load
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast
from outrider.request import Depth

Row = Mapping[str, Any]


class Known(NamedTuple):
    """A speedup, and whether it is the measured one."""

    speedup: Estimate
    is_measured: bool


def outweighed(measured: Estimate | None, predicted: Estimate) -> Known:
    """The measurement, unless it agrees with the prediction and knows less.

    That is so where there are so few texts that its interval is the wider of the two, and holds the predicted value.
    """
    if measured is None:
        return Known(predicted, is_measured=False)
    is_wider = _width(measured) > _width(predicted)
    if is_wider and measured.low <= predicted.value <= measured.high:
        return Known(predicted, is_measured=False)
    return Known(measured, is_measured=True)


def _width(found: Estimate) -> float:
    return found.high / found.low if found.low > 0 else math.inf


def measured_of(
    rows: Sequence[Row], drafter: str, depth: Depth, temperatures: Collection[float], num_sequences: int
) -> Estimate | None:
    """Speedup that was measured over these temperatures; None if one of them is missing, or has one prompt only."""
    found = _rows(rows, drafter, depth, num_sequences, temperatures)
    return _mean([row["speedup"] for row in found]) if len(found) == len(set(temperatures)) else None


def gain_measured(
    rows: Sequence[Row], first: Choice, second: Choice | None, temperatures: Collection[float]
) -> Estimate | None:
    """What the first's drafter was measured to bring over the second's, beside it on the same texts, each at its best.

    Args:
        rows: of the trials.
        first, second: a drafter at a depth; None is plain decoding.
        temperatures: over which.
    """
    found: list[Estimate] = []
    for depth in (first.depth, "auto"):
        ours = _rows(rows, first.drafter, depth, first.num_sequences, temperatures)
        if len(ours) < len(set(temperatures)):
            continue
        if second is None:
            found.append(_mean([row["speedup"] for row in ours]))
            continue
        gains: list[Estimate] = []
        for other in (second.depth, "auto"):
            wanted = (second.drafter, other)
            over = [each["gain"] for row in ours for each in row["over"] if (each["drafter"], each["depth"]) == wanted]
            if len(over) == len(ours):
                gains.append(_mean(over))
        if gains:  # over the other at its best
            found.append(min(gains, key=lambda each: each.value))
    return max(found, key=lambda each: each.value, default=None)


def _rows(
    rows: Sequence[Row], drafter: str, depth: Depth, num_sequences: int, temperatures: Collection[float]
) -> list[Row]:
    """One of each temperature: that of most prompts, where a setting was in several trials."""
    best: dict[float, Row] = {}
    for row in rows:
        setting = (row["drafter"], row["depth"], row["num_sequences"])
        if setting != (drafter, depth, num_sequences) or row["num_prompts"] < 2:
            continue
        temperature = row["temperature"]
        if (
            temperature in temperatures
            and row["num_prompts"] > best.get(temperature, {"num_prompts": 0})["num_prompts"]
        ):
            best[temperature] = row
    return [*best.values()]


def _mean(found: Sequence[Mapping[str, float | None]]) -> Estimate:
    return geometric_mean([Estimate(*(_bound(each[name]) for name in Estimate._fields)) for each in found])


def _bound(value: float | None) -> float:
    """Back from JSON, where no bound is null."""
    return math.inf if value is None else value


def load_rows(
    choice: Choice, depth: Depth, predictions: Sequence[Forecast], measured: Sequence[Row]
) -> list[dict[str, Any]]:
    """The chosen drafter with more and more sequences: what it brings at the depth that is recommended, if measured.

    Else what is predicted of the best depth there.
    """
    rows: list[dict[str, Any]] = []
    temperatures = {each.temperature for each in predictions}
    for num_sequences, best_depth, predicted in rows_by_load(choice, predictions):
        found = measured_of(measured, choice.drafter, depth, temperatures, num_sequences)
        known = outweighed(found, predicted)
        rows.append(
            {
                "num_sequences": num_sequences,
                "depth": best_depth,
                "speedup": estimate(known.speedup),
                "is_measured": known.is_measured,
                "pays": known.speedup.value >= WORTH,
            }
        )
    return rows
