"""What a comparison with peers comes to: a row for each workload, temperature, number of texts at once and engine.

A ratio is the peer's seconds per token over ours, prompts included: above 1, we are faster. It is of texts that were
written one right after the other by both; intervals are bootstrapped over prompts, or, where several are written at
once, over groups of them, which are mixed from all workloads. Knows no engines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from outrider.bench.compare import BenchPlan
from outrider.bench.measure import geometric_mean_interval, median_interval, ratios
from outrider.bench.peers.compare import TUNING_TOKENS, PeerComparison, PeerRun, PeerText, Place, Setting
from outrider.bench.peers.engine import OURS, PLAIN, Written
from outrider.bench.workloads import ALL

BY_WORKLOAD = "by workload"

Side = Callable[[PeerRun], Written]


class Chosen(NamedTuple):
    """The runs of a row, by the engine that it is of.

    Attributes:
        groups: of runs, each a workload's, or all that there are.
        name: of the engine.
        best: its setting by where a run belongs, and ours.
        our_best: ours.
    """

    groups: Sequence[Sequence[PeerRun]]
    name: str
    best: Mapping[Place, str]
    our_best: Mapping[Place, str]

    def their(self, run: PeerRun) -> Written:
        """What the engine wrote at its best setting."""
        return run.written[self.name][self.best[run.place]]

    def our(self, run: PeerRun) -> Written:
        return run.written[OURS][self.our_best[run.place]]

    def their_plain(self, run: PeerRun) -> Written:
        return run.written[self.name][PLAIN]

    def our_plain(self, run: PeerRun) -> Written:
        return run.written[OURS][PLAIN]

    @property
    def has_plain(self) -> bool:
        """Whether both decoded plainly too, each time."""
        return all(PLAIN in run.written[name] for group in self.groups for run in group for name in (self.name, OURS))


def peers_document(
    plan: BenchPlan, comparison: PeerComparison, facts: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that was found, as JSON has it.

    Args:
        plan: what was asked for.
        comparison: what came of it.
        facts: of each peer that was loaded, by its name.
        skipped: peers that were not, and why.
    """
    rows = [row for setting in _settings(plan) for row in _rows(plan, comparison, setting, tuple(facts))]
    for row in rows:
        row["version"] = facts[row["engine"]]["version"] if row["engine"] in facts else None
    return {
        "is_partial": comparison.is_partial,
        "plan": _plan(plan),
        "peers": [{"name": name, **each} for name, each in facts.items()],
        "skipped": [{"name": name, "why": why} for name, why in skipped.items()],
        "lost": [{"name": name, "why": why} for name, why in comparison.lost.items()],
        "rows": rows,
        "tried": [each._asdict() for each in comparison.tried],
        "invalid": [_named(text) | {"why": text.fault} for text in comparison.texts if text.fault],
        "loops": [_named(text) | text.loop._asdict() for text in comparison.texts if text.loop],
        "measurements": [_measurement(run) for run in comparison.runs],
    }


def num_differing(comparison: PeerComparison) -> int:
    """Texts of ours that came out otherwise with drafts than without, and must not."""
    return sum(
        ours != text.token_ids
        for run in comparison.runs
        for written in run.written[OURS].values()
        if written.is_promised
        for ours, text in zip(written.token_ids, run.texts, strict=True)
    )


def _settings(plan: BenchPlan) -> list[Setting]:
    return [(temperature, concurrency) for temperature in plan.temperatures for concurrency in plan.concurrencies]


def _rows(
    plan: BenchPlan, comparison: PeerComparison, setting: Setting, peers: Sequence[str]
) -> Iterator[dict[str, Any]]:
    temperature, concurrency = setting
    runs = [run for run in comparison.runs if run.setting == setting]
    names = [workload.name for workload in plan.workloads]
    # Groups of several texts are of all workloads together.
    parts = {name: [run for run in runs if run.texts[0].workload == name] for name in names} if concurrency == 1 else {}
    kinds: dict[str, list[list[PeerRun]]] = {name: [part] for name, part in parts.items()}
    if len(names) > 1:
        kinds[ALL] = list(parts.values()) or [runs]
    elif not parts:
        kinds[names[0]] = [runs]
    for workload, groups in kinds.items():
        for name in (OURS, *peers):
            best = comparison.best.get(name, {})
            row = {"workload": workload, "temperature": temperature, "concurrency": concurrency, "engine": name}
            fault = _fault(comparison, name, setting, runs)
            row |= {"setting": _setting(best, groups), "fault": fault, "num_texts": 0}
            own = [[run for run in group if name in run.written] for group in groups]
            own = [group for group in own if group]
            if own:
                row |= _row(Chosen(own, name, best, comparison.best[OURS]), temperature)
            yield row


def _setting(best: Mapping[Place, str], groups: Sequence[Sequence[PeerRun]]) -> str | None:
    """The best one, of several workloads if they agree."""
    settings = {best[run.place] for group in groups for run in group if run.place in best}
    return settings.pop() if len(settings) == 1 else BY_WORKLOAD if settings else None


def _fault(comparison: PeerComparison, name: str, setting: Setting, runs: Sequence[PeerRun]) -> str | None:
    """Why an engine has no figure here, or not all of its texts."""
    if found := [run.faults[name] for run in runs if name in run.faults]:
        return found[0]
    plain = [each for each in comparison.tried if (each.name, each.setting) == (name, PLAIN)]
    faults = [each.fault for each in plain if (each.temperature, each.concurrency) == setting and each.fault]
    return faults[0] if faults else comparison.lost.get(name)


def _row(chosen: Chosen, temperature: float) -> dict[str, Any]:
    runs = [run for group in chosen.groups for run in group]
    name = chosen.name
    row: dict[str, Any] = {
        "num_texts": sum(len(run.texts) for run in runs),
        "num_prompts": len({(text.workload, text.prompt.name) for run in runs for text in run.texts}),
        "tokens_per_second": _rate(map(chosen.their, runs)),
        "plain_tokens_per_second": _rate(map(chosen.their_plain, runs)) if chosen.has_plain else None,
        "ratio": None,
        "plain_ratio": None,
        "further_ratio": None,
        "num_same_texts": None,
        "share_as_ours": _share_as_ours(chosen, runs) if temperature == 0 else None,
    }
    # A peer's noise is its own affair: at temperature 1 its texts may differ. Ours may not.
    is_speculative = any(chosen.best[run.place] != PLAIN for run in runs)
    if is_speculative and chosen.has_plain and (temperature == 0 or name == OURS):
        row["num_same_texts"] = sum(
            ours == plain
            for run in runs
            for ours, plain in zip(chosen.their(run).token_ids, chosen.their_plain(run).token_ids, strict=True)
        )
    if name != OURS:
        sides = chosen.their, chosen.our
        row["ratio"] = _ratio(chosen, sides, _per_token)
        if chosen.has_plain:
            row["plain_ratio"] = _ratio(chosen, (chosen.their_plain, chosen.our_plain), _per_token)
        if all(side(run).first_seconds is not None for run in runs for side in sides):
            row["further_ratio"] = _ratio(chosen, sides, _per_further_token)
    return row


def _share_as_ours(chosen: Chosen, runs: Sequence[PeerRun]) -> float:
    """How much of the texts, from their beginnings on, is what our plain decoding writes."""
    pairs = [
        pair for run in runs for pair in zip(chosen.their(run).token_ids, (t.token_ids for t in run.texts), strict=True)
    ]
    return sum(itertools.starmap(_num_common, pairs)) / sum(len(ours) for _, ours in pairs)


def _num_common(text: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def _rate(written: Iterable[Written]) -> float:
    """Tokens of all texts together in a second."""
    known = list(written)
    return sum(map(_num_tokens, known)) / sum(each.seconds for each in known)


def _ratio(chosen: Chosen, sides: tuple[Side, Side], measure: Callable[[Written], float]) -> dict[str, float]:
    """A peer's time over ours: of the first of these sides over the second."""
    by_group: list[list[float]] = []
    for group in chosen.groups:
        theirs: dict[str, list[float]] = {}
        ours: dict[str, list[float]] = {}
        for run in group:
            key = "\0".join(f"{text.workload}\0{text.prompt.name}" for text in run.texts)
            theirs.setdefault(key, []).append(measure(sides[0](run)))
            ours.setdefault(key, []).append(measure(sides[1](run)))
        by_group.append(ratios(theirs, ours))
    interval = median_interval(by_group[0]) if len(by_group) == 1 else geometric_mean_interval(by_group)
    return interval._asdict()


def _num_tokens(written: Written) -> int:
    return sum(map(len, written.token_ids))


def _per_token(written: Written) -> float:
    return written.seconds / _num_tokens(written)


def _per_further_token(written: Written) -> float:
    """From the first token to the last, by the tokens after the first."""
    assert written.first_seconds is not None
    return (written.seconds - written.first_seconds) / max(_num_tokens(written) - 1, 1)


def _plan(plan: BenchPlan) -> dict[str, Any]:
    workloads = [
        {
            "name": workload.name,
            "num_prompts": len(workload.prompts),
            "num_predictions": sum(prompt.prediction is not None for prompt in workload.prompts),
            "sha256": workload.sha256,
        }
        for workload in plan.workloads
    ]
    return {
        "workloads": workloads, "temperatures": plan.temperatures, "concurrencies": plan.concurrencies,
        "depth": plan.depth, "num_runs": plan.num_runs, "max_tokens": plan.max_tokens, "seed": plan.seed,
        "tuning_tokens": min(TUNING_TOKENS, plan.max_tokens),
    }  # fmt: skip


def _measurement(run: PeerRun) -> dict[str, Any]:
    """The raw numbers, from which all others can be computed again."""
    ours = [text.token_ids for text in run.texts]
    return {
        "temperature": run.setting[0],
        "concurrency": run.setting[1],
        "texts": [
            {"workload": text.workload, "prompt": text.prompt.name, "num_tokens": text.asked.max_tokens}
            for text in run.texts
        ],
        "written": {
            name: {
                setting: {
                    "seconds": written.seconds,
                    "first_seconds": written.first_seconds,
                    "num_as_plain": sum(map(_is_same, written.token_ids, by[PLAIN].token_ids)) if PLAIN in by else None,
                    "num_tokens_as_ours": [*map(_num_common, written.token_ids, ours)],
                }
                for setting, written in by.items()
            }
            for name, by in run.written.items()
        },
        "faults": dict(run.faults),
    }


def _is_same(text: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return text == other


def _named(text: PeerText) -> dict[str, Any]:
    return {"workload": text.workload, "prompt": text.prompt.name, "temperature": text.temperature}
