"""One timed run at a time on this machine. Knows nothing of what is timed."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def machine_to_ourselves(say_waiting: Callable[[], None] | None = None) -> Generator[None]:
    """Wait until no other timed run is on this machine; `say_waiting` is called first if there is one."""
    with (Path(tempfile.gettempdir()) / "outrider-benchmark.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say_waiting is not None:
                say_waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
