"""Steps of a batch are those that an engine takes: its longest draft, all its rows, and never fewer texts."""

from __future__ import annotations

from collections import Counter

import pytest

from outrider.predict.together import ROWS_AS_THEY_ARE, BatchStep, batch_steps, plain_joinings
from outrider.predict.trace import Step, Walk, walk
from tests.predict.simulator import seeded, trace_of


def walk_of(*num_drafted, is_modelled=True):
    return Walk(len(num_drafted), [], [Step(each, is_modelled) for each in num_drafted])


def test_alone_a_text_has_its_own_steps():
    assert batch_steps([walk_of(4, 4, 4), walk_of(4, 4)], 1) == [
        Counter({BatchStep(4, 4, 5, 1): 1, BatchStep(4, 4, 5): 2}),
        Counter({BatchStep(4, 4, 5, 1): 1, BatchStep(4, 4, 5): 1}),
    ]


def test_a_step_takes_as_long_as_its_longest_draft():
    first, second = batch_steps([walk_of(4, 4), walk_of(4, 1)], 2)
    assert first == second == Counter({BatchStep(4, 4, 10, 2): 1, BatchStep(4, 4, 7, is_change=True): 1})


def test_where_a_text_ends_one_of_those_it_began_with_begins_again():
    first, second, third = batch_steps([walk_of(2, 2), walk_of(4, 4, 4), walk_of(1, 1)], 2)
    assert first == Counter({BatchStep(4, 4, 8, 2): 1, BatchStep(4, 4, 8): 1})
    assert second == first + Counter({BatchStep(4, 4, 8, 1): 1})
    assert third == Counter({BatchStep(1, 1, 4, 2): 1, BatchStep(1, 1, 4): 1})


def one_step_late():
    """Begins a walk of a target that stays at many rows for one step."""
    before, stayed = 0, False

    def computed(num_rows):
        nonlocal before, stayed
        stayed = num_rows < before and not stayed
        before = before if stayed else num_rows
        return before

    return computed


def test_steps_are_of_the_rows_that_a_target_makes_of_them_in_turn():
    filling = ROWS_AS_THEY_ARE._replace(in_turn=one_step_late)
    (found,) = batch_steps([walk_of(8, 0, 0, 0, 8, is_modelled=False)], 1, filling)
    assert found == Counter(
        {
            BatchStep(0, 8, 9, 1, is_change=False): 1,  # going over from a prompt is what beginning takes
            BatchStep(0, 0, 9, is_change=False): 1,
            BatchStep(0, 0, 1, is_change=True): 1,
            BatchStep(0, 0, 1, is_change=False): 1,
            BatchStep(0, 8, 9, is_change=True): 1,
        }
    )


def test_rows_of_each_group_of_texts_are_a_walk_of_their_own():
    found = batch_steps([walk_of(8, 8), walk_of(0, 0)], 1, ROWS_AS_THEY_ARE._replace(in_turn=one_step_late))
    assert [max(step.num_rows for step in each) for each in found] == [9, 1]


def test_texts_as_long_as_each_other_begin_together_all_along_and_others_do_not():
    assert plain_joinings((9, 9, 9, 9), 2) == (1, 1, 1, 1)
    # The first begins again after two steps, and after four the second does, beside itself.
    assert plain_joinings((2, 9), 2) == (1, 3)


@pytest.mark.parametrize("num_sequences", [1, 3, 8, 12])
def test_every_text_has_all_its_steps_once(num_sequences):
    generator = seeded(num_sequences)
    texts = [trace_of([generator.random() < 0.7 for _ in range(20 + 10 * number)]) for number in range(7)]
    walks = [walk(text, 4) for text in texts]
    found = batch_steps(walks, num_sequences)
    assert [each.total() for each in found] == [each.num_steps for each in walks]
    assert all(num_sequences <= step.num_rows <= 5 * num_sequences for each in found for step in each)
