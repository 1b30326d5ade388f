"""Which drafter and depth is expected to be fastest, and with how many texts at once that still pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from outrider.check.agreement import estimate
from outrider.check.item import Item
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast

# Less is not worth a second model.
WORTH = 1.05


class Choice(NamedTuple):
    """A drafter and a depth for all temperatures, at the fewest sequences that were timed.

    Attributes:
        speedup: geometric mean over the temperatures; its ends are those of the predictions.
        at: the choice's predictions with as many sequences, by temperature.
    """

    drafter: str
    depth: int
    num_sequences: int
    speedup: Estimate
    at: tuple[Forecast, ...]


def choose(predictions: Sequence[Forecast]) -> Choice | None:
    """The fastest that is expected; None if nothing is."""
    return max(choices_of(predictions), key=lambda choice: choice.speedup.value, default=None)


def choices_of(predictions: Sequence[Forecast]) -> list[Choice]:
    """All that there are to choose from: those of most temperatures, with the fewest sequences."""
    if not predictions:
        return []
    least = min(each.num_sequences for each in predictions)
    settings: dict[tuple[str, int], list[Forecast]] = {}
    for each in predictions:
        if each.num_sequences == least:
            settings.setdefault((each.drafter, each.depth), []).append(each)
    most = max(map(len, settings.values()))
    return [
        Choice(drafter, depth, least, geometric_mean([each.speedup for each in part]), tuple(part))
        for (drafter, depth), part in settings.items()
        if len(part) == most
    ]


def geometric_mean(estimates: Sequence[Estimate]) -> Estimate:
    """Of several, end by end: no narrower than any pooling of them would be."""
    return Estimate(*(math.prod(values) ** (1 / len(estimates)) for values in zip(*estimates, strict=True)))


def rows_by_load(choice: Choice, predictions: Sequence[Forecast]) -> list[tuple[int, int, Estimate]]:
    """The chosen drafter with more and more sequences: how many, the best depth there, and what it brings."""
    rows: list[tuple[int, int, Estimate]] = []
    for num_sequences in sorted({each.num_sequences for each in predictions}):
        by_depth: dict[int, list[Estimate]] = {}
        for each in predictions:
            if (each.num_sequences, each.drafter) == (num_sequences, choice.drafter):
                by_depth.setdefault(each.depth, []).append(each.speedup)
        means = {depth: geometric_mean(found) for depth, found in by_depth.items()}
        if means:
            depth = max(means, key=lambda each: means[each].value)
            rows.append((num_sequences, depth, means[depth]))
    return rows


def best_by_temperature(predictions: Sequence[Forecast]) -> list[Choice]:
    """For each temperature what would be chosen if there were no other."""
    found = (
        choose([each for each in predictions if each.temperature == temperature])
        for temperature in dict.fromkeys(each.temperature for each in predictions)
    )
    return [choice for choice in found if choice is not None]


def off_above(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The most sequences up to which all that was timed pays; None if it pays to the end, or never."""
    num_paying = next((place for place, row in enumerate(rows) if not row["pays"]), len(rows))
    return rows[num_paying - 1]["num_sequences"] if 0 < num_paying < len(rows) else None


def prediction_item(choice: Choice | None, predictions: Sequence[Forecast], others: Sequence[str] = ()) -> Item:
    """The best of each drafter; and what is predicted of other ways than chains of guesses, in words."""
    threshold = f"{WORTH}x plain decoding"
    why = "tokens a step over seconds a step, from the agreement and the costs above; nothing was speculated for it"
    if choice is None:
        return Item(name="prediction", status="warn", value="nothing could be predicted", threshold=threshold, why=why,
                    remedy="raise --budget")  # fmt: skip
    parts: list[str] = []
    for drafter in dict.fromkeys(each.drafter for each in predictions):
        best = choose([each for each in predictions if each.drafter == drafter])
        if best is not None:
            parts.append(f"{drafter} at depth {best.depth}: {words(best.speedup)}")
    pays = choice.speedup.value >= WORTH
    return Item(
        name="prediction",
        status="pass" if pays else "warn",
        value="; ".join([f"{'; '.join(parts)} ({choice.num_sequences} at once, all temperatures)", *others]),
        threshold=threshold,
        why=why,
        remedy="" if pays else "do not speculate with these drafters",
    )


def concurrency_item(rows: Sequence[dict[str, Any]], drafter: str) -> Item:
    """Where it stops to pay."""
    limit = off_above(rows)
    return Item(
        name="concurrency",
        status="warn" if limit is not None or not any(row["pays"] for row in rows) else "pass",
        value=f"{drafter}: "
        + ", ".join(
            f"{row['speedup']['value']:.2f}x at {row['num_sequences']} "
            + ("(measured)" if row["is_measured"] else f"(depth {row['depth']}, predicted)")
            for row in rows
        ),
        threshold=f"{WORTH}x at every number of texts at once",
        why="texts at once already share what a forward costs, so rows beside them are no longer free",
        remedy=f"leave depth at auto, or turn speculation off above {limit} texts at once" if limit else "",
    )


def words(found: Estimate) -> str:
    """A speedup with its interval."""
    if not math.isfinite(found.high):
        return f"{found.value:.2f}x [no interval]"
    return f"{found.value:.2f}x [{found.low:.2f}, {found.high:.2f}]"


def as_dict(prediction: Forecast) -> dict[str, Any]:
    """For JSON."""
    names = ("drafter", "depth", "temperature", "num_sequences", "tokens_per_step", "survival", "agreement",
             "break_even", "seconds", "plain_seconds", "num_prompts")  # fmt: skip
    return {"speedup": estimate(prediction.speedup), **{name: getattr(prediction, name) for name in names}}
