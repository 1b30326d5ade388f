"""Ctrl-C between steps. Knows no steps."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event


@contextmanager
def noted_interrupt() -> Generator[Event]:
    """Within, Ctrl-C sets the event instead of raising, so that no step is torn in two; a second Ctrl-C raises."""
    interrupted = Event()

    def note(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)
