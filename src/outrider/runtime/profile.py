"""What a forward costs on this machine, by the number of its rows: measured once for a checkpoint, and remembered.

A policy starts from these and goes on learning, so they need to have the right shape more than the right height.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from outrider.cache.table import num_blocks_for
from outrider.runtime.base import Runtime, SequenceRows
from outrider.runtime.remembered import machine_key, recall, remember

# One sequence's rows: around where kernels change, and as far as a deep draft or many sequences go.
TARGET_WIDTHS = (5, 9, 13, 17, 25, 33, 49, 65)
DRAFT_WIDTHS = (1, 5)
NUM_TIMED = 5
# A large model is timed at fewer widths: what lies beyond is taken to go on in the same slope.
MAX_SECONDS = 3.0
MIN_WIDTHS = 3
NUM_PAST = 64


class Profile(NamedTuple):
    """Seconds of a forward, by how many rows it computes.

    Attributes:
        points: (rows computed, seconds), of forwards like the one before.
        change_seconds: what a forward takes longer if the one before computed another number of rows.
    """

    points: list[tuple[int, float]]
    change_seconds: float


def measure_profile(runtime: Runtime, widths: Sequence[int] = TARGET_WIDTHS) -> Profile:
    """Time one sequence's forwards. The runtime's cache serves the measurement and is emptied."""
    num_past = min(NUM_PAST, runtime.config.max_context - max(widths) - 1)
    if num_past < 1:
        widths, num_past = (1,), 0
    blocks = range(num_blocks_for(num_past + max(*widths, runtime.min_rows)))
    runtime.resize(len(blocks))
    try:
        if num_past:
            runtime.forward([SequenceRows([0] * num_past, 0, blocks, ())])
        return _time([SequenceRows([0] * width, num_past, blocks, range(width)) for width in widths], runtime)
    finally:
        runtime.resize(0)


def recalled_profile(runtime: Runtime, fingerprint: str | None, widths: Sequence[int] = TARGET_WIDTHS) -> Profile:
    """As measured here before, or now; `fingerprint` is the checkpoint's identity, None if it has none."""
    if fingerprint is None:
        return measure_profile(runtime, widths)
    name = f"profile/{machine_key(runtime, [fingerprint, list(widths)])}"
    profile = _as_profile(recall(name))
    if profile is None:
        profile = measure_profile(runtime, widths)
        remember(name, profile)
    return profile


def _as_profile(found: Any) -> Profile | None:
    """What a file says; a damaged one says nothing."""
    try:
        points, change_seconds = found
        profile = Profile([(int(rows), float(seconds)) for rows, seconds in points], float(change_seconds))
    except (TypeError, ValueError):
        return None
    seconds = [each for _, each in profile.points]
    is_sound = seconds and all(math.isfinite(each) and each > 0 for each in seconds)
    return profile if is_sound and 0 <= profile.change_seconds < math.inf else None


def _time(forwards: list[SequenceRows], runtime: Runtime) -> Profile:
    """Each width several times in a row; then from width to width, by when none is new to the runtime."""
    points: list[tuple[int, float]] = []
    began = time.perf_counter()
    for rows in forwards:
        runtime.forward([rows])
        num_computed = runtime.computed_rows([len(rows.token_ids)])
        # The least, since whatever else runs on the machine only ever adds.
        points.append((num_computed, min(_seconds(runtime, rows) for _ in range(NUM_TIMED))))
        if time.perf_counter() - began > MAX_SECONDS and len(points) >= MIN_WIDTHS:
            break
    for _ in range(NUM_TIMED):  # a runtime may be slow to go down
        runtime.forward([forwards[0]])
    changes = [_seconds(runtime, rows) - seconds for rows, (_, seconds) in zip(forwards[1:], points[1:], strict=False)]
    return Profile(points, max(0.0, median(changes)) if changes else 0.0)


def _seconds(runtime: Runtime, rows: SequenceRows) -> float:
    began = time.perf_counter()
    runtime.forward([rows])
    return time.perf_counter() - began
