"""What a comparison comes to: one row for each workload, temperature and concurrency, and one for all workloads.

Speedups are medians over prompts, of plain over speculative seconds per token; over all workloads it is the geometric
mean of their medians. Only texts that were fit to be measured and came out the same take part, but where nobody
promised that they would. Knows no engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from outrider.bench.compare import SIDES, BenchPlan, BenchText, Comparison, GroupRun, Side, Written
from outrider.bench.measure import geometric_mean_interval, median_interval, ratios, spread
from outrider.bench.workloads import ALL
from outrider.stats import STAGES


class Pair(NamedTuple):
    """A text that was written on both sides in the same company."""

    concurrency: int
    text: BenchText
    plain: Written
    speculative: Written

    def differing(self) -> Iterator[tuple[Side, Written]]:
        """The sides on which something else came out than before, and should not have."""
        for side in SIDES:
            written: Written = getattr(self, side)
            if written.generation.exactness != "distribution" and written.generation.token_ids != self.text.token_ids:
                yield side, written


def pairs_of(runs: Sequence[GroupRun]) -> list[Pair]:
    """All texts that were measured, one by one."""
    return [
        Pair(run.concurrency, *parts)
        for run in runs
        for parts in zip(run.texts, *(run.written[side] for side in SIDES), strict=True)
    ]


def document_of(plan: BenchPlan, comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, as JSON has it."""
    pairs = pairs_of(comparison.runs)
    differences = [_difference(pair, side, written) for pair in pairs for side, written in pair.differing()]
    same = [pair for pair in pairs if not any(pair.differing())]
    settings = [(temperature, concurrency) for temperature in plan.temperatures for concurrency in plan.concurrencies]
    rows: list[dict[str, Any]] = []
    for temperature, concurrency in settings:
        chosen = [pair for pair in same if (pair.text.temperature, pair.concurrency) == (temperature, concurrency)]
        names = [workload.name for workload in plan.workloads]
        facts = {"temperature": temperature, "concurrency": concurrency}
        parts = {name: [pair for pair in chosen if pair.text.workload == name] for name in names}
        rows += [{"workload": name, **facts, **_row([part])} for name, part in parts.items()]
        if len(names) > 1:
            rows.append({"workload": ALL, **facts, **_row(list(parts.values()))})
        rows[-1] |= _throughput(comparison.runs, temperature, concurrency)
    return {
        "is_partial": comparison.is_partial,
        "plan": _plan(plan),
        "rows": rows,
        "invalid": [_named(text) | {"why": text.fault} for text in comparison.texts if text.fault],
        "loops": [_named(text) | text.loop._asdict() for text in comparison.texts if text.loop],
        "differences": differences,
        "texts": [
            _named(text) | {"num_tokens": len(text.token_ids), "seed": text.params.seed} for text in comparison.texts
        ],
        "measurements": [_measurement(pair) for pair in pairs],
    }


def num_faults(document: dict[str, Any]) -> int:
    """Texts that differ although the engine had promised that they would not."""
    return sum(difference["was_promised"] for difference in document["differences"])


def _plan(plan: BenchPlan) -> dict[str, Any]:
    workloads = [
        {"name": workload.name, "num_prompts": len(workload.prompts), "sha256": workload.sha256}
        for workload in plan.workloads
    ]
    return {
        "workloads": workloads, "temperatures": plan.temperatures, "concurrencies": plan.concurrencies,
        "depth": plan.depth, "num_runs": plan.num_runs, "max_tokens": plan.max_tokens, "seed": plan.seed,
    }  # fmt: skip


def _row(groups: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    """What the pairs of one workload, or of several, come to; nothing but zero prompts where there are none."""
    groups = [group for group in groups if group]
    pairs = [pair for group in groups for pair in group]
    if not pairs:
        return {"speedup": None, "num_prompts": 0}
    by_group = [_speedups(group) for group in groups]
    interval = median_interval(by_group[0]) if len(groups) == 1 else geometric_mean_interval(by_group)
    return {
        "speedup": interval._asdict(),
        "num_prompts": sum(map(len, by_group)),
        **{side: _side(pairs, side) for side in SIDES},
    }


def _speedups(pairs: Sequence[Pair]) -> list[float]:
    """Of each prompt."""
    seconds: dict[Side, dict[str, list[float]]] = {side: {} for side in SIDES}
    for pair in pairs:
        for side in SIDES:
            seconds[side].setdefault(pair.text.prompt.name, []).append(getattr(pair, side).seconds_per_token)
    return ratios(seconds["plain"], seconds["speculative"])


def _side(pairs: Sequence[Pair], side: Side) -> dict[str, Any]:
    written: list[Written] = [getattr(pair, side) for pair in pairs]
    stats = [each.generation.stats for each in written]
    num_steps, num_emitted = sum(each.num_steps for each in stats), sum(each.num_emitted for each in stats)
    num_drafted, num_accepted = sum(each.num_drafted for each in stats), sum(each.num_accepted for each in stats)
    survival = _survival([(each.accepted_at, each.drafted_at) for each in stats])
    return {
        "tokens_per_second": num_emitted / sum(each.decode_seconds for each in stats),
        "acceptance_length": num_emitted / num_steps,
        "acceptance_rate": num_accepted / num_drafted if num_drafted else None,
        "accepted_from": dict(sum((each.accepted_from for each in stats), Counter[str]())),
        "agreement": survival[0] if survival else None,
        "survival": survival,
        "first_token_seconds": _spread([each.first_seconds for each in written]),
        "seconds_per_further_token": _spread([each.seconds_per_further_token for each in written]),
        "seconds_between_pieces": _spread([gap for each in written for gap in each.gaps]),
        "seconds_per_token_by_stage": {
            stage: sum(each.seconds[stage] for each in stats) / num_emitted for stage in STAGES if stage != "prefill"
        },
        "prefill_seconds": sum(each.seconds["prefill"] for each in stats) / len(stats),
    }


def _survival(counts: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Of all texts together, depth by depth."""
    accepted, drafted = (map(sum, zip_longest(*column, fillvalue=0)) for column in zip(*counts, strict=True))
    return [kept / made for kept, made in zip(accepted, drafted, strict=True) if made]


def _throughput(runs: Sequence[GroupRun], temperature: float, concurrency: int) -> dict[str, Any]:
    """Tokens of all texts together in a second of the clock on the wall, prompts included."""
    chosen = [run for run in runs if (run.texts[0].temperature, run.concurrency) == (temperature, concurrency)]
    if not chosen:
        return {}
    rates = {
        side: sum(len(each.generation.token_ids) for run in chosen for each in run.written[side])
        / sum(run.seconds[side] for run in chosen)
        for side in SIDES
    }
    return {"throughput": rates}


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    found = spread(values)
    return found._asdict() if found else None


def _difference(pair: Pair, side: Side, written: Written) -> dict[str, Any]:
    found, expected = written.generation.token_ids, pair.text.token_ids
    matches = [ours == theirs for ours, theirs in zip(found, expected, strict=False)]
    return _named(pair.text) | {
        "concurrency": pair.concurrency,
        "side": side,
        "at_token": matches.index(False) if False in matches else len(matches),
        "was_promised": written.generation.exactness == "bitwise",
    }


def _measurement(pair: Pair) -> dict[str, Any]:
    """The raw numbers, from which all others can be computed again."""
    sides = {
        side: {
            "num_tokens": len(written.generation.token_ids),
            "first_token_seconds": written.first_seconds,
            "last_token_seconds": written.last_seconds,
            "draft_fault": written.generation.draft_fault,
            "decisions": [decision._asdict() for decision in written.generation.decisions],
            **{name: getattr(written.generation.stats, name) for name in _COUNTED},
        }
        for side, written in (("plain", pair.plain), ("speculative", pair.speculative))
    }
    return _named(pair.text) | {"concurrency": pair.concurrency, **sides}


_COUNTED = ("num_steps", "num_emitted", "num_drafted", "num_accepted", "drafted_at", "accepted_at", "accepted_from",
            "seconds")  # fmt: skip


def _named(text: BenchText) -> dict[str, Any]:
    return {"workload": text.workload, "prompt": text.prompt.name, "temperature": text.temperature}
