"""How sure seconds are: what rounds of timing say of others, and of what is measured later. Knows numbers only.

Two things are asked, and they are not the same. How far may the timings' ratios lie from the machine's own? That is for
rounds to show, which are left out in turn; and where there are few, all depths are asked what rounds of this machine
differ by, not only the one that is meant. And how far from its own ratio may the machine itself lie when somebody tries
it once? Where settings take their turns minutes apart, each meets the machine as it then is: as fast as one round was,
or another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple, TypeVar

from outrider.predict.costs import Timing
from outrider.predict.interval import Uncertainty, spread

Unit = TypeVar("Unit")
# Rounds that follow one another are left out together, in so many parts: what slows one of them slows the next as well.
NUM_PARTS = 10
# Correlation of two depths' errors: both are held against the same plain steps, which are as uncertain as they are.
SHARED = 0.5
# Fewer say little of how fast a machine is at one time and at another.
ENOUGH_ROUNDS = 5


class Later(NamedTuple):
    """What a speedup is going to be measured on.

    Attributes:
        num_texts: of other prompts.
        num_turns, num_plain_turns: of the setting and of plain decoding, apart from each other.
        num_steps: of a turn.
    """

    num_texts: int
    num_turns: int
    num_plain_turns: int
    num_steps: float


def parts_of(rounds: Sequence[int]) -> list[tuple[int, ...]]:
    """Rounds in a row, in parts of about equal length."""
    num_parts = min(NUM_PARTS, len(rounds))
    bounds = [part * len(rounds) // num_parts for part in range(num_parts + 1)] if rounds else []
    return [tuple(rounds[begin:end]) for begin, end in pairwise(bounds)]


def pooled(parts: Sequence[Unit], ratios: Callable[[Sequence[Unit]], Sequence[float]]) -> Uncertainty:
    """What the logarithm of any depth's speedup owes to the rounds there happen to be, from what each depth's does.

    Args:
        parts: of the rounds.
        ratios: what some of them come to, at all depths.
    """
    if len(parts) < 2:
        return Uncertainty(math.inf, 1)
    left = [ratios([*parts[:place], *parts[place + 1 :]]) for place in range(len(parts))]
    found = [spread([math.log(value) for value in values]) for values in zip(*left, strict=True)]
    if not found:
        return Uncertainty(math.inf, 1)
    num_independent = len(found) / (1 + (len(found) - 1) * SHARED**2)
    return Uncertainty(fmean(each.variance for each in found), (len(parts) - 1) * num_independent)


class _Shown(NamedTuple):
    """By rounds of one number of sequences: sums of squares, and degrees of freedom.

    Attributes:
        slow: of the rounds' means.
        quick: of what settings differ by from them.
        num_rounds, num_settings: that have all settings, and of them.
    """

    slow: float
    quick: float
    num_rounds: int
    num_settings: int

    @property
    def freedom(self) -> int:
        return (self.num_rounds - 1) * (self.num_settings - 1)


def of_turns(timings: Sequence[Timing], num_sequences: int, later: Later) -> list[Uncertainty]:
    """What the logarithm of a measured speedup owes to when its turns were taken.

    A round's settings share what is slow to change; what they do not share is over soon, and longer turns hold less
    of it. Both are as large as the rounds show (a two-way analysis of variance). Where rounds with so many sequences
    are few, those with others are asked as well: it is the same machine.

    Args:
        timings: in rounds.
        num_sequences: of the turns.
        later: the turns.
    """
    shown = {number: _shown(timings, number) for number in {timing.num_sequences for timing in timings}}
    own = shown[num_sequences]
    asked = [own] if own.num_rounds >= ENOUGH_ROUNDS else [*shown.values()]
    asked = [each for each in asked if each.freedom > 0]
    if not asked:
        return [Uncertainty(math.inf, 1)]
    of_quick = sum(each.freedom for each in asked)
    quick = math.fsum(each.quick for each in asked) / of_quick
    of_slow = sum(each.num_rounds - 1 for each in asked)
    # Means over few settings hold some of what is quick, too.
    in_means = math.fsum((each.num_rounds - 1) * quick / each.num_settings for each in asked) / of_slow
    slow = max(math.fsum(each.slow for each in asked) / of_slow - in_means, 0.0)
    chosen = [timing.num_steps for timing in timings if timing.num_sequences == num_sequences]
    share = min(fmean(chosen) / later.num_steps, 1.0)
    turns = 1 / later.num_turns + 1 / later.num_plain_turns
    return [Uncertainty(slow * turns, of_slow), Uncertainty(quick * share * turns, of_quick)]


def _shown(timings: Sequence[Timing], num_sequences: int) -> _Shown:
    logs = _logs([timing for timing in timings if timing.num_sequences == num_sequences])
    settings = {setting for each in logs.values() for setting in each}
    whole = [each for each in logs.values() if len(each) == len(settings)]
    if not whole:
        return _Shown(0.0, 0.0, 0, len(settings))
    usual = {setting: fmean(each[setting] for each in whole) for setting in settings}
    differences = [[each[setting] - usual[setting] for setting in settings] for each in whole]
    means = [fmean(each) for each in differences]
    squares = [(one - mean) ** 2 for each, mean in zip(differences, means, strict=True) for one in each]
    return _Shown(math.fsum(mean**2 for mean in means), math.fsum(squares), len(whole), len(settings))


def _logs(timings: Sequence[Timing]) -> Mapping[int, Mapping[tuple[bool, int], float]]:
    """By round and setting, of a step's seconds."""
    found: dict[int, dict[tuple[bool, int], list[float]]] = {}
    for timing in timings:
        setting = timing.is_greedy, timing.depth
        found.setdefault(timing.round, {}).setdefault(setting, []).append(math.log(timing.total))
    return {number: {setting: fmean(each) for setting, each in logs.items()} for number, logs in found.items()}
