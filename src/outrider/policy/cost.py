"""What steps cost on this machine: learned while decoding, from a profile on. Knows no sequences and no clocks.

A machine that others use has slow spells, which make every step dearer by the same factor and so change no decision.
So the common speed, which follows quickly, is kept apart from what a step costs at the usual speed, which follows
slowly.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence as Sequences
from copy import deepcopy
from itertools import accumulate
from typing import Any, NamedTuple

from outrider.policy.draft_cost import ASSUMED_DRAFT_SHARE, DraftCosts
from outrider.policy.thinking import Thinking
from outrider.sequence import DraftWork

# Of a target without a profile: what one row more adds to the cost of a single row.
ASSUMED_ROW_SHARE = 0.03

SPEED_GAIN, CHANGE_GAIN = 0.1, 0.05
NUM_TELLING = 4  # steps after a change of rows that tell what these cost
READY_SPEED_SHARE = 0.25  # of a surprise with a change that needs no preparing, which may be in every step
MAX_CHANGE_GROWTH = 3.0  # over what a change was measured to take
MAX_SURPRISE = 0.5  # of a logarithm: a step six tenths dearer than expected counts for no more
MIN_SHAPE_GAIN = 0.04
NUM_TRUSTED_PROFILE = 12  # observations that a profile counts for
MAX_COMPUTED = 8192  # numbers of rows whose computed rows are kept
NUM_TOLD = 3  # chunks that a drafter caught up on, after which it is known what the rest will take
NUM_UNREAD = 8  # corrections that estimates may lag behind: working them out takes time too


def sum_of_rows(num_rows: Sequences[int]) -> int:
    """What a runtime computes that does not fill up."""
    return sum(max(1, rows) for rows in num_rows)


class Changes(NamedTuple):
    """What a step takes longer if it computes another number of rows than the one before.

    Attributes:
        seconds: as far as known; learned on unless it is 0.
        is_ready_for: whether computing so many rows needs no preparing, whatever was computed before. Even then the
            processor's cache may not hold what it needs: what that takes is learned, too.
    """

    seconds: float = 0.0
    is_ready_for: Callable[[int], bool] = lambda _: False


NO_CHANGES = Changes()


class TargetCosts:
    """Seconds of a step of the target by rows computed, at the usual speed.

    A step of more than `max_rows` takes several forwards, as large as each other.
    """

    def __init__(self, profile: Sequences[tuple[int, float]], max_rows: float = math.inf) -> None:
        self._max_rows = max_rows
        self._points: list[tuple[int, float]] = []
        for rows, seconds in sorted(profile):
            highest = self._points[-1][1] if self._points else 0.0
            self._points.append((rows, max(seconds, highest)))
        self._num_trusted = NUM_TRUSTED_PROFILE if self._points else 0
        self._corrections: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        # What follows from the corrections: rows corrected, the highest estimate up to each, and seconds asked for.
        self._known: list[int] = []
        self._highest: list[float] = []
        self._seconds: dict[int, float] = {}
        self._num_unread = 0

    @property
    def is_known(self) -> bool:
        return bool(self._points)

    def seconds(self, rows: int) -> float:
        found = self._seconds.get(rows)
        if found is None:
            # More rows never take less time: where it looks so, it is noise.
            num_fewer = bisect_left(self._known, rows)
            fewer = self._highest[num_fewer - 1] if num_fewer else 0.0
            found = self._seconds[rows] = max(self._estimate(rows), fewer)
        return found

    def start(self, rows: int, seconds: float) -> None:
        """The first observation where there is no profile."""
        single = seconds / (1 + ASSUMED_ROW_SHARE * (rows - 1))
        self._points = [(1, single), (2, single * (1 + ASSUMED_ROW_SHARE))]
        self._counts[rows] = 1
        self._corrections[rows] = 0.0
        self._read()

    def correct(self, rows: int, surprise: float) -> float:
        """Take in by how much a step was dearer than expected; the part of it that was taken in."""
        gain = max(MIN_SHAPE_GAIN, 1 / (self._num_trusted + self._counts.get(rows, 0) + 2))
        self._corrections[rows] = self._correction(rows) + gain * surprise
        self._counts[rows] = self._counts.get(rows, 0) + 1
        self._num_unread += 1
        if self._num_unread >= NUM_UNREAD or self._counts[rows] == 1:
            self._read()
        return gain * surprise

    def forget(self) -> None:
        """Believe a profile more again: of what rows cost beside a single row, half of the corrections go."""
        if self._num_trusted and self._corrections:
            common = self._correction(self._points[0][0])
            self._corrections = {rows: (common + each) / 2 for rows, each in self._corrections.items()}
            self._read()

    def _read(self) -> None:
        """Have estimates follow the corrections."""
        self._num_unread = 0
        self._seconds.clear()
        self._known = sorted(self._corrections)
        self._highest = [*accumulate(map(self._estimate, self._known), max)]

    def _estimate(self, rows: int) -> float:
        return self._profiled(rows) * math.exp(self._correction(rows))

    def describe(self) -> dict[str, float]:
        """Seconds by rows, where any were seen or measured."""
        return {str(rows): self.seconds(rows) for rows in sorted({*dict(self._points), *self._counts})}

    def _correction(self, rows: int) -> float:
        if rows in self._corrections or not self._corrections:
            return self._corrections.get(rows, 0.0)
        known = self._known
        place = bisect_left(known, rows)
        if place == 0 or place == len(known):
            return self._corrections[known[min(place, len(known) - 1)]]
        low, high = known[place - 1], known[place]
        share = (rows - low) / (high - low)
        return (1 - share) * self._corrections[low] + share * self._corrections[high]

    def _profiled(self, rows: int) -> float:
        num_forwards = math.ceil(rows / self._max_rows)
        return self._forward(rows) if num_forwards < 2 else num_forwards * self._forward(rows / num_forwards)

    def _forward(self, rows: float) -> float:
        points = self._points
        if len(points) == 1:
            return points[0][1] * (1 + ASSUMED_ROW_SHARE * (rows - points[0][0]) / (1 + ASSUMED_ROW_SHARE))
        place = min(max(bisect_left(points, (rows, 0.0)), 1), len(points) - 1)
        (low, below), (high, above) = points[place - 1], points[place]
        # Below the first point a line may fall too far: most of a small forward is reading the weights.
        return max(below + (above - below) * (rows - low) / (high - low), 0.5 * points[0][1])


class StepCosts:
    """What plans cost, in seconds at the usual speed.

    Args:
        profile: seconds of a forward of the target by rows computed, as measured; may be empty.
        computed_rows: rows that the runtime computes for so many of each sequence.
        priors: by source, seconds of a draft step; None or absent if nothing is known.
        changes: of the number of rows.
        together: so many sequences, and the same profile of forwards that they share.
        max_rows: of a forward; a step of more takes several. None: of any number.

    Attributes:
        change_seconds: what a change takes, as learned.
        ready_seconds: the same of a change that needs no preparing.
        speed: by what factor steps take longer now than usually.
        thinking: what deciding and asking take, at the usual speed.

    Example:
        >>> costs = StepCosts([(1, 0.050), (5, 0.054)])
        >>> round(costs.target(3), 3)
        0.052
    """

    def __init__(
        self,
        profile: Sequences[tuple[int, float]] = (),
        computed_rows: Callable[[Sequences[int]], int] = sum_of_rows,
        priors: Mapping[str, float | None] | None = None,
        *,
        changes: Changes = NO_CHANGES,
        together: tuple[int, Sequences[tuple[int, float]]] = (1, ()),
        max_rows: int | None = None,
    ) -> None:
        self._rows_of = computed_rows
        self._computed: dict[tuple[int, ...], int] = {}
        self.change_seconds, self._is_ready_for = changes
        self.ready_seconds = 0.0
        self.speed = 1.0
        self.thinking = Thinking()
        limit = max_rows or math.inf
        self._alone, self._num_together = TargetCosts(profile, limit), together[0]
        self._together = TargetCosts(together[1], limit) if together[1] else self._alone
        self._sequence_seconds = 0.0
        if together[1]:
            rows, seconds = min(together[1])
            self._sequence_seconds = max(0.0, seconds - self._alone.seconds(rows)) / (together[0] - 1)
        self._drafts = {source: DraftCosts(prior) for source, prior in (priors or {}).items()}
        self._rehearsed: dict[str, DraftCosts] = {}
        self._max_change_seconds = MAX_CHANGE_GROWTH * changes.seconds
        self._last_rows: int | None = None
        self._prepared_rows: int | None = None
        self._num_since_change = NUM_TELLING
        self._num_steps = 0

    @property
    def is_known(self) -> bool:
        """Whether anything is known of the target."""
        return self._alone.is_known

    @property
    def last_rows(self) -> int | None:
        """Rows that the last step computed."""
        return self._last_rows

    @property
    def prepared_rows(self) -> int | None:
        """Rows that the runtime prepared for in the last step that had to."""
        return self._prepared_rows

    def computed_rows(self, num_rows: Sequences[int]) -> int:
        """Rows that the runtime computes for so many of each sequence; kept, since plans ask again and again."""
        key = tuple(num_rows)
        found = self._computed.get(key)
        if found is None:
            if len(self._computed) == MAX_COMPUTED:
                self._computed.clear()
            found = self._computed[key] = self._rows_of(num_rows)
        return found

    def change(self, rows: int) -> float:
        """What preparing for so many rows would take now, after the last steps."""
        if self._last_rows in (None, rows):
            return 0.0
        is_prepared = self._prepared_rows in (None, rows) or self._is_ready_for(rows)
        return self.ready_seconds if is_prepared else self.change_seconds

    def change_between(self, rows: int, others: int) -> float:
        """Half of what going to another number of rows and back takes: less if either of the two needs no preparing."""
        if rows == others:
            return 0.0
        is_ready = self._is_ready_for(rows) or self._is_ready_for(others)
        return self.ready_seconds if is_ready else self.change_seconds

    def target(self, rows: int, num_sequences: int = 1) -> float:
        """Of a forward that computes so many rows for so many sequences."""
        if num_sequences == 1:
            return self._alone.seconds(rows)
        seconds = self._together.seconds(rows)
        return max(seconds + self._sequence_seconds * (num_sequences - self._num_together), 0.5 * seconds)

    def draft(self, source: str, num_sequences: int) -> tuple[float, float]:
        """Fixed seconds of a draft and seconds of each of its steps."""
        return self._draft(source).line(num_sequences, ASSUMED_DRAFT_SHARE * self.target(1))

    def catch_up(self, source: str, num_tokens: int) -> float:
        """Of a drafter computing tokens that it has not seen."""
        return self._draft(source).catch_up(num_tokens)

    def num_drafts(self, source: str) -> int:
        """Drafts that were learned from."""
        return self._draft(source).num_observed

    def chunks(self, source: str) -> tuple[int, int]:
        """Calls learned from in which a drafter did nothing but catch up, and tokens of the largest."""
        costs = self._draft(source)
        return costs.num_chunks, costs.largest_chunk

    def is_told(self, source: str) -> bool:
        """Whether it is known what catching up takes."""
        return self.num_drafts(source) > 0 or self.chunks(source)[0] >= NUM_TOLD

    def observe_target(self, rows: int, seconds: float, num_sequences: int = 1) -> None:
        """Learn from a step, the draft's seconds left out.

        What it took more than expected is laid to the machine's speed; soon after a change of rows in part to these.
        Where a change takes time of its own, the step with it tells of that.
        """
        change, is_change, is_ready = self.change(rows), self._last_rows not in (None, rows), self._is_ready_for(rows)
        is_prepared = is_ready or self._prepared_rows in (None, rows)
        if not is_ready:
            self._prepared_rows = rows
        self._num_since_change = 0 if is_change else self._num_since_change + 1
        self._last_rows = rows
        if seconds <= 0:
            return
        if not self.is_known:
            self._alone.start(rows, seconds)
            return
        usual = self.target(rows, num_sequences)
        surprise = math.log(seconds / ((usual + change) * self.speed))
        self._num_steps += 1
        if self._num_steps > 3:  # a profile may be off by any factor, but not by a different one each time
            surprise = min(max(surprise, -MAX_SURPRISE), MAX_SURPRISE)
        if is_change and self._max_change_seconds:
            surprise *= self._learn_change((usual, change), surprise, is_prepared=is_prepared)
        elif self._num_since_change <= NUM_TELLING:
            table = self._alone if num_sequences == 1 else self._together
            surprise -= table.correct(rows, min(max(surprise, -MAX_SURPRISE), MAX_SURPRISE))
        self.speed *= math.exp(max(SPEED_GAIN, 1 / (self._num_steps + 1)) * surprise)

    def _learn_change(self, expected: tuple[float, float], surprise: float, *, is_prepared: bool) -> float:
        """Learn what a change takes from a step with one, expected as usual and for the change; speed's share of it."""
        usual, change = expected
        learned = change + CHANGE_GAIN * (usual + change) * (math.exp(surprise) - 1)
        if is_prepared:
            self.ready_seconds = min(max(learned, 0.0), self.change_seconds)
            return READY_SPEED_SHARE
        self.change_seconds = min(max(learned, 0.1 * self._max_change_seconds), self._max_change_seconds)
        return usual / (usual + change)

    def observe_draft(self, work: DraftWork) -> None:
        """Learn from a draft. Call after `observe_target` of the same step."""
        costs, seconds = self._draft(work.source), work.seconds / self.speed
        costs.observe(work.num_steps, work.num_sequences, work.num_caught_up, seconds)

    def keep_drafts(self) -> None:
        """Have what was learned of drafts up to now outlast what will be learned."""
        self._rehearsed = deepcopy(self._drafts)

    def forget(self) -> None:
        """Doubt what nothing has put to the test for long: a bad moment may have made drafting look too dear to try."""
        self.ready_seconds /= 2
        self._alone.forget()
        if self._together is not self._alone:
            self._together.forget()
        for source, rehearsed in self._rehearsed.items():
            if sum(rehearsed.line(1, 0.0)) < sum(self._draft(source).line(1, 0.0)):
                self._drafts[source] = deepcopy(rehearsed)

    def describe(self) -> dict[str, Any]:
        """What was learned, for a result's provenance: seconds at the usual speed."""
        return {
            "speed": self.speed,
            "target": self._alone.describe(),
            "together": {} if self._together is self._alone else self._together.describe(),
            "drafts": {source: costs.describe() for source, costs in self._drafts.items()},
        }

    def _draft(self, source: str) -> DraftCosts:
        found = self._drafts.get(source)
        if found is None:
            found = self._drafts[source] = DraftCosts(None)
        return found
