"""What steps cost here: the target over few and many rows at several contexts, and a draft step beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from outrider.cache.table import BlockTable
from outrider.check.budget import Budget
from outrider.check.item import Item
from outrider.check.texts import Watch
from outrider.engine.llm import LLM
from outrider.runtime.base import Runtime, SequenceRows

WIDTHS = (1, 2, 3, 5, 9, 13, 17, 25, 32)
NUM_TIMED, NUM_SETTLING = 5, 6
ROWS_AT_ONCE = 128
BENT = 1.25
CHEAP, DEAR = 0.25, 0.6


class Curve(NamedTuple):
    """Seconds of one sequence's forward by its rows, after so many tokens."""

    context: int
    points: list[tuple[int, float]]

    def ratio(self, rows: int) -> float:
        """Of the cost of so many rows to that of a plain step."""
        return dict(self.points)[rows] / self.points[0][1]

    @property
    def bend(self) -> int | None:
        """The fewest rows that cost a quarter more than one."""
        return next((rows for rows, _ in self.points if self.ratio(rows) > BENT), None)


def time_curves(llm: LLM, contexts: Sequence[int], budget: Budget, watch: Watch) -> list[Curve]:
    """Curves at those contexts that the model and the time allow, shortest first."""
    curves: list[Curve] = []
    last_seconds = 0.0
    for context in sorted(contexts):
        if context + max(WIDTHS) > llm.target.config.max_context:
            budget.skip(f"verify cost at a context of {context}: the target's is {llm.target.config.max_context}")
        elif context + max(WIDTHS) > llm.config.max_cache_tokens:
            budget.skip(f"verify cost at a context of {context}: the cache has {llm.config.max_cache_tokens} tokens")
        elif not budget.has_room(last_seconds * context / max(curves[-1].context if curves else 1, 1), 0.6):
            budget.skip(f"verify cost at a context of {context}: no time")
        else:
            watch.report(f"timing forwards at a context of {context}")
            began = time.monotonic()
            curves.append(_time_curve(llm, context, watch))
            last_seconds = time.monotonic() - began
    return curves


def _time_curve(llm: LLM, context: int, watch: Watch) -> Curve:
    table = BlockTable(llm.engine.pool)
    try:
        while table.num_committed < context:
            watch.look()
            count = min(ROWS_AT_ONCE, context - table.num_committed)
            with table.reserve(max(count, llm.target.min_rows)):
                llm.target.forward([SequenceRows([0] * count, table.num_committed, table.blocks, ())])
                table.commit(tuple(range(count)))
        with table.reserve(max(WIDTHS)):
            batches = [[SequenceRows([0] * rows, context, table.blocks, range(rows))] for rows in WIDTHS]
            for _ in range(NUM_SETTLING):  # a runtime may be slow to go down from more rows
                llm.target.forward(batches[0])
            points = [(rows, _seconds(llm.target, batch)) for rows, batch in zip(WIDTHS, batches, strict=True)]
    finally:
        table.release()
    return Curve(context, points)


def _seconds(runtime: Runtime, batch: list[SequenceRows]) -> float:
    runtime.forward(batch)  # the first of its width prepares
    times: list[float] = []
    for _ in range(NUM_TIMED):
        began = time.perf_counter()
        runtime.forward(batch)
        times.append(time.perf_counter() - began)
    return median(times)


def curve_item(curves: Sequence[Curve]) -> Item:
    """Whether rows beside the first are nearly free, which is all that speculation lives on."""
    threshold = f"5 rows below {BENT}x a plain step; 2 rows below 1.9x"
    why = "a guess costs a row of the target's forward: where a step over five rows costs five steps, nothing is won"
    if not curves:
        return Item(name="verify cost", status="warn", value="not measured", threshold=threshold, why=why,
                    remedy="raise --budget, or lower --context")  # fmt: skip
    worst_two, worst_five = (max(curve.ratio(rows) for curve in curves) for rows in (2, 5))
    parts = [
        f"{curve.points[0][1] * 1e3:.2f} ms a plain step at {curve.context} tokens, 5 rows {curve.ratio(5):.2f}x, "
        f"32 rows {curve.ratio(32):.2f}x, " + (f"bends at {curve.bend} rows" if curve.bend else "no bend up to 32 rows")
        for curve in curves
    ]
    return Item(
        name="verify cost",
        status="fail" if worst_two >= 1.9 else "warn" if worst_five > BENT else "pass",
        value="; ".join(parts),
        threshold=threshold,
        why=why,
        remedy="" if worst_five <= BENT else "keep drafts short; weights in bfloat16, or a larger target, bend later",
    )


def draft_item(costs: Sequence[dict[str, Any]]) -> Item:
    """The cost ratio of each draft model."""
    threshold = f"cost ratio up to {CHEAP} is good, above {DEAR} hopeless"
    why = "a draft of depth d takes d draft steps one after the other before the target computes once"
    known = [each for each in costs if each["cost_ratio"] is not None]
    if not known:
        return Item(name="draft cost", status="pass", value="no draft model: looking guesses up costs next to nothing",
                    threshold=threshold, why=why)  # fmt: skip
    least = min(each["cost_ratio"] for each in known)
    return Item(
        name="draft cost",
        status="pass" if least <= CHEAP else "warn" if least <= DEAR else "fail",
        value="; ".join(
            f"{each['drafter']}, {'greedy' if each['is_greedy'] else 'sampled'}: "
            f"{1e3 * each['draft_step_seconds']:.2f} ms a draft step over "
            f"{1e3 * each['plain_seconds']:.2f} ms a plain step is a cost ratio of {each['cost_ratio']:.2f}"
            for each in known
        ),
        threshold=threshold,
        why=why,
        remedy="" if least <= CHEAP else "take a draft with fewer layers, or --draft suffix",
    )
