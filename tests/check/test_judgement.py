"""Every draft is judged by itself, and one that does not pay is in no recommendation."""

from __future__ import annotations

import pytest

from outrider.check.judgement import drafts_item, judge
from outrider.check.measured import Wanted
from outrider.check.verdict import decide, next_trial
from outrider.predict.prediction import Leavings
from tests.check.test_verdict import evidence, predicted, row


def pair(alone, both, suffix, *, width=0.1, **setting):
    """A draft model alone, with looking guesses up, and that by itself; all errors are of prompts and rounds alike."""
    shared = Leavings((0.1, -0.1, 0.05), (0.02, -0.02, 0.0), "same rounds")
    return [
        predicted(speedup, width=width, drafter=drafter, leavings=shared, **setting)
        for drafter, speedup in (("small", alone), ("suffix + small", both), ("suffix", suffix))
    ]


def conclusions(predictions, measured=()):
    return {each.name: each.conclusion for each in judge(predictions, measured)}


@pytest.mark.parametrize(
    ("speedups", "small", "recommended"),
    [
        ((0.6, 1.9, 2.0), "does not pay", "suffix"),  # the cascade pays, without a merit of the draft
        ((1.5, 1.9, 2.0), "does not pay", "suffix"),  # the draft pays, but looking guesses up pays more
        ((1.5, 1.8, 1.4), "pays", "suffix + small"),
        ((1.5, 1.3, 0.9), "pays", "small"),
    ],
)
def test_a_draft_has_to_beat_what_is_best_without_it(speedups, small, recommended):
    predictions = pair(*speedups)
    assert conclusions(predictions)["small"] == small
    verdict = decide(evidence(predictions))
    assert (verdict.decision, verdict.drafter) == ("speculate", recommended)


def test_what_both_owe_to_prompts_and_rounds_leaves_the_gain_sure():
    """Each interval by itself would leave it open."""
    (small, suffix) = judge(pair(1.2, 1.7, 1.5, width=0.4), [])
    assert small.gain.value == pytest.approx(1.7 / 1.5)
    assert small.gain.low > 1.05
    assert suffix.name == "suffix"


def test_the_measured_default_does_not_bring_a_draft_back():
    """All drafters together paid, and so did looking guesses up without the draft."""
    predictions = pair(0.6, 1.6, 1.8)
    default = row("auto", 1.86, drafter="suffix + small", over=[("suffix", 4, 1.0), ("suffix", "auto", 0.98)])
    verdict = decide(
        evidence(predictions, [row(4, 1.86, drafter="suffix"), row("auto", 1.9, drafter="suffix"), default])
    )
    assert (verdict.drafter, verdict.depth) == ("suffix", "auto")
    assert verdict.sentences[0] == "Do not speculate with small: it agrees on 40 %, break-even is 63 %."
    assert verdict.sentences[1].startswith("Speculate with suffix, auto depth (the best fixed one is 4): 1.90x")
    assert [each["conclusion"] for each in verdict.as_dict()["drafts"]] == ["does not pay", "pays"]


def test_a_draft_that_was_measured_to_bring_more_beside_its_rival_pays():
    predictions = pair(1.3, 1.5, 1.5)
    assert conclusions(predictions)["small"] == "does not pay"
    default = row("auto", 1.9, drafter="suffix + small", over=[("suffix", 4, 1.3)])
    assert conclusions(predictions, [default])["small"] == "pays"


def test_nothing_pays_and_each_is_told_so():
    verdict = decide(evidence(pair(0.6, 0.7, 0.9, width=0.02)))
    assert verdict.decision == "do not speculate"
    assert verdict.drafter == "suffix"
    assert verdict.sentences[0].startswith("Do not speculate: the best that was found, suffix at depth 4, brings 0.90x")
    assert verdict.sentences[-1] == "Do not speculate with small: it agrees on 40 %, break-even is 63 %."


def test_a_draft_that_is_open_is_left_out_and_told_what_would_decide():
    predictions = pair(1.3, 1.3, 1.2)
    predictions[:2] = pair(1.3, 1.3, 1.2, width=0.5)[:2]
    predictions[2] = predicted(1.2, drafter="suffix")
    verdict = decide(evidence(predictions))
    assert verdict.drafter == "suffix"
    assert verdict.sentences[0].startswith("Leave small out for now: it brings 1.08x [")
    assert "more prompts or a larger --budget would decide" in verdict.sentences[0]


def test_a_draft_that_surely_pays_is_taken_where_looking_guesses_up_may_pay_as_well():
    predictions = [predicted(1.4), predicted(1.3, drafter="suffix", width=0.5)]
    verdict = decide(evidence(predictions))
    assert (verdict.decision, verdict.drafter) == ("speculate", "small")
    assert len(verdict.sentences) == 2


def test_a_cascade_is_not_taken_for_a_draft_that_is_open():
    predictions = [
        predicted(0.9, width=0.4), predicted(1.5, drafter="suffix + small"), predicted(1.4, drafter="suffix", width=0.4)
    ]  # fmt: skip
    verdict = decide(evidence(predictions))
    assert (verdict.decision, verdict.drafter) == ("undecided", "suffix")


def test_the_next_best_that_is_known_to_pay_takes_the_place_of_what_was_measured_not_to():
    predictions = [predicted(1.8), predicted(1.4, drafter="large")]
    assert decide(evidence(predictions)).drafter == "small"
    verdict = decide(evidence(predictions, [row(4, 0.9)]))
    assert (verdict.decision, verdict.drafter, verdict.is_measured) == ("speculate", "large", False)
    assert verdict.sentences[0].startswith("Do not speculate with small: ")


def test_a_draft_that_pays_at_one_temperature_pays():
    predictions = [predicted(1.6), predicted(0.5, temperature=1.0)]
    (small,) = judge(predictions, [])
    assert (small.conclusion, small.pays_at) == ("pays", (0.0,))


def test_what_is_measured_is_what_the_verdict_recommends_and_before_that_what_may_well_change_it():
    sure = evidence(pair(0.6, 1.9, 2.0))
    wanted = next_trial(sure, set())
    assert (wanted.choice.drafter, wanted.rival, wanted.is_open) == ("suffix", None, False)
    assert next_trial(sure, {"suffix"}) is None

    likely = evidence([predicted(1.6, width=0.5), predicted(1.2, drafter="suffix")])
    wanted = next_trial(likely, set())
    assert isinstance(wanted, Wanted)
    assert (wanted.choice.drafter, wanted.rival.drafter, wanted.is_open) == ("small", "suffix", True)
    assert next_trial(likely, {"small"}).choice.drafter == "suffix"

    unlikely = evidence([predicted(0.9, width=0.5), predicted(1.2, drafter="suffix")])
    assert next_trial(unlikely, set()).choice.drafter == "suffix"
    assert next_trial(unlikely, {"suffix"}).choice.drafter == "small"
    assert next_trial(evidence([]), set()) is None


def test_the_item_names_each_draft_with_what_it_rests_on():
    item = drafts_item(judge(pair(0.6, 1.9, 2.0), []))
    assert item.status == "warn"
    assert (
        "small does not pay: it agrees on 40 %, break-even is 63 %, and at best (suffix + small, depth 4)" in item.value
    )
    assert "over suffix, 1.90x [1.71, 2.09] over plain decoding (predicted)" in item.value
    assert item.remedy == "leave small out"
    assert drafts_item(judge(pair(1.5, 1.8, 1.4), [])).status == "pass"
