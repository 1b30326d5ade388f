"""The interval of a median, of a geometric mean of medians, and ratios that pair what belongs together."""

from __future__ import annotations

import pytest

from outrider.bench.measure import geometric_mean_interval, median_interval, paired_ratio, ratios, spread


def test_equal_measurements_leave_no_doubt():
    assert median_interval([2.0] * 5) == (2.0, 2.0, 2.0)


def test_interval_holds_the_median_and_lies_within_the_values():
    interval = median_interval([1.0, 2.0, 3.0, 4.0, 10.0])
    assert interval.median == 3.0
    assert 1.0 <= interval.low < 3.0 < interval.high <= 10.0


def test_more_measurements_say_more():
    few, many = (median_interval([1.0, 2.0, 3.0] * count) for count in (2, 50))
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_interval_scales_with_the_values(scale):
    values = [1.0, 1.5, 2.5, 4.0]
    assert median_interval([scale * value for value in values]) == pytest.approx(
        [scale * value for value in median_interval(values)]
    )


def test_a_geometric_mean_is_of_the_medians_whatever_the_sizes_of_the_groups():
    interval = geometric_mean_interval([[1.0, 1.0, 100.0], [4.0] * 30])
    assert interval.median == pytest.approx(2.0)
    assert interval.low == pytest.approx(2.0)
    assert 2.0 < interval.high <= 20.0 + 1e-9
    assert geometric_mean_interval([[3.0], [3.0]]) == pytest.approx((3.0, 3.0, 3.0))


def test_ratios_sum_a_prompts_rounds_before_they_divide():
    slow = {"a": [1.0, 9.0], "b": [6.0]}
    fast = {"b": [2.0], "a": [1.0, 1.0]}
    assert ratios(slow, fast) == [5.0, 3.0]
    assert paired_ratio(slow, fast).median == 4.0


def test_a_spread_of_nothing_is_nothing():
    assert spread([]) is None
    assert spread([float(value) for value in range(101)]) == (50.0, 95.0)
