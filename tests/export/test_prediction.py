"""A static depth is priced by what was measured, under the rule of the engine that will use it."""

from __future__ import annotations

import pytest

from outrider.export.prediction import acceptance_under, best_depth, predict, survival_under
from outrider.recipe import Measured


def measured(**values) -> Measured:
    return Measured(**{"temperature": 1.0, "agreement": 0.8, "cost_ratio": 0.1, **values})


def test_a_chain_of_equal_guesses_is_the_geometric_sum():
    prediction = predict(measured(), "match", 3)
    length = 1 + 0.8 + 0.8**2 + 0.8**3
    assert prediction.acceptance_length == pytest.approx(length)
    assert prediction.speedup == pytest.approx(length / (3 * 0.1 + 1))


def test_forwards_over_more_rows_are_priced_as_measured_and_beyond():
    facts = measured(forward_costs=(1.1, 1.3))
    lengths = [predict(facts, "match", depth).acceptance_length for depth in (1, 2, 4)]
    speedups = [predict(facts, "match", depth).speedup for depth in (1, 2, 4)]
    costs = [0.1 + 1.1, 0.2 + 1.3, 0.4 + 1.7]  # after 1.3, two steps of 0.2
    assert speedups == pytest.approx([length / cost for length, cost in zip(lengths, costs, strict=True)])


def test_each_rule_keeps_what_was_measured_for_it():
    facts = measured(overlap=0.85, greedy_agreement=0.7)
    assert [acceptance_under(facts, keeps) for keeps in ("match", "rejection", "greedy")] == [0.8, 0.85, 0.7]
    greedy = measured(temperature=0, overlap=0.85, greedy_agreement=0.7)
    assert {acceptance_under(greedy, keeps) for keeps in ("match", "rejection", "greedy")} == {0.8}


def test_what_was_not_measured_is_not_predicted():
    assert predict(measured(), "rejection", 2) is None
    assert predict(None, "match", 2) is None
    assert predict(measured(cost_ratio=None), "match", 2).speedup is None


def test_survival_under_the_own_rule_is_the_measured_one_and_misses_scale_under_another():
    facts = measured(survival=(0.8, 0.6))
    assert survival_under(facts, 0.8, 3) == pytest.approx([0.8, 0.6, 0.45])  # after them, 0.6 / 0.8 again
    assert survival_under(facts, 0.9, 2) == pytest.approx([0.9, 0.9 * (1 - 0.25 / 2)])
    assert survival_under(facts, 0.0, 2) == [0, 0]


def test_a_drafter_that_is_always_right_has_no_misses_to_scale():
    assert survival_under(measured(agreement=1.0, survival=(1.0, 1.0)), 0.5, 2) == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(("cost_ratio", "depth"), [(0.0, 8), (0.1, 6), (0.3, 3), (0.9, 0)])
def test_the_best_depth_is_the_fastest_by_trying_all(cost_ratio, depth):
    facts = measured(cost_ratio=cost_ratio)
    speedups = [1.0, *(predict(facts, "match", each).speedup for each in range(1, 9))]
    assert best_depth(facts, "match", 8) == speedups.index(max(speedups)) == depth


def test_only_depths_that_were_measured_are_chosen():
    assert best_depth(measured(cost_ratio=0.0, survival=(0.8, 0.7)), "match", 8) == 2
    assert best_depth(measured(cost_ratio=0.0, forward_costs=(1.0, 1.0, 1.0)), "match", 8) == 3
    assert best_depth(measured(cost_ratio=None), "match", 8) is None
