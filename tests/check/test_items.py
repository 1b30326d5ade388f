"""Each item passes, warns and fails where its threshold says."""

from __future__ import annotations

import math

import pytest

from outrider.check.agreement import agreement_item, agreement_rows, estimate
from outrider.check.costs import Curve, curve_item, draft_item
from outrider.check.known import load_rows
from outrider.check.models import memory_item
from outrider.check.prediction import concurrency_item
from outrider.check.prompts import NUM_BUNDLED, bundled_prompts
from outrider.check.texts import Texts, sanity_item
from outrider.predict.agreement import KnownText
from outrider.predict.interval import Estimate
from outrider.request import SamplingParams
from tests.check.test_verdict import predicted
from tests.predict.simulator import trace_of


def curve(two, five, context=512):
    return Curve(context, [(1, 0.01), (2, 0.01 * two), (5, 0.01 * five), (32, 0.02)])


@pytest.mark.parametrize(
    ("two", "five", "status", "bend"), [(1.0, 1.1, "pass", 32), (1.1, 1.6, "warn", 5), (2.0, 5.0, "fail", 2)]
)
def test_rows_that_are_not_free_are_told(two, five, status, bend):
    item = curve_item([curve(1.0, 1.0, 64), curve(two, five)])
    assert item.status == status
    assert "10.00 ms a plain step at 512 tokens" in item.value
    assert curve(two, five).bend == bend
    assert bool(item.remedy) == (status != "pass")


def test_a_curve_that_was_not_measured_is_no_pass():
    assert curve_item([]).status == "warn"


@pytest.mark.parametrize(("ratio", "status"), [(0.1, "pass"), (0.4, "warn"), (0.9, "fail"), (None, "pass")])
def test_a_dear_draft_is_told(ratio, status):
    row = {"drafter": "small", "cost_ratio": ratio, "draft_step_seconds": 0.001, "plain_seconds": 0.01}
    assert draft_item([row | {"is_greedy": True}]).status == status


@pytest.mark.parametrize(
    ("limit", "free", "status"),
    [(None, 10**9, "pass"), (None, 10**8, "warn"), (10**8, 10**9, "fail"), (None, None, "pass")],
)
def test_what_does_not_fit_is_told(limit, free, status):
    memory = {
        "target": 2 * 10**8, "all": 3 * 10**8, "draft": 10**8, "per_1000_tokens": 2 * 10**6,
        "target_per_1000_tokens": 10**6, "limit": limit,
    }  # fmt: skip
    item = memory_item(memory, 1000, free)
    assert item.status == status
    assert "100 sequences of 1000 tokens" in item.value


def test_agreement_stands_beside_break_even_by_category_and_length():
    traces = [trace_of([True] * 30, prompt="a"), trace_of([True, False] * 15, prompt="b")]
    rows = agreement_rows({("small", 0.0): traces})
    (row,) = (each for each in rows if each["group"] == "all")
    assert row["agreement"]["value"] == pytest.approx(0.75)
    assert row["overlap"] == row["agreement"]["value"]
    assert len(row["survival"]) == 8
    item = agreement_item(rows, [predicted(2.0)])
    assert item.status == "pass"
    assert "75 %" in item.value
    assert "break-even 63 %" in item.value
    unfit = agreement_rows({("small", 0.0): [trace_of([True, False, False] * 10)] * 2})
    assert agreement_item(unfit, [predicted(0.9)]).status == "warn"


def test_where_it_stops_to_pay_is_told():
    predictions = [predicted(2.0), predicted(1.3, num_sequences=4), predicted(0.8, num_sequences=8)]
    item = concurrency_item(load_rows(_choice(predictions), 4, predictions, []), "small")
    assert item.status == "warn"
    assert "2.00x at 1 (depth 4, predicted), 1.30x at 4 (depth 4, predicted), 0.80x at 8" in item.value
    assert "above 4 texts" in item.remedy


def _choice(predictions):
    from outrider.check.prediction import choose

    return choose(predictions)


def known(prompt):
    return KnownText(prompt, "all", SamplingParams(temperature=0.0, max_tokens=20), (1, 2), tuple(range(20)))


@pytest.mark.parametrize(
    ("num_fit", "num_unfit", "status"), [(0, 4, "fail"), (2, 0, "warn"), (4, 4, "warn"), (9, 1, "pass")]
)
def test_texts_that_tell_nothing_are_named(num_fit, num_unfit, status):
    texts = Texts(
        [known(f"prompt {number}") for number in range(num_fit)],
        [{"prompt": "line 7", "temperature": 0.0, "why": "ends after 3 tokens"}] * num_unfit,
    )
    item = sanity_item(texts, num_fit + num_unfit)
    assert item.status == status
    assert ("line 7: ends after 3 tokens" in item.value) == (num_unfit > 0)


def test_no_bound_is_null_in_json():
    assert estimate(Estimate(2.0, 0.0, math.inf)) == {"value": 2.0, "low": 0.0, "high": None}


def test_any_beginning_of_the_bundled_prompts_has_of_all_kinds():
    prompts = bundled_prompts()
    assert len(prompts) == NUM_BUNDLED
    assert len({prompt.category for prompt in prompts[:6]}) == 6
