"""Options become what they say: sampling parameters, and which models to load."""

from __future__ import annotations

import dataclasses

import pytest
from typer.main import get_command

from outrider.cli.app import app
from outrider.cli.models import Models, choose_models
from outrider.cli.options import DraftOptions, EngineOptions, SamplingOptions
from outrider.demo import BundledPair
from outrider.errors import ParameterError
from outrider.request import SamplingParams


def options(group, *arguments):
    values = get_command(app).commands["run"].make_context("run", list(arguments)).params
    return group(**{field.name: values[field.name] for field in dataclasses.fields(group)})


def test_every_sampling_parameter_has_its_option():
    asked = {
        "--max-tokens": 9, "--min-tokens": 2, "-n": 3, "--temperature": 0.5, "--top-k": 4, "--top-p": 0.6,
        "--min-p": 0.1, "--repetition-penalty": 1.5, "--presence-penalty": -1, "--frequency-penalty": 0.25,
        "--logit-bias": "5=-1.5e1", "--bad-word": "bad", "--seed": 7, "--stop": "\n", "--stop-token-id": 8,
        "--log-probs": 2,
    }  # fmt: skip
    words = [str(word) for pair in asked.items() for word in pair]
    assert options(SamplingOptions, *words, "--ignore-eos").params() == SamplingParams(
        max_tokens=9, min_tokens=2, n=3, temperature=0.5, top_k=4, top_p=0.6, min_p=0.1, repetition_penalty=1.5,
        presence_penalty=-1.0, frequency_penalty=0.25, logit_bias={5: -15.0}, bad_words=("bad",), seed=7, stop=("\n",),
        stop_token_ids=(8,), log_probs=2, ignore_eos=True,
    )  # fmt: skip


def test_what_is_repeatable_is_kept_in_order():
    words = (
        "--stop",
        "b",
        "--stop",
        "a",
        "--stop-token-id",
        "2",
        "--stop-token-id",
        "1",
        "--bad-word",
        "y",
        "--bad-word",
        "x",
    )
    params = options(SamplingOptions, *words, "--logit-bias", "1=2", "--logit-bias", "0=+3").params()
    assert (params.stop, params.stop_token_ids, params.bad_words) == (("b", "a"), (2, 1), ("y", "x"))
    assert params.logit_bias == {1: 2.0, 0: 3.0}


def test_no_options_are_the_defaults():
    assert options(SamplingOptions).params() == SamplingParams()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"target": "bundled target", "drafts": ("suffix", "bundled draft")}),
        (("--draft", "none"), {"target": "bundled target"}),
        (("--draft", "suffix", "--draft", "mine"), {"target": "bundled target", "drafts": ("suffix", "mine")}),
        (("--target", "mine"), {}),
        (("--target", "mine", "--draft", "other", "--depth", "3"), {"drafts": ("other",), "depth": 3}),
        (("--target", "mine", "--draft", "suffix", "--learn"), {"drafts": ("suffix",), "learns": True}),
        (("--target", "mine", "--draft", "other", "--speculation", "off"), {"depth": 0, "is_plain": True}),
        (("--target", "mine", "--draft", "other", "--depth", "0"), {"drafts": ("other",), "depth": 0}),
        (("--target", "mine", "--draft", "other", "--speculation", "on"), {"drafts": ("other",)}),
    ],
)
def test_which_models_are_meant(monkeypatch, arguments, expected):
    monkeypatch.setattr("outrider.cli.models.bundled_pair", lambda: BundledPair("bundled target", "bundled draft"))
    plain = Models(target="mine", drafts=(), learns=False, depth="auto", is_plain=False)
    assert choose_models(options(DraftOptions, *arguments), has_prediction=False) == plain._replace(**expected)


def test_a_prediction_is_something_to_draft_from():
    asked = options(DraftOptions, "--target", "mine", "--depth", "3", "--speculation", "on")
    assert choose_models(asked, has_prediction=True).depth == 3


def test_a_verb_may_have_a_drafter_of_its_own_for_a_target_that_comes_alone():
    alone, chosen = (DraftOptions(target="mine", draft=draft) for draft in (None, ["none"]))
    assert choose_models(alone, by_default=("suffix",)).drafts == ("suffix",)
    assert choose_models(chosen, by_default=("suffix",)).drafts == ()


def test_prompts_that_may_bring_predictions_may_be_all_that_drafts():
    asked = DraftOptions(target="mine", draft=["none"], depth="3")
    assert choose_models(asked, may_predict=True).depth == 3
    with pytest.raises(ParameterError, match="--depth 3 needs a drafter"):
        choose_models(asked)


@pytest.mark.parametrize("verb", [("run", "x"), ("bench",), ("check",), ("audit",)], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("drafts", "said"),
    [
        (("suffix", "suffix"), "--draft suffix is given twice: keep one of them"),
        (("none", "none"), "--draft none is given twice: keep one of them"),
        (("none", "suffix"), "--draft none drafts nothing, but there is --draft suffix: leave one of them out"),
    ],
    ids=" and ".join,
)
def test_every_verb_refuses_the_same_in_the_same_words(outrider, verb, drafts, said):
    words = [word for draft in drafts for word in ("--draft", draft)]
    assert outrider(*verb, *words).error == f"outrider: error: {said}"


def test_trees_are_of_a_fixed_depth_or_left_to_the_policy():
    models = choose_models(options(DraftOptions, "--depth", "8", "--max-children", "3"), has_prediction=False)
    assert (models.depth, models.max_children) == (8, 3)
    for depth in ((), ("--depth", "auto")):
        models = choose_models(options(DraftOptions, "--max-children", "3", *depth), has_prediction=False)
        assert (models.depth, models.max_children) == ("auto", 3)
    with pytest.raises(ParameterError, match="--depth 0 drafts nothing"):
        choose_models(options(DraftOptions, "--max-children", "3", "--depth", "0"), has_prediction=False)


def test_exactness_is_asked_for_by_name():
    assert options(EngineOptions).exactness is None
    assert options(EngineOptions, "--exactness", "bitwise").exactness == "bitwise"
