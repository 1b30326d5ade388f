"""Hold memory that was freed lately, so that what is measured meanwhile gets memory of one kind.

    python -m benchmarks.hold [--leave GIB]

To be kept running beside a benchmark on a virtual machine, and begun anew when steps become slow again: of 0.5 B a
plain step took 115 to 170 ms without and 53 with it, on the same machine in the same minutes (docs/log.md).
"""

from __future__ import annotations

import argparse
import contextlib
import signal

from benchmarks.common import old_memory_occupied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leave", type=float, default=6.0, metavar="GIB", help="what the benchmark is left")
    arguments = parser.parse_args()
    with old_memory_occupied(int(arguments.leave * 2**30)), contextlib.suppress(KeyboardInterrupt):
        print(f"all but {arguments.leave:g} GiB are held: Ctrl-C gives them back", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
