"""Logits to a token: truncations, greedy, and what damaged logits give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from outrider import noise, sampling
from outrider.errors import NumericsError
from outrider.request import SamplingParams

ALL_WAYS = [
    SamplingParams(),
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=1.0, top_k=2),
    SamplingParams(temperature=0.8, top_p=0.9),
    SamplingParams(temperature=0.8, min_p=0.05),
    SamplingParams(temperature=2.0, top_k=50, top_p=0.99, min_p=0.001),
]
ROWS = [noise.Address(seed=0, stream=0, position=position) for position in range(200)]


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def kept_by_definition(logits: np.ndarray, params: SamplingParams) -> set[int]:
    """The three truncations one after the other, as their papers state them."""
    scaled = logits.astype(np.float64) / params.temperature
    kept = np.full(len(logits), True)
    if params.top_k:
        kept &= scaled >= np.sort(scaled)[::-1][min(params.top_k, len(scaled)) - 1]
    if params.top_p < 1:
        probs = np.where(kept, softmax(np.where(kept, scaled, -np.inf)), 0.0)
        order = np.argsort(-probs, kind="stable")
        num_kept = int(np.searchsorted(np.cumsum(probs[order]), params.top_p)) + 1
        kept &= probs >= probs[order[min(num_kept, len(order)) - 1]]
    if params.min_p > 0:
        probs = softmax(scaled)
        kept &= probs >= params.min_p * probs.max()
    return set(np.flatnonzero(kept).tolist())


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.1, 4),
    top_k=st.sampled_from([0, 1, 3, 50, 5000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_truncations_keep_what_their_definitions_keep(seed, temperature, top_k, top_p, min_p):
    logits = (np.random.default_rng(seed).standard_normal(700) * 3).astype(np.float32)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ours = sampling.kept_token_ids(logits, params)
    assert (np.diff(ours) > 0).all()
    # Where a border falls within rounding of the mass, one token more or less is right too.
    assert len(set(ours.tolist()) ^ kept_by_definition(logits, params)) <= 1


def test_ties_at_a_border_are_kept():
    logits = np.array([1.0, 2.0, 2.0, 2.0, 0.0], dtype=np.float32)
    assert sampling.kept_token_ids(logits, SamplingParams(temperature=1.0, top_k=1)).tolist() == [1, 2, 3]
    assert sampling.kept_token_ids(logits, SamplingParams(temperature=1.0, top_p=0.1)).tolist() == [1, 2, 3]


def test_zero_temperature_takes_the_first_of_equal_logits_and_ignores_noise():
    logits = np.array([0.0, 3.0, 3.0], dtype=np.float32)
    assert {sampling.choose(logits, SamplingParams(), row) for row in ROWS[:50]} == {1}


def test_a_truncated_choice_is_the_whole_choice_if_the_winner_survives():
    logits = np.random.default_rng(1).standard_normal(3000).astype(np.float32) * 2
    plain, truncated = SamplingParams(temperature=1.0), SamplingParams(temperature=1.0, top_p=0.95)
    kept = set(sampling.kept_token_ids(logits, truncated).tolist())
    winners = [(sampling.choose(logits, plain, row), sampling.choose(logits, truncated, row)) for row in ROWS]
    assert all(cut == whole for whole, cut in winners if whole in kept)
    assert all(cut in kept for _, cut in winners)
    assert any(whole not in kept for whole, _ in winners)


@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=1.0), SamplingParams(temperature=1.0, top_k=2)]
)
@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(params, damage):
    logits = np.zeros(100, dtype=np.float32)
    logits[37] = damage
    with pytest.raises(NumericsError, match="token 37"):
        sampling.choose(logits, params, ROWS[0])


@pytest.mark.parametrize("params", ALL_WAYS)
def test_what_is_banned_is_never_chosen_nor_kept_and_nothing_else_changes(params):
    logits = np.random.default_rng(2).standard_normal(500).astype(np.float32)
    banned = np.random.default_rng(3).permutation(500)[:497]
    allowed = np.setdiff1d(np.arange(500), banned)
    logits[banned] = -np.inf
    chosen = [sampling.choose(logits, params, row) for row in ROWS]
    assert set(chosen) <= set(allowed.tolist())
    if params.temperature > 0:
        assert set(sampling.kept_token_ids(logits, params).tolist()) <= set(allowed.tolist())
        assert set(chosen) == set(sampling.kept_token_ids(logits, params).tolist())
    assert np.isneginf(sampling.log_probs(logits, params)[banned]).all()
    assert [sampling.guess(logits, params, row)[0] for row in ROWS] == chosen


@pytest.mark.parametrize("params", ALL_WAYS)
def test_a_text_for_which_every_token_is_banned_is_an_error_of_its_own(params):
    with pytest.raises(NumericsError, match="none of 100 tokens may be chosen"):
        sampling.choose(np.full(100, -np.inf, dtype=np.float32), params, ROWS[0])
    with pytest.raises(NumericsError, match="none of 100 tokens may be chosen"):
        sampling.guess(np.full(100, -np.inf, dtype=np.float32), params, ROWS[0])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocab_size=st.sampled_from([1, 2, 63, 700, 8192, 8193, 20_000]),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    params=st.sampled_from(
        [
            SamplingParams(),
            SamplingParams(temperature=0.7),
            SamplingParams(temperature=1.0, top_k=5),
            SamplingParams(temperature=1.3, top_p=0.9, min_p=0.01),
        ]
    ),
)
def test_a_guess_is_the_choice_and_its_score_grows_with_its_lead(seed, vocab_size, spread, params):
    logits = (np.random.default_rng(seed).standard_normal(vocab_size) * spread).astype(np.float32)
    values = logits.astype(np.float64)
    if params.temperature > 0:
        kept = sampling.kept_token_ids(logits, params)
        row = noise.gumbel_at(noise.row_key(ROWS[1]), kept)
        values = values[kept] / params.temperature + row
    ranked = np.sort(values)[::-1]
    lead = ranked[0] - ranked[1] if len(ranked) > 1 else np.inf
    token_id, score = sampling.guess(logits, params, ROWS[1])
    assert token_id == sampling.choose(logits, params, ROWS[1])
    assert score == pytest.approx(min(np.log1p(lead), 4.0), rel=1e-5, abs=1e-6)


def test_log_probs_are_those_that_choose_samples_from():
    logits = np.array([1.0, 0.0, -1.0, 2.0], dtype=np.float32)
    params = SamplingParams(temperature=0.5, top_k=3)
    log_probs = sampling.log_probs(logits, params)
    assert np.isneginf(log_probs[2])
    assert np.exp(log_probs).sum() == pytest.approx(1.0)
    assert log_probs[3] - log_probs[0] == pytest.approx(2.0)
    assert sampling.log_probs(logits, SamplingParams()).tolist() == [-np.inf, -np.inf, -np.inf, 0.0]


@pytest.mark.parametrize("params", [SamplingParams(temperature=0.5, top_k=3, log_probs=4), SamplingParams(log_probs=4)])
def test_a_tokens_log_probs_are_those_of_the_model_and_of_what_it_was_drawn_from(params):
    raw = np.array([1.0, 3.0, -1.0, 3.0, 2.0, 0.5], dtype=np.float32)
    processed = np.array([1.0, -np.inf, -1.0, 2.5, 2.0, 0.5], dtype=np.float32)
    found = sampling.token_log_probs(raw, processed, params, 3)
    assert found.raw == pytest.approx(np.log(softmax(raw.astype(np.float64))[3]))
    assert [token_id for token_id, _ in found.top_raw] == [1, 3, 4, 0]  # equal ones by id
    assert found.top_raw[1] == (3, found.raw)
    if params.temperature == 0:
        assert found.processed == 0.0
        assert found.top_processed == ((3, 0.0),)
        assert np.isneginf(sampling.token_log_probs(raw, processed, params, 4).processed)
        return
    kept = softmax(np.array([2.5, 2.0, 1.0]) / 0.5)
    assert [token_id for token_id, _ in found.top_processed] == [3, 4, 0]  # what was cut off is no alternative
    assert np.exp([value for _, value in found.top_processed]) == pytest.approx(kept)
    assert found.processed == found.top_processed[0][1]


def test_without_alternatives_a_tokens_own_log_probs_are_still_told():
    logits = np.array([1.0, 2.0], dtype=np.float32)
    found = sampling.token_log_probs(logits, logits, SamplingParams(temperature=1.0, log_probs=0), 0)
    assert (found.top_raw, found.top_processed) == ((), ())
    assert found.raw == found.processed == pytest.approx(-np.log1p(np.e))


@pytest.mark.parametrize("vocab_size", [40, 20_000])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=0.8), SamplingParams(temperature=1.2, top_k=30, top_p=0.95)]
)
def test_guesses_are_what_would_be_chosen_if_the_ones_before_were_banned(params, vocab_size):
    for position in range(20):
        logits = np.random.default_rng(position).normal(0, 3, vocab_size).astype(np.float32)
        row = noise.Address(5, 0, position)
        found = sampling.guesses(logits, params, row, 4)
        assert found[0] == sampling.guess(logits, params, row)
        if not params.top_k:  # a ban changes what is left after truncation
            banned = logits.copy()
            for guess in found:
                assert guess.token_id == sampling.choose(banned, params, row)
                banned[guess.token_id] = -np.inf
        scores = [guess.score for guess in found]
        assert scores == sorted(scores, reverse=True)
        assert max(scores[1:], default=0) <= 0 <= scores[0]
        assert len({guess.token_id for guess in found}) == len(found)
        assert params.top_k or len(found) == 4  # of what truncation leaves there may be fewer


def test_fewer_tokens_than_asked_for_are_all_that_may_be_chosen():
    logits = np.array([1.0, -np.inf, 3.0, 3.0], np.float32)
    found = sampling.guesses(logits, SamplingParams(), noise.Address(0, 0, 0), 9)
    assert found[:2] == [(2, 0.0), (3, 0.0)]
    assert [guess.token_id for guess in found] == [2, 3, 0]
    assert sampling.guesses(logits[:2], SamplingParams(), noise.Address(0, 0, 0), 3) == [(0, 4.0)]
