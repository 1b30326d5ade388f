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


def of_turns(timings: Sequence[Timing], later: Later) -> list[Uncertainty]:
    """What the logarithm of a measured speedup owes to when its turns were taken.

    A round's settings share what is slow to change; what they do not share is over soon, and longer turns hold less
    of it. Both are as large as the rounds show (a two-way analysis of variance).

    Args:
        timings: of one number of sequences, in rounds.
        later: the turns.
    """
    logs = _logs(timings)
    depths = {depth for each in logs.values() for depth in each}
    whole = [each for each in logs.values() if len(each) == len(depths)]
    if len(whole) < 2 or len(depths) < 2:
        return [Uncertainty(math.inf, 1)]
    of_depth = {depth: fmean(each[depth] for each in whole) for depth in depths}
    differences = [[each[depth] - of_depth[depth] for depth in depths] for each in whole]
    of_rounds = [fmean(each) for each in differences]
    freedom = len(whole) - 1
    slow = math.fsum(each**2 for each in of_rounds) / freedom
    squares = [(one - mean) ** 2 for each, mean in zip(differences, of_rounds, strict=True) for one in each]
    quick = math.fsum(squares) / (freedom * (len(depths) - 1))
    share = min(fmean(timing.num_steps for timing in timings) / later.num_steps, 1.0)
    turns = 1 / later.num_turns + 1 / later.num_plain_turns
    return [
        Uncertainty(max(slow - quick / len(depths), 0.0) * turns, freedom),
        Uncertainty(quick * share * turns, freedom * (len(depths) - 1)),
    ]


def _logs(timings: Sequence[Timing]) -> Mapping[int, Mapping[int, float]]:
    """By round and depth, of a step's seconds."""
    found: dict[int, dict[int, list[float]]] = {}
    for timing in timings:
        found.setdefault(timing.round, {}).setdefault(timing.depth, []).append(math.log(timing.total))
    return {number: {depth: fmean(each) for depth, each in logs.items()} for number, logs in found.items()}
