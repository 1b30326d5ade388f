"""Logits to a token: truncations, greedy, and what damaged logits give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from outrider import noise, sampling
from outrider.errors import NumericsError
from outrider.request import SamplingParams

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


def test_log_probs_are_those_that_choose_samples_from():
    logits = np.array([1.0, 0.0, -1.0, 2.0], dtype=np.float32)
    params = SamplingParams(temperature=0.5, top_k=3)
    log_probs = sampling.log_probs(logits, params)
    assert np.isneginf(log_probs[2])
    assert np.exp(log_probs).sum() == pytest.approx(1.0)
    assert log_probs[3] - log_probs[0] == pytest.approx(2.0)
    assert sampling.log_probs(logits, SamplingParams()).tolist() == [-np.inf, -np.inf, -np.inf, 0.0]
