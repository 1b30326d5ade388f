"""What the checklist says follows from what was found."""

from __future__ import annotations

import math

import pytest

from outrider.check.budget import Budget, parse_seconds
from outrider.check.measured import CHOICE, DEFAULT, PLAIN, SETTINGS, WORST, Cell, lossless_item, measured_item, rows_of
from outrider.check.prediction import best_by_temperature, choose, concurrency_rows, off_above, temperature_rows
from outrider.check.verdict import Evidence, decide
from outrider.errors import ParameterError
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast


def predicted(speedup, *, width=0.1, **setting):
    """A prediction; `setting` changes what it is of."""
    found = {
        "drafter": "small", "depth": 4, "temperature": 0.0, "num_sequences": 1, "agreement": 0.4, **setting
    }  # fmt: skip
    return Forecast(
        **found,
        speedup=Estimate(speedup, speedup * (1 - width), speedup * (1 + width)),
        tokens_per_step=2.0,
        survival=[0.5] * found["depth"],
        break_even=0.63,
        seconds={"draft": 0.1, "target": 1.0, "other": 0.1},
        plain_seconds=1.0,
        num_prompts=12,
    )


def evidence(predictions, measured=(), **changes):
    choice = choose(predictions)
    rows = concurrency_rows(choice, predictions) if choice else []
    values = {
        "choice": choice, "everything": "all", "concurrency": rows, "measured": measured, "num_fit": 12, "is_own": True,
        "is_partial": False, "skipped": [],
    }  # fmt: skip
    return Evidence(**(values | changes))


def row(setting, speedup, *, temperature=0.0, low=None):
    found = {"value": speedup, "low": low or 0.95 * speedup, "high": 1.05 * speedup}
    return {"setting": setting, "temperature": temperature, "num_sequences": 1, "num_prompts": 9, "speedup": found}


def test_the_fastest_over_all_temperatures_with_the_fewest_sequences_is_chosen():
    found = choose(
        [
            predicted(3.0, depth=8, temperature=0.0), predicted(1.0, depth=8, temperature=1.0),
            predicted(2.0, depth=4, temperature=0.0), predicted(1.8, depth=4, temperature=1.0),
            predicted(9.0, depth=2, num_sequences=4),
        ]
    )  # fmt: skip
    assert (found.depth, found.num_sequences) == (4, 1)
    assert found.speedup.value == pytest.approx(math.sqrt(3.6))


def test_what_pays_is_recommended_with_its_interval_and_its_limit():
    verdict = decide(evidence([predicted(2.31), predicted(1.2, num_sequences=8), predicted(0.9, num_sequences=16)]))
    assert verdict.decision == "speculate"
    assert "Speculate with small" in verdict.sentences[0]
    assert "2.31x [2.08, 2.54]" in verdict.sentences[0]
    assert verdict.off_above == 8
    assert "above 8 texts" in verdict.sentences[1]
    assert not verdict.is_measured


def test_a_pair_that_cannot_pay_is_told_not_to():
    verdict = decide(evidence([predicted(0.8), predicted(0.9, depth=1)]))
    assert verdict.decision == "do not speculate"
    assert verdict.sentences[0].startswith("Do not speculate")
    assert "agrees on 40 %" in verdict.sentences[1]
    assert "break-even is 63 %" in verdict.sentences[1]


def test_what_may_as_well_be_nothing_is_undecided():
    assert decide(evidence([predicted(1.2, width=0.4)])).decision == "undecided"
    nobody_knows = predicted(2.0)
    object.__setattr__(nobody_knows, "speedup", Estimate(2.0, 0.0, math.inf))
    assert decide(evidence([nobody_knows])).decision == "undecided"


def test_a_measurement_outweighs_a_prediction():
    verdict = decide(evidence([predicted(2.0)], [row(CHOICE, 0.9), row(DEFAULT, 0.85)]))
    assert verdict.decision == "do not speculate"
    assert verdict.is_measured


@pytest.mark.parametrize(("auto", "depth"), [(1.5, 4), (2.05, "auto"), (1.98, "auto")])
def test_auto_is_taken_where_it_is_about_as_fast(auto, depth):
    verdict = decide(evidence([predicted(2.0)], [row(CHOICE, 2.0), row(DEFAULT, auto)]))
    assert (verdict.depth, verdict.drafter) == (depth, "all" if depth == "auto" else "small")


def test_a_measurement_at_one_temperature_is_none_of_all():
    predictions = [predicted(2.0), predicted(1.5, temperature=1.0)]
    assert not decide(evidence(predictions, [row(CHOICE, 2.0), row(DEFAULT, 2.0)])).is_measured


@pytest.mark.parametrize("changes", [{"num_fit": 0}, {"choice": None}])
def test_nothing_is_concluded_from_nothing(changes):
    verdict = decide(evidence([predicted(2.0)], **changes))
    assert verdict.decision == "no conclusion"
    assert verdict.speedup is None


def test_every_verdict_has_two_steps_with_a_reason_against_each_and_says_what_is_uncertain():
    for found in ([predicted(2.0)], [predicted(0.5)], [predicted(1.2, width=0.5)], []):
        verdict = decide(evidence(found, is_own=False, is_partial=True, skipped=["the sea"], num_fit=2))
        assert len(verdict.next_steps) == 2
        assert verdict.next_steps[0] != verdict.next_steps[1]
        assert all(step.do and step.might_be_wrong for step in verdict.next_steps)
        said = " ".join(verdict.uncertain)
        assert all(word in said for word in ("interrupted", "bundled", "the sea", "2 prompts", "predicted"))


def test_off_above_is_seen_only_where_it_was():
    rows = concurrency_rows(choose([predicted(2.0)]), [predicted(2.0), predicted(1.5, num_sequences=4)])
    assert off_above(rows) is None


def cell(seconds):
    found = Cell(0.0, 1, {PLAIN: 0, DEFAULT: "auto", CHOICE: 4, WORST: 8})
    found.seconds = {setting: {prompt: [each] for prompt, each in by.items()} for setting, by in seconds.items()}
    found.num_tokens = dict.fromkeys("abcd", 100)
    found.num_compared = 16
    return found


def test_predicted_and_measured_stand_side_by_side():
    plain = {"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.4}
    half = {prompt: seconds / 2 for prompt, seconds in plain.items()}
    found = cell({setting: plain if setting == PLAIN else half for setting in SETTINGS})
    predictions = [predicted(2.1), predicted(1.0, depth=8)]
    rows = rows_of([found], predictions, choose(predictions))
    by_setting = {row["setting"]: row for row in rows}
    assert by_setting[CHOICE]["speedup"]["value"] == pytest.approx(2.0)
    assert by_setting[CHOICE]["error"] == pytest.approx(0.05)
    assert by_setting[CHOICE]["is_inside"]
    assert by_setting[DEFAULT]["predicted"] is None
    assert by_setting[WORST]["error"] == pytest.approx(-0.5)
    assert measured_item(rows).status == "warn"
    assert "depth 4) at T = 0, 1 at once: 2.00x, predicted 2.10x" in measured_item(rows).value


def test_prompts_that_not_every_setting_has_written_count_for_none():
    plain = dict.fromkeys("abcd", 0.2)
    found = cell({PLAIN: plain, DEFAULT: plain, CHOICE: plain, WORST: {"a": 0.1, "b": 0.1}})
    rows = rows_of([found], [predicted(2.0)], choose([predicted(2.0)]))
    assert {row["num_prompts"] for row in rows} == {2}


def test_a_text_that_differs_fails_where_the_engine_had_promised():
    found = cell({})
    assert lossless_item([found], "bitwise").status == "pass"
    found.different = [{"prompt": "a", "setting": CHOICE}]
    assert lossless_item([found], "bitwise").status == "fail"
    assert lossless_item([found], "seed").status == "warn"
    assert "1 of 16" in lossless_item([found], "seed").value


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("90s", 90), ("90", 90), ("1.5min", 90), ("1h", 3600)])
def test_a_budget_is_a_time(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "4", "-5m", "0", "5 days", "1e9"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ParameterError, match="--budget is"):
        parse_seconds(text)


def test_a_budget_knows_what_still_fits():
    now = [0.0]
    budget = Budget(100, clock=lambda: now[0])
    now[0] = 40.0
    assert budget.has_room(20, 0.6)
    assert not budget.has_room(21, 0.6)
    assert not budget.is_spent(0.5)
    assert budget.is_spent(0.4)


def of_two(greedy, sampled, **changes):
    """Evidence of one drafter at two temperatures, with one and with eight texts at once."""
    predictions = [
        predicted(speedup * share, temperature=temperature, num_sequences=num_sequences)
        for temperature, speedup in ((0.0, greedy), (1.0, sampled))
        for num_sequences, share in ((1, 1.0), (8, 0.7))
    ]
    choice = choose(predictions)
    by_temperature = temperature_rows(choice, predictions)
    return evidence(predictions, by_temperature=by_temperature, alone=best_by_temperature(predictions), **changes)


def test_speedups_and_limits_are_said_for_each_temperature():
    verdict = decide(of_two(2.4, 1.4))
    assert verdict.decision == "speculate"
    assert "2.40x [2.16, 2.64] at T = 0, 1.40x [1.26, 1.54] at T = 1" in verdict.sentences[0]
    assert [(each.temperature, each.decision, each.off_above) for each in verdict.by_temperature] == [
        (0.0, "speculate", None), (1.0, "speculate", 1)
    ]  # fmt: skip
    assert "At T = 0: it is expected to be 1.68x still with 8 texts at once." in verdict.sentences[1]
    assert "At T = 1: turn it off above 1 texts at once." in verdict.sentences[1]
    assert (verdict.only_at, verdict.max_temperature) == ((), None)


@pytest.mark.parametrize("sampled", [0.8, 0.5])
def test_what_pays_at_one_temperature_only_is_told_so(sampled):
    """Whether or not the mean of both pays."""
    verdict = decide(of_two(1.6, sampled))
    assert verdict.decision == "speculate"
    assert (verdict.only_at, verdict.max_temperature) == ((0.0,), 0.0)
    assert verdict.sentences[0].startswith("Speculate at T = 0 only, with small, depth 4: 1.60x [1.44, 1.76]")
    assert f"Leave it off otherwise: it is {sampled:.2f}x" in verdict.sentences[0]
    assert verdict.speedup.value == pytest.approx(1.6)
    assert "1.12x still with 8 texts" in verdict.sentences[1]


def test_a_measurement_at_each_temperature_outweighs_its_prediction():
    measured = [row(CHOICE, 1.7), row(CHOICE, 0.9, temperature=1.0)]
    verdict = decide(of_two(1.6, 1.5, measured=measured))
    assert verdict.only_at == (0.0,)
    assert verdict.is_measured
    assert [each.speedup.value for each in verdict.by_temperature] == pytest.approx([1.7, 0.9])


def test_what_pays_above_and_not_below_has_no_highest_temperature():
    verdict = decide(of_two(0.8, 1.6))
    assert (verdict.only_at, verdict.max_temperature) == ((1.0,), None)


def test_another_setting_that_would_pay_at_one_temperature_is_named():
    predictions = [
        predicted(1.01, depth=1, temperature=0.0), predicted(1.0, depth=1, temperature=1.0),
        predicted(1.5, depth=8, temperature=0.0), predicted(0.5, depth=8, temperature=1.0),
    ]  # fmt: skip
    verdict = decide(evidence(predictions, alone=best_by_temperature(predictions)))
    assert verdict.decision == "do not speculate"
    assert "At T = 0 alone, small at depth 8 is predicted to bring 1.50x" in verdict.sentences[1]
    assert "T = 1 alone" not in verdict.sentences[1]


def test_the_verdicts_json_has_each_temperature():
    found = decide(of_two(1.6, 0.8)).as_dict()
    assert found["by_temperature"][1]["decision"] == "do not speculate"
    assert found["by_temperature"][1]["speedup"]["value"] == pytest.approx(0.8)
    assert found["only_at"] == (0.0,)
