"""What every benchmark shares: fixed prompts, one timed run at a time, paired ratios, and a result with provenance."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from outrider.bench.provenance import provenance, write_json

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PROMPTS_SHA256 = "8f92d1ea348185a9bf67561430b5079c21d7065a44370621901816af4ba4c0f3"
NUM_RESAMPLES = 10_000


class Prompt(NamedTuple):
    """One beginning that a benchmark continues."""

    name: str
    text: str


def read_prompts() -> list[Prompt]:
    """The prompts as they were fixed before the first measurement."""
    data = (FOLDER / "prompts.jsonl").read_bytes()
    if (digest := hashlib.sha256(data).hexdigest()) != PROMPTS_SHA256:
        raise SystemExit(
            f"prompts.jsonl has sha256 {digest}, not {PROMPTS_SHA256}: prompts are fixed, results would not compare"
        )
    return [Prompt(entry["name"], entry["prompt"]) for entry in map(json.loads, data.splitlines())]


@contextmanager
def machine_to_ourselves() -> Iterator[None]:
    """Wait until no other timed run is on this machine."""
    with (Path(tempfile.gettempdir()) / "outrider-benchmark.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Ratio(NamedTuple):
    """A median of paired ratios with its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    num_pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Median of `numerator / denominator`, pair by pair; the pairs are resampled."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(NUM_RESAMPLES))
    low, high = medians[int(0.025 * NUM_RESAMPLES)], medians[int(0.975 * NUM_RESAMPLES)]
    return Ratio(statistics.median(ratios), low, high, len(ratios))


def save(name: str, document: dict[str, Any]) -> None:
    """Write `results/NAME.json`, and print it as the last line of the output."""
    result = {"benchmark": name, "provenance": provenance(), **document}
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
    print(json.dumps(result), flush=True)
