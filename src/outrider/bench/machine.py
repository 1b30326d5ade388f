"""One timed run at a time on this machine, and what memory it has. Knows nothing of what is timed."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def machine_to_ourselves(say_waiting: Callable[[], None] | None = None) -> Generator[None]:
    """Wait until no other timed run is on this machine; `say_waiting` is called first if there is one."""
    path = Path(tempfile.gettempdir()) / f"outrider-benchmark-{os.getuid()}.lock"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say_waiting is not None:
                say_waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_bytes() -> int | None:
    """Memory that is available now; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None
