"""What a measurement of servers comes to: one row for each workload, temperature and concurrency, and one for all.

Times of one server are medians over prompts, each prompt the mean of its times; with two servers, the ratio of a prompt
is its time on the second over that on the first, summed over its times. Intervals are bootstrapped over prompts. Knows
no connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from outrider.bench.measure import Interval, geometric_mean_interval, median_interval, ratios, spread
from outrider.bench.remote.compare import RemoteComparison, RemotePlan, RemoteRun, RemoteText, Role, judge
from outrider.bench.remote.completion import Streamed
from outrider.bench.remote.counters import TOLERANCE, Counts, total
from outrider.bench.remote.server import Server
from outrider.bench.workloads import ALL

Measure = Callable[[Streamed], float]
MEASURES: dict[str, Measure] = {
    "first_token_seconds": lambda written: written.first_seconds,
    "seconds_per_further_token": lambda written: written.seconds_per_further_token,
    "last_token_seconds": lambda written: written.last_seconds,
    "tokens_per_second": lambda written: written.num_tokens / written.last_seconds,
}


class Measured(NamedTuple):
    """A text as each server wrote it in the same company, and why it is in no figure, if so."""

    concurrency: int
    text: RemoteText
    written: Mapping[Role, Streamed]
    faults: Mapping[Role, str]


def remote_document(servers: Mapping[Role, Server], plan: RemotePlan, comparison: RemoteComparison) -> dict[str, Any]:
    """Everything that was found, as JSON has it."""
    roles = list(servers)
    measured = _measured(roles, comparison.runs)
    fit = [each for each in measured if not each.faults]
    is_counted: dict[Role, bool] = {role: all(each.written[role].is_counted for each in measured) for role in roles}
    rows: list[dict[str, Any]] = []
    for temperature in plan.temperatures:
        for concurrency in plan.concurrencies:
            rows += _rows(plan, (temperature, concurrency), fit, comparison.runs, unit_of(is_counted))
    return {
        "is_partial": comparison.is_partial,
        "error": str(comparison.error) if comparison.error else None,
        "plan": _plan(plan),
        "servers": [_server(role, server, counted=is_counted[role]) for role, server in servers.items()],
        "ratio_per": unit_of(is_counted),
        "rows": rows,
        "invalid": _invalid(comparison.texts, measured),
        "loops": [_named(text) | text.loop._asdict() for text in comparison.texts if text.loop],
        "measurements": [_measurement(each) for each in measured],
    }


def unit_of(is_counted: Mapping[Role, bool]) -> str:
    """By what times are divided before they are compared: tokens, or characters where a server counts no tokens."""
    return "token" if all(is_counted.values()) else "character"


def _measured(roles: Sequence[Role], runs: Sequence[RemoteRun]) -> list[Measured]:
    found: list[Measured] = []
    for run in runs:
        for number, text in enumerate(run.texts):
            written: dict[Role, Streamed] = {role: run.written[role][number] for role in roles}
            faults: dict[Role, str] = {role: fault for role, each in written.items() if (fault := judge(each)[0])}
            found.append(Measured(run.concurrency, text, written, faults))
    return found


def _rows(
    plan: RemotePlan, setting: tuple[float, int], fit: Sequence[Measured], runs: Sequence[RemoteRun], unit: str
) -> list[dict[str, Any]]:
    """Of one temperature and concurrency; the last row says how fast all texts together were written."""
    chosen = [each for each in fit if (each.text.temperature, each.concurrency) == setting]
    runs = [run for run in runs if (run.texts[0].temperature, run.concurrency) == setting]
    names = [workload.name for workload in plan.workloads]
    facts = {"temperature": setting[0], "concurrency": setting[1]}
    rows: list[dict[str, Any]] = []
    for name in names:
        # A server's counters count whole groups: they tell workloads apart only where a group is of one.
        own = [run for run in runs if all(text.workload == name for text in run.texts)]
        is_whole = setting[1] == 1 or len(names) == 1
        part = [each for each in chosen if each.text.workload == name]
        rows.append({"workload": name, **facts, **_row([part], own if is_whole else [], unit)})
    if len(names) > 1:
        groups = [[each for each in chosen if each.text.workload == name] for name in names]
        rows.append({"workload": ALL, **facts, **_row(groups, runs, unit)})
    if runs:
        rows[-1]["throughput"] = {
            role: sum(each.num_tokens for run in runs for each in run.written[role])
            / sum(run.seconds[role] for run in runs)
            for role in runs[0].written
        }
    return rows


def _row(groups: Sequence[Sequence[Measured]], runs: Sequence[RemoteRun], unit: str) -> dict[str, Any]:
    """What the texts of one workload, or of several, come to; nothing but zero prompts where there are none."""
    groups = [group for group in groups if group]
    texts = [each for group in groups for each in group]
    if not texts:
        return {"num_prompts": 0}
    roles = list(texts[0].written)
    row: dict[str, Any] = {
        "num_prompts": len({(each.text.workload, each.text.prompt.name) for each in texts}),
        **{role: _side(texts, role, runs) for role in roles},
    }
    if len(roles) > 1:
        row["ratio"] = _ratio(groups, _per_further(unit))
        row["first_token_ratio"] = _ratio(groups, MEASURES["first_token_seconds"])
        row["num_same_texts"] = sum(len({written.text for written in each.written.values()}) == 1 for each in texts)
        row["num_texts"] = len(texts)
    return row


def _per_further(unit: str) -> Measure:
    """Seconds per token after the first, or per character of the text."""
    if unit == "token":
        return MEASURES["seconds_per_further_token"]
    return lambda written: (written.last_seconds - written.first_seconds) / len(written.text)


def _ratio(groups: Sequence[Sequence[Measured]], measure: Measure) -> dict[str, float]:
    """Of the second server's times over the first's: above 1, the first is faster."""
    by_group: list[list[float]] = []
    for group in groups:
        server, against = (_by_prompt(group, role, measure) for role in ("server", "against"))
        by_group.append(ratios(against, server))
    interval = median_interval(by_group[0]) if len(by_group) == 1 else geometric_mean_interval(by_group)
    return interval._asdict()


def _by_prompt(texts: Iterable[Measured], role: Role, measure: Measure) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for each in texts:
        name = f"{each.text.workload}\0{each.text.prompt.name}"
        found.setdefault(name, []).append(measure(each.written[role]))
    return found


def _side(texts: Sequence[Measured], role: Role, runs: Sequence[RemoteRun]) -> dict[str, Any]:
    written = [each.written[role] for each in texts]
    gaps = spread([gap for each in written for gap in each.gaps])
    return {
        **{name: _timed(texts, role, measure) for name, measure in MEASURES.items()},
        "seconds_between_pieces": gaps._asdict() if gaps else None,
        "tokens_per_piece": sum(each.num_tokens for each in written) / sum(len(each.times) for each in written),
        "cached_prompt_share": _cached_share(written),
        "drafts": _drafts(texts, role, runs),
    }


def _timed(texts: Sequence[Measured], role: Role, measure: Measure) -> dict[str, float]:
    by_prompt = _by_prompt(texts, role, measure)
    interval: Interval = median_interval([sum(values) / len(values) for values in by_prompt.values()])
    all_of_it = spread([value for values in by_prompt.values() for value in values])
    return interval._asdict() | {"p95": all_of_it.p95 if all_of_it else interval.median}


def _cached_share(written: Sequence[Streamed]) -> float | None:
    """Of the prompts' tokens, what the server says that it had computed before."""
    said = [each for each in written if each.num_cached_tokens is not None and each.num_prompt_tokens]
    if not said:
        return None
    return sum(each.num_cached_tokens or 0 for each in said) / sum(each.num_prompt_tokens or 0 for each in said)


def _drafts(texts: Sequence[Measured], role: Role, runs: Sequence[RemoteRun]) -> dict[str, Any] | None:
    """What became of drafts: by the answers themselves where they say so, else by the server's counters."""
    said = [each.written[role].counts for each in texts]
    own = [counts for counts in said if counts is not None]
    if own and len(own) == len(said):
        return _counted(total(own), "answers", None)
    counted = [counts for run in runs if (counts := run.counts[role]) is not None]
    if not counted or len(counted) < len(runs):
        return None
    num_ours = sum(each.num_tokens for run in runs for each in run.written[role])
    return _counted(total(counted), "counters", num_ours)


def _counted(counts: Counts | None, source: str, num_ours: int | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    emitted = counts.num_emitted
    return {
        "source": source,
        **counts._asdict(),
        "acceptance_length": counts.acceptance_length,
        "acceptance_rate": counts.acceptance_rate,
        "survival": counts.survival,
        "has_others": bool(num_ours and emitted and emitted > num_ours * (1 + TOLERANCE)),
    }


def _plan(plan: RemotePlan) -> dict[str, Any]:
    workloads = [
        {"name": workload.name, "num_prompts": len(workload.prompts), "sha256": workload.sha256}
        for workload in plan.workloads
    ]
    return {
        "workloads": workloads, "temperatures": plan.temperatures, "concurrencies": plan.concurrencies,
        "num_runs": plan.num_runs, "max_tokens": plan.max_tokens, "seed": plan.seed, "timeout": plan.timeout,
    }  # fmt: skip


def _server(role: Role, server: Server, *, counted: bool) -> dict[str, Any]:
    return {
        "role": role,
        "url": f"{server.endpoint}{server.endpoint.path}",
        "model": server.model,
        "asked_at": server.dialect.path,
        "not_sent": list(server.dialect.left_out),
        "counts": "tokens" if counted else "pieces",
        "draft_counters": server.engine,
    }


def _invalid(texts: Sequence[RemoteText], measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Those that were not measured, and those that were, and came out otherwise than the first time."""
    return [_named(text) | {"why": text.fault} for text in texts if text.fault] + [
        _named(each.text) | {"why": f"{fault}, written again, {each.concurrency} at once ({role})"}
        for each in measured
        for role, fault in each.faults.items()
    ]


def _measurement(each: Measured) -> dict[str, Any]:
    """The raw numbers, from which all others can be computed again, but for the texts."""
    return _named(each.text) | {
        "concurrency": each.concurrency,
        "is_fit": not each.faults,
        **{
            role: {
                "num_tokens": written.num_tokens,
                "num_characters": len(written.text),
                "num_pieces": len(written.times),
                "finish_reason": written.finish_reason,
                "first_token_seconds": written.times[0] if written.times else None,
                "last_token_seconds": written.times[-1] if written.times else None,
                "num_cached_tokens": written.num_cached_tokens,
                "counts": written.counts._asdict() if written.counts else None,
            }
            for role, written in each.written.items()
        },
    }


def _named(text: RemoteText) -> dict[str, Any]:
    return {"workload": text.workload, "prompt": text.prompt.name, "temperature": text.temperature}
