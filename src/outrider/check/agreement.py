"""How often guesses are right on the user's prompts, by depth, temperature, category and length of the prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from outrider.check.item import Item
from outrider.predict.interval import Estimate, share_interval
from outrider.predict.prediction import Forecast
from outrider.predict.trace import MAX_TRACED_DEPTH, Trace, walk


def estimate(found: Estimate | None) -> dict[str, float | None] | None:
    """For JSON, which has no infinity: null is no bound."""
    if found is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in found._asdict().items()}


def agreement_rows(traces: Mapping[tuple[str, float], Sequence[Trace]]) -> list[dict[str, Any]]:
    """One row for each drafter, temperature and group of prompts; the group "all" first."""
    rows: list[dict[str, Any]] = []
    for (drafter, temperature), each in traces.items():
        for group, part in _groups(each):
            overlaps = [trace.overlap for trace in part if trace.overlap is not None]
            agreed = _share(part, lambda trace: (trace.num_agreed, len(trace.roots)))
            overlap = sum(overlaps) / len(overlaps) if overlaps else None
            rows.append(
                {
                    "drafter": drafter,
                    "temperature": temperature,
                    "group": group,
                    "num_prompts": len(part),
                    "agreement": estimate(agreed),
                    "overlap": agreed.value if agreed and temperature == 0 else overlap,
                    "survival": survival_of(part) if group == "all" else [],
                }
            )
    return rows


def survival_of(traces: Sequence[Trace]) -> list[dict[str, float | None] | None]:
    """By depth, of the steps that an engine would take at the deepest that is traced."""
    walks = [walk(trace, MAX_TRACED_DEPTH) for trace in traces]
    return [
        estimate(share_interval([(each.accepted_at[depth], each.num_steps) for each in walks]))
        for depth in range(MAX_TRACED_DEPTH)
    ]


def _groups(traces: Sequence[Trace]) -> Iterator[tuple[str, list[Trace]]]:
    yield "all", [*traces]
    categories = sorted({trace.category for trace in traces})
    for category in categories if len(categories) > 1 else ():
        yield category, [trace for trace in traces if trace.category == category]
    middle = median(trace.num_prompt_tokens for trace in traces)
    short, long = ([trace for trace in traces if (trace.num_prompt_tokens > middle) == each] for each in (False, True))
    if short and long:
        yield f"prompts up to {middle:g} tokens", short
        yield f"prompts above {middle:g} tokens", long


def _share(traces: Sequence[Trace], counts: Callable[[Trace], tuple[float, float]]) -> Estimate | None:
    return share_interval([counts(trace) for trace in traces])


def agreement_item(rows: Sequence[Mapping[str, Any]], predictions: Sequence[Forecast]) -> Item:
    """Measured agreement beside the least that pays, of each drafter's best depth with the fewest sequences."""
    least = min((each.num_sequences for each in predictions), default=1)
    parts: list[str] = []
    is_above: list[bool] = []
    for row in (row for row in rows if row["group"] == "all"):
        setting = (row["drafter"], row["temperature"], least)
        same = [each for each in predictions if (each.drafter, each.temperature, each.num_sequences) == setting]
        if row["agreement"] is None:
            continue
        best = max(same, key=lambda each: each.speedup.value, default=None)
        price = best.break_even if best else None
        value = row["agreement"]
        parts.append(
            f"{row['drafter']} at T = {row['temperature']:g}: {_percent(value)}"
            + (f", overlap {100 * row['overlap']:.0f} %" if row["overlap"] is not None else "")
            + (
                ", break-even " + (f"{100 * price:.0f} % at depth {best.depth}" if price is not None else "none")
                if best
                else ""
            )
        )
        is_above.append(price is not None and value["value"] > price)
    return Item(
        name="agreement",
        status="pass" if any(is_above) else "warn",
        value="; ".join(parts) or "not measured",
        threshold="above the break-even agreement",
        why="it is how often a guess is the target's own token, on text that the target wrote from these prompts",
        remedy="" if any(is_above) else "take a draft trained on the target's own texts, or do not speculate",
    )


def _percent(found: Mapping[str, float | None]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    return f"{100 * (value or 0):.0f} % [{100 * (low or 0):.0f}, {100 * (high or 0):.0f}]"
