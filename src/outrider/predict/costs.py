"""What a decoding step takes on this machine: the target by rows, drafts by their steps, and what is neither.

Made of timings: a few steps of an engine at one depth, timed stage by stage. Timings come in rounds, in each of which
every setting was timed once, so that a machine that gets slower or faster meanwhile slows or speeds all settings alike.
Knows seconds and counts; what times them is in `calibrate`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev
from typing import NamedTuple

from outrider.predict.trace import CHAINS, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a step, means over a few in a row.

    Attributes:
        round: in which it was timed.
        is_greedy: noise and sampling cost nothing there.
        num_sequences: that the steps decoded together.
        depth: guesses made for each, or nodes of a tree.
        num_rows: roots and guesses of all sequences.
        draft, target, other: seconds of a step in the drafter, in the target's forward and in all else.
        first: seconds that steps took longer after a text had joined the others: a draft model reads the prompt, and a
            target is slow to go over from a prompt's rows to a step's.
        num_steps: that these are means over.
        way: that drafts were made and kept.
    """

    round: int
    is_greedy: bool
    num_sequences: int
    depth: int
    num_rows: int
    draft: float
    target: float
    other: float
    first: float = 0.0
    num_steps: int = 8
    way: Way = CHAINS

    @property
    def total(self) -> float:
        return self.draft + self.target + self.other

    def over(self, factor: float) -> Timing:
        """The same, so many times as fast."""
        return replace(
            self,
            draft=self.draft / factor,
            target=self.target / factor,
            other=self.other / factor,
            first=self.first / factor,
        )


class StepSeconds(NamedTuple):
    """Of one step, by where they go."""

    draft: float
    target: float
    other: float

    @property
    def total(self) -> float:
        return self.draft + self.target + self.other


class Costs:
    """What timings of one number of sequences and one kind of sampling come to.

    Args:
        timings: of all settings; of those that do not fit nothing is taken.
        computed_rows: how many rows the target computes for so many.
        is_greedy, num_sequences: of the steps meant.
    """

    def __init__(
        self, timings: Sequence[Timing], computed_rows: Callable[[int], int], *, is_greedy: bool, num_sequences: int
    ) -> None:
        self.num_sequences = num_sequences
        self._computed_rows = computed_rows
        chosen = [
            timing for timing in timings if (timing.is_greedy, timing.num_sequences) == (is_greedy, num_sequences)
        ]
        chosen = _levelled(chosen)
        self.rounds = sorted({timing.round for timing in chosen})
        self._plain_target, self._target = self._targets(chosen)
        self._draft = _points([(timing.depth, timing.draft) for timing in chosen])
        self._other = _points([(timing.depth, timing.other) for timing in chosen])
        self.first_plain, self.first = (
            max(median(firsts), 0.0) if firsts else 0.0
            for firsts in (
                [timing.first for timing in chosen if bool(timing.depth) == is_drafted] for is_drafted in (False, True)
            )
        )
        self.is_known = bool(self._plain_target)

    def _targets(self, chosen: Sequence[Timing]) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Seconds of plain forwards, and of those beside a drafter by the rows that are computed.

        A drafter may slow the target's forward down, even one of as many rows. But where the rounds do not show that,
        forwards of as many rows are taken for the same: what disturbs the timing of either is then in both, and leaves
        their ratio alone.
        """
        fewest = self._computed_rows(self.num_sequences)
        plain = [(fewest, timing.target) for timing in chosen if not timing.depth]
        drafted = [(self._computed_rows(timing.num_rows), timing.target) for timing in chosen if timing.depth]
        alike = [timing for timing in chosen if timing.depth and self._computed_rows(timing.num_rows) == fewest]
        if alike and not _differ([timing for timing in chosen if not timing.depth], alike):
            together = _points([*plain, *drafted])
            return together[:1], together
        return _points(plain), _points(drafted if alike else [*plain, *drafted])

    def step(self, num_drafted: int, num_rows: int, num_draft_steps: int | None = None) -> StepSeconds:
        """Of a step of all sequences.

        Args:
            num_drafted: guesses of the sequence that has most.
            num_rows: roots and guesses of all, or as many as are computed for them.
            num_draft_steps: of a draft model; None: as many as guesses.
        """
        # Without guesses it is a plain step only where the runtime does not stay at the rows of those before.
        computed, fewest = self._computed_rows(num_rows), self._computed_rows(self.num_sequences)
        drafting = _at(self._draft, num_drafted if num_draft_steps is None else num_draft_steps)
        return StepSeconds(
            max(drafting, self._draft[0][1]),
            _at(self._target, computed) if num_drafted or computed > fewest else self._plain_target[0][1],
            _at(self._other, num_drafted),
        )

    @property
    def plain(self) -> StepSeconds:
        """A step without drafts."""
        return self.step(0, self.num_sequences)

    @property
    def draft_step(self) -> float | None:
        """Seconds of one draft step more; None where no draft was timed."""
        if len(self._draft) < 2:
            return None
        (depth, seconds), (deepest, most) = self._draft[0], self._draft[-1]
        return (most - seconds) / (deepest - depth)

    def describe(self) -> dict[str, list[tuple[float, float]]]:
        return {"target_by_rows": self._target, "draft_by_depth": self._draft, "other_by_depth": self._other}


def _differ(first: Sequence[Timing], second: Sequence[Timing]) -> bool:
    """Whether rounds show that forwards of two kinds take different times: by twice the standard error and more.

    Where fewer than three rounds have both, nobody can know, and they are taken for different.
    """
    logs: list[float] = []
    for number in {timing.round for timing in first}:
        ours, theirs = ([timing.target for timing in each if timing.round == number] for each in (first, second))
        if ours and theirs:
            logs.append(math.log(fmean(ours) / fmean(theirs)))
    if len(logs) < 3:
        return True
    return abs(fmean(logs)) > 2 * stdev(logs) / math.sqrt(len(logs))


def _levelled(timings: Sequence[Timing]) -> list[Timing]:
    """As if all rounds had been equally fast: a machine's slow seconds slow all settings of their round alike.

    A round's slowness is the median over its settings of what each took there over its own median of all rounds.
    """
    totals: dict[int, list[float]] = {}
    for timing in timings:
        totals.setdefault(timing.depth, []).append(timing.total)
    usual = {depth: median(values) for depth, values in totals.items()}
    slowness: dict[int, list[float]] = {}
    for timing in timings:
        slowness.setdefault(timing.round, []).append(timing.total / usual[timing.depth])
    return [timing.over(median(slowness[timing.round])) for timing in timings]


def _points(pairs: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """The middle of all seconds at each place, ascending.

    Of rounds, not of steps: a round that something else disturbed says nothing of the others.
    """
    by_place: dict[int, list[float]] = {}
    for place, seconds in pairs:
        by_place.setdefault(place, []).append(seconds)
    return [(place, _middle(values)) for place, values in sorted(by_place.items())]


def _middle(values: Sequence[float]) -> float:
    """The mean without the outer quarters: steadier than a mean, and smoother than a median of few."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return fmean(ordered[cut : len(ordered) - cut])


def _at(points: Sequence[tuple[float, float]], place: float) -> float:
    """Between two points on the line that joins them; beyond the last, on in the same slope."""
    if len(points) == 1:
        return points[0][1]
    index = min(max(bisect_left(points, (place, 0.0)), 1), len(points) - 1)
    (left, low), (right, high) = points[index - 1], points[index]
    seconds = low + (high - low) * (place - left) / (right - left)
    return max(seconds, 0.0) if place >= points[0][0] else points[0][1]
