"""What a forward costs on this machine, by the number of its rows: measured once for a checkpoint, and remembered.

A policy starts from these and goes on learning, so they need to have the right shape more than the right height.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

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

Profile = list[tuple[int, float]]  # rows computed and seconds, of forwards like the one before


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
        profile = [(int(rows), float(seconds)) for rows, seconds in found]
    except (TypeError, ValueError):
        return None
    return profile if profile and all(0 < seconds < math.inf for _, seconds in profile) else None


def _time(forwards: list[SequenceRows], runtime: Runtime) -> Profile:
    """Each width several times in a row, since a first one prepares."""
    profile: Profile = []
    began = time.perf_counter()
    for rows in forwards:
        runtime.forward([rows])
        # The least, since whatever else runs on the machine only ever adds.
        seconds = min(_seconds(runtime, rows) for _ in range(NUM_TIMED))
        profile.append((runtime.computed_rows([len(rows.token_ids)]), seconds))
        if time.perf_counter() - began > MAX_SECONDS and len(profile) >= MIN_WIDTHS:
            break
    return profile


def _seconds(runtime: Runtime, rows: SequenceRows) -> float:
    began = time.perf_counter()
    runtime.forward([rows])
    return time.perf_counter() - began
