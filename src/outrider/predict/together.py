"""Texts that decode together: from the steps of each to the steps of the batch.

As many texts as are asked for are decoded in every step; where one ends, the next begins. A step takes as long as the
longest draft in it, and the target computes the rows of all: neither is what an average text would make of it.
Knows numbers only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from outrider.predict.trace import Walk


class BatchStep(NamedTuple):
    """What a step's price depends on.

    Attributes:
        num_draft_steps: of the draft model, one after the other: the most that any text asks for.
        num_drafted: guesses of the text that has most of them.
        num_rows: roots and guesses of all texts.
    """

    num_draft_steps: int
    num_drafted: int
    num_rows: int


def batch_steps(walks: Sequence[Walk], num_sequences: int) -> list[Counter[BatchStep]]:
    """The steps that each text takes part in, when so many are decoded at once.

    They begin again after the last has begun, until each was finished once; what is done a second time is nobody's.

    A step of fewer rows than the one before counts as many as that: a runtime that prepares anew for another number of
    rows stays at the larger one until staying has cost as much as the change, and then pays for the change.

    Args:
        walks: of the texts, each with one step at least.
        num_sequences: texts at once.
    """
    found: list[Counter[BatchStep]] = [Counter() for _ in walks]
    num_begun, num_open, num_rows_before = 0, len(walks), 0
    lanes: list[tuple[int, int]] = []  # number of the text, counted on through its repetitions; steps taken
    while num_open:
        while len(lanes) < num_sequences:
            lanes.append((num_begun, 0))
            num_begun += 1
        now = [walks[text % len(walks)].steps[taken] for text, taken in lanes]
        num_rows = sum(1 + step.num_drafted for step in now)
        step = BatchStep(
            max(step.num_drafted if step.is_modelled else 0 for step in now),
            max(step.num_drafted for step in now),
            max(num_rows, num_rows_before),
        )
        num_rows_before = num_rows
        lanes = [(text, taken + 1) for text, taken in lanes]
        for text, taken in lanes:
            if text < len(walks):
                found[text][step] += 1
                num_open -= taken == len(walks[text].steps)
        lanes = [(text, taken) for text, taken in lanes if taken < len(walks[text % len(walks)].steps)]
    return found
