"""Steps of a batch are those that an engine takes: its longest draft, all its rows, and never fewer texts."""

from __future__ import annotations

from collections import Counter

import pytest

from outrider.predict.together import BatchStep, batch_steps
from outrider.predict.trace import Step, Walk, walk
from tests.predict.simulator import seeded, trace_of


def walk_of(*num_drafted, is_modelled=True):
    return Walk(len(num_drafted), [], [Step(each, is_modelled) for each in num_drafted])


def test_alone_a_text_has_its_own_steps():
    assert batch_steps([walk_of(4, 4, 4), walk_of(4, 4)], 1) == [
        Counter({BatchStep(4, 4, 5): 3}),
        Counter({BatchStep(4, 4, 5): 2}),
    ]


def test_a_step_takes_as_long_as_its_longest_draft():
    first, second = batch_steps([walk_of(4, 4), walk_of(4, 1)], 2)
    assert first == second == Counter({BatchStep(4, 4, 10): 2})


def test_where_a_text_ends_the_next_one_begins():
    # the first is beside the second all along, which is beside the third at its end; then the first begins again
    first, second, third = batch_steps([walk_of(2, 2), walk_of(4, 4, 4), walk_of(1, 1)], 2)
    assert first == Counter({BatchStep(4, 4, 8): 2})
    assert second == Counter({BatchStep(4, 4, 8): 3})
    assert third == Counter({BatchStep(4, 4, 8): 1, BatchStep(2, 2, 7): 1})


def test_rows_are_left_one_step_later_than_they_are_needed():
    (found,) = batch_steps([walk_of(8, 0, 0, 8, is_modelled=False)], 1)
    assert found == Counter({BatchStep(0, 8, 9): 2, BatchStep(0, 0, 9): 1, BatchStep(0, 0, 1): 1})


@pytest.mark.parametrize("num_sequences", [1, 3, 8, 12])
def test_every_text_has_all_its_steps_once(num_sequences):
    generator = seeded(num_sequences)
    texts = [trace_of([generator.random() < 0.7 for _ in range(20 + 10 * number)]) for number in range(7)]
    walks = [walk(text, 4) for text in texts]
    found = batch_steps(walks, num_sequences)
    assert [each.total() for each in found] == [each.num_steps for each in walks]
    assert all(num_sequences <= step.num_rows <= 5 * num_sequences for each in found for step in each)
