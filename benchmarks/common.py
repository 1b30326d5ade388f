"""What every benchmark shares: fixed prompts, one timed run at a time, paired ratios, and a result with provenance."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from outrider.bench.machine import free_bytes, machine_to_ourselves
from outrider.bench.measure import Interval, paired_ratio
from outrider.bench.provenance import write_json

__all__ = ["Prompt", "machine_to_ourselves", "old_memory_occupied", "paired_ratio", "read_prompts", "save", "show"]

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PROMPTS_SHA256 = "8f92d1ea348185a9bf67561430b5079c21d7065a44370621901816af4ba4c0f3"


class Prompt(NamedTuple):
    """One beginning that a benchmark continues."""

    name: str
    text: str


@contextmanager
def old_memory_occupied(num_bytes_left: int) -> Generator[None]:
    """Hold all free memory but so many bytes, so that whoever is loaded meanwhile gets memory of one kind.

    A virtual machine's host takes back what a process has freed, and gives it again in small pages: of two processes
    that did the same work, the one loaded first took 1.2 to 1.6 times as long (docs/log.md).
    """
    num_bytes = (free_bytes() or 0) - num_bytes_left
    if num_bytes <= 0:
        yield
        return
    with mmap.mmap(-1, num_bytes) as held:
        for start in range(0, num_bytes, mmap.PAGESIZE):
            held[start] = 1
        yield


def read_prompts() -> list[Prompt]:
    """The prompts as they were fixed before the first measurement."""
    data = (FOLDER / "prompts.jsonl").read_bytes()
    if (digest := hashlib.sha256(data).hexdigest()) != PROMPTS_SHA256:
        raise SystemExit(
            f"prompts.jsonl has sha256 {digest}, not {PROMPTS_SHA256}: prompts are fixed, results would not compare"
        )
    return [Prompt(entry["name"], entry["prompt"]) for entry in map(json.loads, data.splitlines())]


def show(ratio: Interval) -> str:
    return f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def save(name: str, began: dict[str, Any], document: dict[str, Any]) -> None:
    """Write `results/NAME.json`, and print it as the last line of the output.

    Args:
        name: of the benchmark.
        began: provenance, taken before anything was measured: a commit made meanwhile is not what ran.
        document: what was measured.
    """
    result = {"benchmark": name, "provenance": began, **document}
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
    print(json.dumps(result), flush=True)
