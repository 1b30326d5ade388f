"""We beside our peers on full-price pairs: the comparison of `outrider bench --peers`, in parts of a few minutes.

    python -m benchmarks.peers [--part NAME]... [--peers NAME,NAME]

Pairs are those of `outrider bench make-pair --size 0.5b --agreement A --out build/pairs/0.5b-A`, peers those of
`make peers`. Each part loads everybody anew and is kept with its own provenance: one that is measured again takes the
place of the old one. A finding is our ratio to the best peer at its best setting, the one that came nearest to us:
its seconds per token over ours, paired by prompt, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import machine_to_ourselves, old_memory_occupied, save, show
from outrider.bench.compare import BenchPlan
from outrider.bench.groups import Interruption
from outrider.bench.measure import Interval
from outrider.bench.peers.compare import compare_peers, hold_out
from outrider.bench.peers.engine import PLAIN
from outrider.bench.peers.peer import PeerEngine, Work, load_peer, parse_names
from outrider.bench.peers.results import num_differing, peers_document
from outrider.bench.peers.worker import PeerError
from outrider.bench.provenance import provenance
from outrider.bench.workloads import read_workloads
from outrider.cli.bench_show import Run, identities, load_ours


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured at one go.

    Attributes:
        agreement: of the pair.
        workloads: what is continued.
        num_prompts: of each.
        kinds: of the peers' settings that are tried.
        temperatures, concurrency: as they are elsewhere.
        drafts: what ours drafts with, besides the pair's draft model.
    """

    agreement: str
    workloads: tuple[str, ...] = ("code", "chat")
    num_prompts: int = 3
    kinds: tuple[str, ...] = (PLAIN, "draft")
    temperatures: tuple[float, ...] = (0.0, 1.0)
    concurrency: int = 1
    drafts: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether nobody speculates."""
        return self.kinds == (PLAIN,)


# By ours and all peers together, with drafts.
BYTES_TO_LOAD = 13 * 2**30

PARTS = {
    "plain": Part("0.8", num_prompts=2, kinds=(PLAIN,), temperatures=(0.0,)),
    "0.95": Part("0.95"),
    "0.8": Part("0.8"),
    "0.6": Part("0.6"),
    "edit": Part("0.8", ("edit", "repeat"), 3, (PLAIN, "draft", "lookup"), (0.0,), drafts=("suffix",)),
    "crowd": Part("0.8", ("code", "prose", "summary", "chat"), 4, temperatures=(0.0,), concurrency=8),
}


def measure(part: Part, names: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """One part, everybody loaded for it."""
    folder = arguments.pairs / f"0.5b-{part.agreement}"
    drafts = [*part.drafts, str(folder / "draft")]
    measured, tuning = hold_out(read_workloads(part.workloads), part.num_prompts)
    plan = BenchPlan(
        workloads=tuple(measured),
        temperatures=part.temperatures,
        concurrencies=(part.concurrency,),
        depth=0 if part.is_plain else "auto",
        num_runs=arguments.rounds,
        max_tokens=arguments.max_tokens,
    )
    llm = load_ours(folder / "target", drafts, plan, Run(json=None, html=None, num_threads=None, verify="coupled"))
    options = llm.target.options
    work = Work(
        target=folder / "target", draft=folder / "draft", dtype=str(options.dtype), num_threads=options.num_threads or 1
    )
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        peers: list[PeerEngine] = []
        for name in names:
            say(f"loading {name}")
            try:
                peers.append(load_peer(name, work))
            except PeerError as error:
                skipped[name] = str(error)
                continue
            stack.callback(peers[-1].close)
            peers[-1].settings = tuple(each for each in peers[-1].settings if each.partition(" ")[0] in part.kinds)
        comparison = compare_peers(llm, peers, plan, tuning, Interruption(report=say), takes_plain_turns=False)
    if number := num_differing(comparison):
        raise SystemExit(f"{number} texts of ours differ from plain decoding's: no speed is worth reporting")
    document = peers_document(plan, comparison, {peer.name: peer.facts for peer in peers}, skipped)
    return {
        "models": identities(folder / "target", drafts),
        "engine": llm.describe(),
        **document,
        "findings": [*findings(document["rows"])],
    }


def say(words: str) -> None:
    print(words, flush=True)


def findings(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each workload, temperature and number of texts the peer that came nearest to us."""
    places: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("ratio"):
            places.setdefault((row["workload"], row["temperature"], row["concurrency"]), []).append(row)
    for (workload, temperature, concurrency), found in places.items():
        best = min(found, key=lambda row: row["ratio"]["median"])
        yield {
            "workload": workload, "temperature": temperature, "concurrency": concurrency,
            "best_peer": best["engine"], "setting": best["setting"], "ratio": best["ratio"],
            "ratios": {row["engine"]: row["ratio"] for row in found},
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one, or these")
    parser.add_argument("--peers", type=parse_names, default=parse_names("all"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--pairs", type=Path, default=Path("build/pairs"))
    arguments = parser.parse_args()
    path = common.RESULTS / "peers.json"
    for name in arguments.part or PARTS:
        began = provenance()
        with machine_to_ourselves(), old_memory_occupied(BYTES_TO_LOAD):
            found = measure(PARTS[name], arguments.peers, arguments)
        for each in found["findings"]:
            where = f"{name}, {each['workload']}, T = {each['temperature']:g}"
            say(f"{where}: {show(Interval(**each['ratio']))} over {each['best_peer']}, {each['setting']}")
        parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
        parts[name] = {"provenance": began, **found}
        save("peers", began, {"parts": {each: parts[each] for each in PARTS if each in parts}})


if __name__ == "__main__":
    main()
