"""What the checklist says follows from what was found."""

from __future__ import annotations

import math

import pytest

from outrider.check.budget import Budget, parse_seconds
from outrider.check.known import load_rows
from outrider.check.measured import (
    CHOICE,
    DEFAULT,
    PLAIN,
    RIVAL,
    WORST,
    Cell,
    Use,
    lossless_item,
    measured_item,
    rows_of,
)
from outrider.check.prediction import choose, off_above
from outrider.check.verdict import Evidence, decide
from outrider.errors import ParameterError
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast


def predicted(speedup, *, width=0.1, **setting):
    """A prediction; `setting` changes what it is of."""
    found = {
        "drafter": "small", "depth": 4, "temperature": 0.0, "num_sequences": 1, "agreement": 0.4, "plain_seconds": 1.0,
        **setting,
    }  # fmt: skip
    return Forecast(
        **found,
        speedup=Estimate(speedup, speedup * (1 - width), speedup * (1 + width)),
        tokens_per_step=2.0,
        survival=[0.5] * found["depth"],
        break_even=0.63,
        seconds={"draft": 0.1, "target": 1.0, "other": 0.1},
        num_prompts=12,
    )


def evidence(predictions, measured=(), **changes):
    values = {
        "predictions": predictions, "measured": measured, "num_fit": 12, "is_own": True, "is_partial": False,
        "skipped": [],
    }  # fmt: skip
    return Evidence(**(values | changes))


def row(depth, speedup, *, drafter="small", width=0.05, over=(), **setting):
    """A measurement; `over` is what it gained on others: drafter, depth, gain."""

    def found(value):
        return {"value": value, "low": (1 - width) * value, "high": (1 + width) * value}

    gains = [dict(zip(("drafter", "depth"), each, strict=False)) | {"gain": found(each[2])} for each in over]
    values = {"temperature": 0.0, "num_sequences": 1, "num_prompts": 9} | setting
    return {"drafter": drafter, "depth": depth, "speedup": found(speedup), "over": gains, **values}


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


def test_what_may_as_well_be_nothing_is_not_shown_to_pay():
    verdict = decide(evidence([predicted(1.2, width=0.4)]))
    assert verdict.decision == "undecided"
    assert verdict.sentences[0].startswith("Not shown to pay: small at depth 4 brings 1.20x [0.72, 1.68]")
    assert "Decode plainly: more prompts or a larger --budget would decide" in verdict.sentences[1]
    nobody_knows = predicted(2.0)
    object.__setattr__(nobody_knows, "speedup", Estimate(2.0, 0.0, math.inf))
    assert decide(evidence([nobody_knows])).decision == "undecided"


def test_a_measurement_outweighs_a_prediction():
    verdict = decide(evidence([predicted(2.0)], [row(4, 0.9), row("auto", 0.85)]))
    assert verdict.decision == "do not speculate"
    assert verdict.is_measured


@pytest.mark.parametrize(("auto", "depth"), [(1.5, 4), (2.05, "auto"), (1.98, "auto")])
def test_auto_is_taken_where_it_is_about_as_fast(auto, depth):
    verdict = decide(evidence([predicted(2.0)], [row(4, 2.0), row("auto", auto)]))
    assert (verdict.depth, verdict.drafter) == (depth, "small")


def test_auto_depth_of_other_drafters_is_none_of_the_recommended_one():
    """The default drafts with everything: that it pays says nothing of a draft that it could do without."""
    verdict = decide(evidence([predicted(2.0)], [row(4, 2.0), row("auto", 3.0, drafter="everything")]))
    assert (verdict.depth, verdict.speedup.value) == (4, 2.0)


def test_a_measurement_of_few_texts_leaves_the_prediction_standing_unless_it_contradicts():
    few = row(4, 1.9, width=0.6)
    assert not decide(evidence([predicted(2.0)], [few])).is_measured
    other = row(4, 1.3, width=0.3)
    verdict = decide(evidence([predicted(2.0)], [other]))
    assert verdict.is_measured
    assert verdict.decision == "undecided"


def test_a_measurement_at_one_temperature_is_none_of_all():
    predictions = [predicted(2.0), predicted(1.5, temperature=1.0)]
    assert not decide(evidence(predictions, [row(4, 2.0), row("auto", 2.0)])).is_measured


@pytest.mark.parametrize("changes", [{"num_fit": 0}, {"predictions": []}])
def test_nothing_is_concluded_from_nothing(changes):
    verdict = decide(evidence([predicted(2.0)])._replace(**changes))
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


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ([], "The speedup is predicted, and was not put to the test."),
        ([row(3, 1.9, width=0.3)], "The speedup is predicted: what was measured, 1.90x [1.33, 2.47], agrees with it"),
        ([row(3, 1.9, width=0.01)], None),
    ],
)
def test_a_prediction_that_was_put_to_the_test_is_said_to_have_been(measured, said):
    verdict = decide(evidence([predicted(2.0, depth=3)], measured))
    found = [each for each in verdict.uncertain if "predicted" in each]
    assert len(found) == (said is not None)
    assert all(each.startswith(said) for each in found)


def test_off_above_is_seen_only_where_it_was():
    rows = load_rows(choose([predicted(2.0)]), 4, [predicted(2.0), predicted(1.5, num_sequences=4)], [])
    assert off_above(rows) is None


def test_where_it_ends_to_pay_is_taken_from_what_was_measured_first():
    predictions = [predicted(2.0), predicted(1.3, num_sequences=4), predicted(1.2, num_sequences=8)]
    verdict = decide(evidence(predictions))
    assert verdict.off_above is None
    assert "It is expected to be 1.20x still with 8 texts at once" in verdict.sentences[1]
    verdict = decide(evidence(predictions, [row(4, 2.0), row(4, 0.8, num_sequences=4)]))
    assert verdict.off_above == 1
    assert verdict.sentences[1] == "Turn it off above 1 text at once (0.80x measured with 4)."
    assert [each["is_measured"] for each in verdict.load] == [True, True, False]


USES = {
    PLAIN: Use(None, 0), DEFAULT: Use("suffix + small", "auto"), CHOICE: Use("small", 4), WORST: Use("small", 8),
}  # fmt: skip


def cell(seconds):
    found = Cell(0.0, 1, USES)
    found.seconds = {setting: {prompt: [each] for prompt, each in by.items()} for setting, by in seconds.items()}
    found.num_tokens = dict.fromkeys("abcd", 100)
    found.num_compared = 16
    return found


def test_predicted_and_measured_stand_side_by_side():
    plain = {"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.4}
    half = {prompt: seconds / 2 for prompt, seconds in plain.items()}
    found = cell({setting: plain if setting == PLAIN else half for setting in USES})
    predictions = [predicted(2.1), predicted(1.0, depth=8)]
    rows = rows_of([found], predictions)
    by_setting = {row["setting"]: row for row in rows}
    assert by_setting[CHOICE]["speedup"]["value"] == pytest.approx(2.0)
    assert by_setting[CHOICE]["error"] == pytest.approx(0.05)
    assert by_setting[CHOICE]["is_inside"]
    assert by_setting[DEFAULT]["predicted"] is None
    assert by_setting[WORST]["error"] == pytest.approx(-0.5)
    assert measured_item(rows).status == "warn"
    assert "choice (small, depth 4) at T = 0, 1 at once: 2.00x, predicted 2.10x" in measured_item(rows).value


def test_what_a_drafter_gained_over_another_is_measured_text_by_text():
    plain = {"a": 0.2, "b": 0.4, "c": 0.8, "d": 0.2}
    third, half = ({prompt: seconds / share for prompt, seconds in plain.items()} for share in (3, 2))
    found = cell({PLAIN: plain, CHOICE: third, RIVAL: half})
    found.uses = {PLAIN: USES[PLAIN], CHOICE: Use("suffix + small", 4), RIVAL: Use("suffix", 2)}
    choice, _ = rows_of([found], [])
    (over,) = choice["over"]
    assert (over["drafter"], over["depth"], over["gain"]["value"]) == ("suffix", 2, pytest.approx(1.5))
    assert over["gain"]["high"] - over["gain"]["low"] < 1e-9


def test_prompts_that_not_every_setting_has_written_count_for_none():
    plain = dict.fromkeys("abcd", 0.2)
    found = cell({PLAIN: plain, DEFAULT: plain, CHOICE: plain, WORST: {"a": 0.1, "b": 0.1}})
    rows = rows_of([found], [predicted(2.0)])
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
    return evidence(predictions, **changes)


def test_speedups_and_limits_are_said_for_each_temperature():
    verdict = decide(of_two(2.4, 1.4))
    assert verdict.decision == "speculate"
    assert "2.40x [2.16, 2.64] at T = 0, 1.40x [1.26, 1.54] at T = 1" in verdict.sentences[0]
    assert [(each.temperature, each.decision, each.off_above) for each in verdict.by_temperature] == [
        (0.0, "speculate", None), (1.0, "speculate", 1)
    ]  # fmt: skip
    assert "At T = 0: it is expected to be 1.68x still with 8 texts at once." in verdict.sentences[1]
    assert "At T = 1: turn it off above 1 text at once (0.98x predicted with 8)." in verdict.sentences[1]
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
    measured = [row(4, 1.7), row(4, 0.9, temperature=1.0)]
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
    verdict = decide(evidence(predictions))
    assert verdict.decision == "do not speculate"
    assert "At T = 0 alone, small at depth 8 is predicted to bring 1.50x" in verdict.sentences[1]
    assert "T = 1 alone" not in verdict.sentences[1]


def test_the_verdicts_json_has_each_temperature():
    found = decide(of_two(1.6, 0.8)).as_dict()
    assert found["by_temperature"][1]["decision"] == "do not speculate"
    assert found["by_temperature"][1]["speedup"]["value"] == pytest.approx(0.8)
    assert found["only_at"] == (0.0,)
