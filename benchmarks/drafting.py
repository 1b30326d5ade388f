"""What the policy makes of pairs and workloads: `auto` beside every fixed depth, and beside plain decoding.

    python -m benchmarks.drafting

Cases are a pair, what drafts, a workload, a temperature and how many texts at once. Each group of prompts is written
plainly first: a text that falls into a loop is measured up to there. Then all settings write it, one after the other in
an order that changes from round to round. The texts must be equal, or nothing is written. The best fixed depth is
chosen afterwards, by its seconds over the whole case: no setting could have known it.

The full-price pairs are made by `outrider bench make-pair --size 0.5b --agreement A --out build/pairs/0.5b-A`.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import machine_to_ourselves, save, show
from benchmarks.groups import Group, GroupRun, measurable, run_all, run_group
from outrider import LLM, bundled_pair
from outrider.bench.measure import Interval, geometric_mean_interval, median_interval
from outrider.bench.provenance import provenance
from outrider.bench.workloads import WORKLOADS, read_workloads

FIXED = (1, 2, 3, 4, 6, 8)
SETTINGS: tuple[int | str, ...] = (0, *FIXED, "auto")
FULL_PRICE = ("0.4", "0.6", "0.8", "0.95")
MAX_PROMPTS = 12


class Case(NamedTuple):
    """One row of the result."""

    pair: str
    drafter: str
    workload: str
    temperature: float
    concurrency: int


def cases(full_price: Sequence[str] = FULL_PRICE) -> list[Case]:
    """Grouped by what is loaded; of the full-price pairs those of these agreements."""
    return [
        *(Case("bundled", "cascade", workload, 0.0, 1) for workload in WORKLOADS),
        *(Case("bundled", "cascade", "mixed", 1.0, concurrency) for concurrency in (1, 4)),
        *(Case("bundled", "model", "code", temperature, 1) for temperature in (0.0, 1.0)),
        *(Case("bundled", "model", "mixed", 0.0, concurrency) for concurrency in (4, 8)),
        *(Case(f"0.5b-{agreement}", "model", "code", temperature, 1)
          for agreement in full_price for temperature in (0.0, 1.0)),
        *(Case(f"0.5b-{agreement}", "model", "mixed", 0.0, 4)
          for agreement in full_price if agreement in ("0.6", "0.95")),
    ]  # fmt: skip


def load(case: Case, pairs: Path) -> LLM:
    if case.pair == "bundled":
        target, draft = bundled_pair().target, bundled_pair().draft
    else:
        target, draft = pairs / case.pair / "target", pairs / case.pair / "draft"
    return LLM(target, draft=["suffix", draft] if case.drafter == "cascade" else draft)


def groups_of(llm: LLM, case: Case, max_tokens: int) -> list[Group]:
    names = WORKLOADS if case.workload == "mixed" else [case.workload]
    in_turn = [
        prompt for prompts in zip(*(each.prompts for each in read_workloads(names)), strict=True) for prompt in prompts
    ]
    return measurable(llm, in_turn[:MAX_PROMPTS], case.temperature, case.concurrency, max_tokens)


def measure(llm: LLM, case: Case, groups: list[Group], rounds: int) -> dict[str, Any]:
    """All settings on all groups; the first round warms up, and so does `auto` by all groups of a small target.

    What a small target compiles for numbers of rows that keep coming is compiled once, beside steps that take twice as
    long meanwhile: in a few seconds of text it would be most of what is measured.
    """
    generator = random.Random(0)
    for group in groups if case.pair == "bundled" else ():
        run_group(llm, group, "auto")
    runs: dict[int | str, dict[str, list[GroupRun]]] = {setting: defaultdict(list) for setting in SETTINGS}
    for round_index in range(-1, rounds):
        for group in groups[: None if round_index >= 0 else 1]:
            order = generator.sample(SETTINGS, len(SETTINGS))
            for setting, run in run_all(llm, group, order).items():
                if round_index >= 0:
                    runs[setting][group.name].append(run)
    speedups = {setting: ratio(runs[0], runs[setting]) for setting in SETTINGS[1:]}
    seconds = {setting: sum(run.seconds for each in runs[setting].values() for run in each) for setting in SETTINGS}
    best = min(FIXED, key=seconds.__getitem__)
    best = best if seconds[best] < seconds[0] else 0
    auto = [run for each in runs["auto"].values() for run in each]
    row = {
        **case._asdict(),
        "groups": len(groups),
        "tokens": sum(run.num_tokens for run in auto),
        "speedup": {str(setting): median_interval(values)._asdict() for setting, values in speedups.items()},
        "speedup_of_groups": speedups["auto"],
        "best_fixed": best,
        "auto_over_best_fixed": ratio_interval(runs[best], runs["auto"])._asdict(),
        "seconds_over_best_fixed": seconds[best] / seconds["auto"],
        "acceptance_rate": sum(run.num_accepted for run in auto) / max(1, sum(run.num_drafted for run in auto)),
        "drafted_per_token": sum(run.num_drafted for run in auto) / sum(run.num_tokens for run in auto),
    }
    print(
        f"{case.pair} {case.drafter} {case.workload} T={case.temperature:g} x{case.concurrency}: "
        f"auto {show(Interval(**row['speedup']['auto']))}, {row['seconds_over_best_fixed']:.3f} of depth {best}",
        flush=True,
    )
    return row


def ratio(plain: dict[str, list[GroupRun]], chosen: dict[str, list[GroupRun]]) -> list[float]:
    """For each group how many times faster."""
    return [sum(run.seconds for run in plain[name]) / sum(run.seconds for run in chosen[name]) for name in plain]


def ratio_interval(plain: dict[str, list[GroupRun]], chosen: dict[str, list[GroupRun]]) -> Interval:
    return median_interval(ratio(plain, chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--full-price-rounds", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--full-price-max-tokens", type=int, default=40)
    parser.add_argument("--agreements", nargs="*", default=FULL_PRICE, help="the full-price pairs to measure")
    parser.add_argument("--pairs", type=Path, default=Path("build/pairs"))
    arguments = parser.parse_args()
    began = provenance()
    rows: list[dict[str, Any]] = []
    engines: dict[str, Any] = {}
    loaded: tuple[tuple[str, str], LLM] | None = None
    with machine_to_ourselves():
        chosen = cases(arguments.agreements)
        for case in chosen:
            if loaded is None or loaded[0] != (case.pair, case.drafter):
                loaded = None  # frees the last one's memory first
                loaded = (case.pair, case.drafter), load(case, arguments.pairs)
            llm = loaded[1]
            is_bundled = case.pair == "bundled"
            max_tokens = arguments.max_tokens if is_bundled else arguments.full_price_max_tokens
            rounds = arguments.rounds if is_bundled else arguments.full_price_rounds
            rows.append(measure(llm, case, groups_of(llm, case, max_tokens), rounds))
            engines[f"{case.pair} {case.drafter}"] = {**llm.describe(), "policy": llm.policy.describe()}
            if len(rows) >= min(len(WORKLOADS), len(chosen)):  # the first ones, which the mean is of
                save("drafting", began, document(rows, engines))


def document(rows: list[dict[str, Any]], engines: dict[str, Any]) -> dict[str, Any]:
    """What is kept after each case: half an hour is long, and who is stopped meanwhile loses nothing."""
    six = [row for row in rows if row["drafter"] == "cascade" and not row["temperature"]]
    mean = geometric_mean_interval([row["speedup_of_groups"] for row in six])
    print(f"cascade, {len(six)} workloads, greedy: {show(mean)}", flush=True)
    return {"cascade_geometric_mean": mean._asdict(), "rows": rows, "engines": engines}


if __name__ == "__main__":
    main()
