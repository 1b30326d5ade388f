"""How a worker is talked to: one JSON request a line on stdin, one JSON answer a line on stdout; anything else, stderr.

Runs in a peer's own environment, so it imports nothing of Outrider and nothing that is not Python's.

    {"do": "load", "target": DIR, "draft": DIR or null, "dtype": NAME, "threads": N, "folder": DIR}
        -> {"version": ..., "settings": ["plain", ...], ...}
    {"do": "write", "texts": [{"token_ids": [...], "max_tokens": N, "seed": N}], "temperature": T, "setting": NAME}
        -> {"token_ids": [[...], ...], "seconds": s, "first_seconds": s or null}
    whatever goes wrong -> {"error": "one line"}

A setting is a way to decode that the peer names itself; "plain" is one of them, and speculates nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

PR_SET_PDEATHSIG = 1  # of prctl


class Engine(Protocol):
    """What a worker serves."""

    def describe(self) -> dict[str, Any]:
        """Its version, its settings, and whatever else a result should say of it."""
        ...

    def write(self, texts: list[dict[str, Any]], temperature: float, setting: str) -> dict[str, Any]:
        """Texts of exactly `max_tokens` each, end tokens written like any other."""
        ...


def serve(load: Callable[..., Engine]) -> None:
    """Answer until stdin ends."""
    end_with_parent()
    # Libraries print where they like: nothing but answers may come out where answers are read.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine: Engine | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.pop("do") == "load":
                engine = load(**request)
                answer = engine.describe()
            else:
                assert engine is not None
                answer = engine.write(**request)
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked says it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def end_with_parent() -> None:
    """Whoever is stopped would outlive who stopped it; where the system can, it is ended instead."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
