"""How long a user waits: `outrider --help`, and `outrider run` from the shell to its first text.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import machine_to_ourselves, save
from outrider.bench.provenance import provenance

OUTRIDER = str(Path(sys.executable).parent / "outrider")


def seconds_to_first_byte(arguments: list[str]) -> float:
    began = time.perf_counter()
    with subprocess.Popen([OUTRIDER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        process.stdout.read(1)
        seconds = time.perf_counter() - began
        process.stdout.read()
    return seconds


def main() -> None:
    began = provenance()
    commands = {"help": ["--help"], "run": ["run", "import os\n\n\ndef main(", "--max-tokens", "32"]}
    with machine_to_ourselves():
        rows = []
        for name, arguments in commands.items():
            seconds_to_first_byte(arguments)  # the first time fills the disk cache
            seconds = [seconds_to_first_byte(arguments) for _ in range(15)]
            rows.append({"command": name, "median_seconds": statistics.median(seconds), "all_seconds": sorted(seconds)})
            print(f"outrider {name}: {statistics.median(seconds):.3f} s", flush=True)
    save("startup", began, {"rows": rows})


if __name__ == "__main__":
    main()
