"""What steps cost: the shape is kept apart from the machine's mood, and a draft's price is noticed at once."""

from __future__ import annotations

import random

import pytest

from outrider.policy.cost import Changes, StepCosts
from outrider.sequence import DraftWork

PROFILE = [(1, 1.0), (5, 1.1), (9, 1.4), (17, 2.0)]


def test_a_profile_is_interpolated_and_goes_on_in_its_last_slope():
    costs = StepCosts(PROFILE)
    assert [costs.target(rows) for rows in (1, 3, 9, 25)] == pytest.approx([1.0, 1.05, 1.4, 2.6])


def test_the_first_step_stands_in_for_a_missing_profile():
    costs = StepCosts()
    assert not costs.is_known
    costs.observe_target(1, 0.2)
    assert costs.is_known
    assert costs.target(1) == pytest.approx(0.2)
    assert costs.target(9) > costs.target(2) > costs.target(1)


def test_a_slow_spell_changes_the_speed_and_no_cost():
    costs = StepCosts(PROFILE, priors={"model": 0.1})
    for _ in range(60):
        costs.observe_target(5, 1.1 * 1.5)
        costs.observe_draft(DraftWork("model", 1, 3, 0, 0.3 * costs.speed))
    assert costs.speed == pytest.approx(1.5, rel=0.01)
    assert costs.target(5) == 1.1
    assert costs.draft("model", 1)[1] == pytest.approx(0.1, rel=0.05)


def test_the_shape_is_learned_from_changes_through_noise():
    """The profile says nine rows cost 1.4 plain steps; they cost 1.9, on a machine that is noisy and slow."""
    costs, noise = StepCosts(PROFILE), random.Random(1)
    for index in range(600):
        rows, seconds = (9, 1.9) if index // 3 % 2 else (1, 1.0)
        costs.observe_target(rows, 2 * seconds * noise.uniform(0.7, 1.3))
    assert costs.target(9) / costs.target(1) == pytest.approx(1.9, rel=0.1)


def test_more_rows_never_seem_to_take_less_time():
    costs, noise = StepCosts([(1, 1.0), (2, 1.0)]), random.Random(2)
    for index in range(100):
        costs.observe_target(1 + index % 4, noise.uniform(0.7, 1.3))
        seconds = [costs.target(rows) for rows in range(1, 9)]
        assert seconds == sorted(seconds)


def test_a_drafter_ten_times_slower_than_thought_is_noticed_with_its_second_draft():
    costs = StepCosts(PROFILE, priors={"model": 0.1})
    for _ in range(2):
        costs.observe_draft(DraftWork("model", 1, 1, 0, 1.0))
    assert 0.6 <= sum(costs.draft("model", 1)) <= 1.0


def test_a_draft_that_was_slow_because_it_was_the_first_is_not_held_against_the_source():
    costs = StepCosts(PROFILE, priors={"model": 0.1})
    for seconds in (1.0, 0.1, 0.1):
        costs.observe_draft(DraftWork("model", 1, 1, 0, seconds))
    assert costs.draft("model", 1)[1] == pytest.approx(0.1, rel=0.2)


def test_catching_up_is_told_apart_from_drafting():
    costs = StepCosts(PROFILE)
    for num_steps, num_caught_up in [(4, 0), (4, 100), (2, 0), (2, 40)] * 20:
        seconds = 0.1 * num_steps + 0.01 * num_caught_up
        costs.observe_draft(DraftWork("model", 1, num_steps, num_caught_up, seconds))
    assert costs.catch_up("model", 100) == pytest.approx(1.0, rel=0.15)
    fixed, step = costs.draft("model", 1)
    assert fixed + 4 * step == pytest.approx(0.4, rel=0.15)


def test_a_source_without_draft_steps_costs_the_same_at_any_depth():
    costs = StepCosts(PROFILE)
    for _ in range(4):
        costs.observe_draft(DraftWork("suffix", 1, 0, 0, 0.001))
    assert costs.draft("suffix", 1) == pytest.approx((0.001, 0.0))
    assert costs.catch_up("suffix", 1000) == 0.0


def test_what_a_change_of_rows_takes_is_no_part_of_the_shape():
    costs = StepCosts(PROFILE, changes=Changes(0.5))
    for index in range(100):
        costs.observe_target(*((1, 1.5) if index % 2 else (9, 1.9)))
    assert costs.target(9) / costs.target(1) == pytest.approx(1.4, rel=0.02)


def test_what_needs_no_preparing_costs_no_change_and_leaves_what_was_prepared():
    costs = StepCosts(PROFILE, changes=Changes(0.5, {1, 5}.__contains__))
    costs.observe_target(9, 1.4)
    assert [costs.change(rows) for rows in (1, 5, 9, 17)] == [0, 0, 0, 0.5]
    costs.observe_target(5, 1.1)
    assert [costs.change(rows) for rows in (9, 17)] == [0, 0.5]
    assert [costs.change_between(9, 17), costs.change_between(9, 5), costs.change_between(1, 17)] == [0.5, 0, 0]


def test_where_nothing_is_prepared_a_change_still_takes_what_it_is_seen_to_take():
    """Forms of single numbers of rows take turns in the processor's cache."""
    costs = StepCosts(PROFILE, changes=Changes(0.5, {1, 5}.__contains__))
    for index in range(400):
        rows, seconds = (1, 1.0) if index % 2 else (5, 1.1)
        for change in (0.3, 0.0, 0.0):
            costs.observe_target(rows, seconds + change)
    assert costs.target(5) / costs.target(1) == pytest.approx(1.1, rel=0.03)
    costs.observe_target(1, 1.0)
    assert costs.change(5) == costs.change_between(1, 5) == pytest.approx(0.3, abs=0.1)
    assert costs.change(1) == 0.0


def test_what_is_not_put_to_the_test_is_doubted():
    costs = StepCosts(PROFILE, changes=Changes(0.5, {1, 9}.__contains__))
    costs.observe_draft(DraftWork("model", 1, 4, 0, 0.4))
    costs.keep_drafts()
    for index in range(200):
        costs.observe_target(*((9, 2.8) if index % 4 < 2 else (1, 1.0)))
        costs.observe_draft(DraftWork("model", 1, 4, 0, 4.0))
    dear, draft, ready = costs.target(9) / costs.target(1), sum(costs.draft("model", 1)), costs.ready_seconds
    assert dear > 1.6
    for _ in range(8):
        costs.forget()
    assert costs.target(9) / costs.target(1) == pytest.approx(1.4, rel=0.02)
    assert sum(costs.draft("model", 1)) == pytest.approx(0.1, rel=0.1)
    assert draft > 0.5
    assert costs.ready_seconds <= ready / 100
