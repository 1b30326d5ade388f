"""The interval of a median."""

from __future__ import annotations

import pytest

from outrider.bench.measure import median_interval


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
