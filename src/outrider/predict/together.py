"""Texts that decode together: from the steps of each to the steps of the batch.

As many texts as are asked for are decoded in every step: they begin together, and where one ends, one of them begins
again. A step takes as long as the longest draft in it, and the target computes the rows of all: neither is what an
average text would make of it. Where drafts vary in length, so does the number of rows, and a target that prepares anew
for another number takes longer. Knows numbers only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from outrider.predict.trace import Step, Walk


class Filling(NamedTuple):
    """To how many rows a target fills up those that it is given, and what other numbers than before take.

    Attributes:
        computed: for so many rows, if it has computed no others before.
        in_turn: begins a walk through forwards, which is told the rows of one after the other, and says how many are
            computed of each: a runtime that prepares anew for another number may stay at one for a while.
        change_seconds: what a forward takes longer if the one before computed another number of rows.
    """

    computed: Callable[[int], int]
    in_turn: Callable[[], Callable[[int], int]]
    change_seconds: float = 0.0


def as_they_are(num_rows: int) -> int:
    """Of a target that never fills up rows."""
    return num_rows


ROWS_AS_THEY_ARE = Filling(as_they_are, lambda: as_they_are)


class BatchStep(NamedTuple):
    """What a step's price depends on.

    Attributes:
        num_draft_steps: of the draft model, one after the other: the most that any text asks for.
        num_drafted: guesses of the text that has most of them.
        num_rows: that the target computes for the roots and guesses of all texts.
        num_joined: texts that begin with it.
        is_change: whether the step before computed another number of rows, and no text begins: what going over from a
            prompt's rows takes is part of what it takes to begin.
    """

    num_draft_steps: int
    num_drafted: int
    num_rows: int
    num_joined: int = 0
    is_change: bool = False


def batch_steps(
    walks: Sequence[Walk], num_sequences: int, filling: Filling = ROWS_AS_THEY_ARE
) -> list[Counter[BatchStep]]:
    """The steps that each text takes part in, when so many are decoded at once.

    So many begin together, and begin again where one is finished, until each was finished once; what is done a second
    time is nobody's. Then it is the next ones' turn.

    Args:
        walks: of the texts, each with one step at least.
        num_sequences: texts at once.
        filling: of the target's rows.
    """
    groups = (walks[first : first + num_sequences] for first in range(0, len(walks), num_sequences))
    return [found for group in groups for found in _steps_of_group(group, num_sequences, filling.in_turn())]


def _steps_of_group(
    walks: Sequence[Walk], num_sequences: int, computed: Callable[[int], int]
) -> list[Counter[BatchStep]]:
    found: list[Counter[BatchStep]] = [Counter() for _ in walks]
    num_open, num_rows_before = len(walks), 0
    numbers = count()  # of texts that begin, counted on through their repetitions
    lanes: list[tuple[int, int]] = []  # number of the text; steps taken
    while num_open:
        num_joined = num_sequences - len(lanes)
        lanes += [(next(numbers), 0) for _ in range(num_joined)]
        now = [walks[text % len(walks)].steps[taken] for text, taken in lanes]
        num_rows = computed(sum(1 + step.num_drafted for step in now))
        step = BatchStep(
            max(step.num_drafted if step.is_modelled else 0 for step in now),
            max(step.num_drafted for step in now),
            num_rows,
            num_joined,
            is_change=num_rows != num_rows_before and not num_joined,
        )
        num_rows_before = num_rows
        lanes = [(text, taken + 1) for text, taken in lanes]
        for text, taken in lanes:
            if text < len(walks):
                found[text][step] += 1
                num_open -= taken == len(walks[text].steps)
        lanes = [(text, taken) for text, taken in lanes if taken < len(walks[text % len(walks)].steps)]
    return found


@lru_cache(maxsize=64)
def plain_joinings(num_tokens: tuple[int, ...], num_sequences: int) -> tuple[int, ...]:
    """Of each text's steps, those with which some text begins, when texts of so many tokens are decoded plainly.

    Kept, since it is the same beside every drafter and depth.
    """
    walks = [Walk(number, [], [Step(0, is_modelled=False)] * number) for number in num_tokens]
    return tuple(
        sum(times for step, times in steps.items() if step.num_joined) for steps in batch_steps(walks, num_sequences)
    )
