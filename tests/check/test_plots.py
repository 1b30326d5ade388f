"""A plot is drawn where there is something to see."""

from __future__ import annotations

from outrider.check.plots import plots_of

NOTHING = {name: [] for name in ("predictions", "measured", "agreement", "verify_cost", "memory")}


def titles(*numbers):
    rows = [{"temperature": 0.0, "num_sequences": number, "speedup": {"value": 1.5}} for number in numbers]
    return [*plots_of(NOTHING | {"concurrency_by_temperature": rows})]


def test_a_single_number_of_texts_at_once_is_no_curve():
    assert titles() == titles(1) == []
    assert len(titles(1, 4)) == 1
