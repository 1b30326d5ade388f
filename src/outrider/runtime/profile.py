"""What a forward costs on this machine, by the number of its rows: measured once for a checkpoint, and remembered.

A policy starts from these and goes on learning, so they need to have the right shape more than the right height.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from outrider.cache.table import FIRST_BLOCKS, num_blocks_for
from outrider.runtime.base import Runtime, SequenceRows
from outrider.runtime.remembered import machine_key, recall, remember

# One sequence's rows: around where kernels change, and as far as a deep draft or many sequences go.
TARGET_WIDTHS = (1, 5, 8, 12, 16, 24, 32, 48, 64)
DRAFT_WIDTHS = (1, 5)
# Attention costs by the sequence, too: several with so many rows each.
NUM_TOGETHER, WIDTHS_TOGETHER = 8, (1, 2, 4, 8)
NUM_ROUNDS, NUM_TIMED, NUM_SETTLING = 3, 2, 5
# Of how all this is timed: what was remembered of another way is not recalled.
PROFILE_VERSION = 2
# Of what was remembered, what a forward takes now if that was a bad moment. (It is of a text that has just begun.)
SLOW_SHARE = 0.7
# A large model is timed at fewer widths: what lies beyond is taken to go on in the same slope.
MAX_SECONDS = 3.0
MIN_WIDTHS = 3
# Attention's share is that of a text of some length.
NUM_PAST, NUM_AT_ONCE = 256, 32
# Parts of prompts, the shortest first: runtimes fill up a draft model's to few lengths.
WARM_LENGTHS = (16, 32, 64, 128, 192, 256)
MAX_WARM_SECONDS = 0.5
# A change is never taken to be worth more rows.
MAX_CHANGE_ROWS = 64.0


class Profile(NamedTuple):
    """Seconds of a forward, by how many rows it computes.

    Attributes:
        points: (rows computed, seconds), of forwards like the one before.
        change_seconds: what a forward takes longer if the one before computed another number of rows.
        together: the same of forwards of `NUM_TOGETHER` sequences; may be empty.
    """

    points: list[tuple[int, float]]
    change_seconds: float
    together: list[tuple[int, float]]

    @property
    def change_rows(self) -> float:
        """Rows that take as long to compute as a change takes."""
        (least, low), (most, high) = self.points[0], self.points[-1]
        seconds_per_row = max((high - low) / max(most - least, 1), low / MAX_CHANGE_ROWS)
        return min(self.change_seconds / seconds_per_row, MAX_CHANGE_ROWS)


def measure_profile(runtime: Runtime, widths: Sequence[int] = TARGET_WIDTHS) -> Profile:
    """Time a few forwards. The runtime's cache serves the measurement and is emptied."""
    num_past = min(NUM_PAST, runtime.config.max_context - max(widths) - 1)
    if num_past < 1:
        widths, num_past = (1,), 0
    num_blocks = num_blocks_for(num_past + max(*widths, *WIDTHS_TOGETHER, runtime.min_rows))
    runtime.resize(NUM_TOGETHER * num_blocks)
    try:
        blocks = [range(index * num_blocks, (index + 1) * num_blocks) for index in range(NUM_TOGETHER)]
        num_past = _fill(blocks, num_past, runtime)
        alone = _distinct([[_rows(width, num_past, blocks[0])] for width in widths], runtime)
        timed = _time(alone, runtime)
        is_target = widths == TARGET_WIDTHS  # drafts' costs are learned as they are made
        together = [[_rows(width, num_past, each) for each in blocks] for width in WIDTHS_TOGETHER if is_target]
        return Profile(timed.points, timed.change_seconds, _time(_distinct(together, runtime), runtime).points)
    finally:
        runtime.resize(0)


def _fill(blocks: list[range], num_past: int, runtime: Runtime) -> int:
    """Compute pasts of this length, or as long as the time allowed goes: how long they are."""
    began, num_filled = time.perf_counter(), 0
    while num_filled < num_past and (not num_filled or time.perf_counter() - began < 0.5 * MAX_SECONDS):
        num_more = min(NUM_AT_ONCE, num_past - num_filled)
        runtime.forward([SequenceRows([0] * num_more, num_filled, each, ()) for each in blocks])
        num_filled += num_more
    return num_filled


def _rows(num_rows: int, num_past: int, blocks: range) -> SequenceRows:
    return SequenceRows([0] * num_rows, num_past, blocks, range(num_rows))


def warm_up(runtime: Runtime) -> None:
    """Compute parts of a prompt and a few tokens, so that the first texts do not wait for what each first time takes.

    The cache is left as large as it is going to be at first: of another size, it would be another shape.
    """
    num_past = min(NUM_AT_ONCE, runtime.config.max_context - 2)
    lengths = [length for length in WARM_LENGTHS if length <= runtime.config.max_context]
    blocks = range(num_blocks_for(max([num_past + max(2, runtime.min_rows), *lengths])))
    runtime.resize(max(len(blocks), FIRST_BLOCKS))
    for rows in (_rows(num_past, 0, blocks), _rows(1, num_past, blocks), _rows(2, num_past, blocks)):
        runtime.forward([rows])
    began = time.perf_counter()
    for length in lengths:
        if time.perf_counter() - began < MAX_WARM_SECONDS:
            runtime.forward([SequenceRows([0] * length, 0, blocks, ())])


def recalled_profile(runtime: Runtime, fingerprint: str | None, widths: Sequence[int] = TARGET_WIDTHS) -> Profile:
    """As measured here before, or now; `fingerprint` is the checkpoint's identity, None if it has none."""
    if fingerprint is None:
        return measure_profile(runtime, widths)
    name = f"profile/{machine_key(runtime, [fingerprint, list(widths), PROFILE_VERSION])}"
    profile = _as_profile(recall(name))
    if profile is None or _was_slow(profile, runtime):
        profile = measure_profile(runtime, widths)
        remember(name, profile)
    return profile


def _was_slow(profile: Profile, runtime: Runtime) -> bool:
    """Whether a forward takes much less now: then a bad moment was remembered, which slows all alike only roughly."""
    blocks = range(num_blocks_for(runtime.min_rows))
    runtime.resize(len(blocks))
    try:
        return _time([[_rows(1, 0, blocks)]], runtime).points[0][1] < SLOW_SHARE * profile.points[0][1]
    finally:
        runtime.resize(0)


def _as_profile(found: Any) -> Profile | None:
    """What a file says; a damaged one says nothing."""
    try:
        points, change_seconds, together = found
        profile = Profile(_as_points(points), float(change_seconds), _as_points(together))
    except (TypeError, ValueError):
        return None
    is_sound = profile.points and all(
        math.isfinite(seconds) and seconds > 0 for _, seconds in (*profile.points, *profile.together)
    )
    return profile if is_sound and 0 <= profile.change_seconds < math.inf else None


def _as_points(found: Any) -> list[tuple[int, float]]:
    return [(int(rows), float(seconds)) for rows, seconds in found]


class _Timed(NamedTuple):
    """Rows that forwards compute, seconds of each like the one before, and of each after one of other rows."""

    points: list[tuple[int, float]]
    changed: list[float]

    @property
    def change_seconds(self) -> float:
        """Between the first and the others nothing is known of what changes there take: that is left out."""
        changes = [changed - seconds for changed, (_, seconds) in zip(self.changed, self.points, strict=True)][1:]
        return max(0.0, median(changes)) if changes else 0.0


def _time(forwards: list[list[SequenceRows]], runtime: Runtime) -> _Timed:
    """Time forwards as far as the time allowed goes, in rounds: a bad moment then spoils no number of rows.

    Of several forwards alike the least counts, since whatever else runs on the machine only ever adds.
    """
    began = time.perf_counter()

    def is_late() -> bool:
        return time.perf_counter() - began > MAX_SECONDS

    known: list[list[SequenceRows]] = []
    for batch in forwards:  # the first time, whatever is new to the runtime is prepared
        if not (is_late() and len(known) >= MIN_WIDTHS):
            runtime.forward(batch)
            known.append(batch)
    least, changed = [math.inf] * len(known), [math.inf] * len(known)
    for number in range(NUM_ROUNDS):
        if number and is_late():
            break
        for batch in known[:1] * (NUM_SETTLING if number else 0):  # a runtime may be slow to go down
            runtime.forward(batch)
        for place, batch in enumerate(known):
            changed[place] = min(changed[place], _seconds(runtime, batch))
            least[place] = min(least[place], *(_seconds(runtime, batch) for _ in range(NUM_TIMED)))
    return _Timed([(_num_computed(batch, runtime), each) for batch, each in zip(known, least, strict=True)], changed)


def _distinct(forwards: list[list[SequenceRows]], runtime: Runtime) -> list[list[SequenceRows]]:
    """The fullest for each number of rows that is computed: a runtime that fills up computes the same for several."""
    return list({_num_computed(batch, runtime): batch for batch in forwards}.values())


def _num_computed(batch: list[SequenceRows], runtime: Runtime) -> int:
    return runtime.computed_rows([len(rows.token_ids) for rows in batch])


def _seconds(runtime: Runtime, batch: list[SequenceRows]) -> float:
    began = time.perf_counter()
    runtime.forward(batch)
    return time.perf_counter() - began
