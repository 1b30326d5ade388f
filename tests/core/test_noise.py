"""The noise row: exact, cheap to search, and statistically what it claims to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from outrider import noise


def key_of(seed: int, position: int) -> int:
    return noise.row_key(noise.Address(seed, 0, position))


def full_row(key: int, vocab_size: int) -> np.ndarray:
    return noise.gumbel_at(key, np.arange(vocab_size))


def brute_force(key: int, logits: np.ndarray, temperature: float) -> int:
    return int((logits.astype(np.float64) / temperature + full_row(key, len(logits))).argmax())


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    vocab_size=st.integers(1, 5000),
    spread=st.sampled_from([0.0, 0.01, 1.0, 5.0, 30.0]),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 3.0, 100.0]),
)
def test_the_lazy_argmax_is_the_argmax_of_the_whole_row(seed, vocab_size, spread, temperature):
    logits = (np.random.default_rng(seed).standard_normal(vocab_size) * spread).astype(np.float32)
    key = key_of(seed, 17)
    expected = brute_force(key, logits, temperature)
    assert noise.argmax(key, logits, temperature) == expected
    assert noise._search(key, logits, temperature) == expected


def test_the_lazy_argmax_holds_for_a_large_vocabulary_with_masked_tokens():
    rng = np.random.default_rng(0)
    for position in range(20):
        logits = (rng.standard_normal(151_999) * 4).astype(np.float32)
        logits[rng.integers(0, 151_999, 100_000)] = -np.inf
        key = key_of(3, position)
        assert noise.argmax(key, logits, 1.0) == brute_force(key, logits, 1.0)


def test_equal_values_go_to_the_smallest_id(monkeypatch):
    monkeypatch.setattr(noise, "_uniform", lambda hashes: np.full(hashes.shape, 0.5))
    monkeypatch.setattr(noise, "_first_member", lambda hashes: np.zeros(hashes.shape, dtype=np.int64))
    for kept in (noise._leaders, noise._whole_row):
        kept.cache_clear()
        monkeypatch.setattr(noise, kept.__name__, kept.__wrapped__)
    assert noise.argmax(1, np.zeros(1000, dtype=np.float32), 1.0) == 0
    assert noise._search(1, np.zeros(1000, dtype=np.float32), 1.0) == 0


def test_a_token_has_the_same_noise_whatever_it_is_asked_with():
    key = key_of(5, 9)
    row = full_row(key, 1000)
    ids = np.array([999, 0, 63, 64, 500])
    np.testing.assert_array_equal(noise.gumbel_at(key, ids), row[ids])
    np.testing.assert_array_equal(noise.gumbel_at(key, ids.reshape(5, 1)), row[ids].reshape(5, 1))


def test_rows_differ_by_every_part_of_the_key():
    keys = {
        noise.row_key(noise.Address(seed, stream, position))
        for seed in range(10)
        for stream in range(10)
        for position in range(10)
    }
    assert len(keys) == 1000


def test_purposes_and_paths_have_rows_of_their_own():
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    keys = {
        noise.row_key(noise.Address(7, stream, position, purpose, path))
        for stream in range(3)
        for position in range(3)
        for purpose in ("target", "proposal", "coin", "residual")
        for path in paths
    }
    assert len(keys) == 3 * 3 * 4 * len(paths)
    assert noise.row_key(noise.Address(7, 0, 3, "target", ())) == noise.row_key(noise.Address(7, 0, 3))


def test_a_coin_has_52_bits_and_is_never_certain():
    coins = [noise.uniform(key_of(seed, 0)) for seed in range(2000)]
    assert all(0 < coin < 1 for coin in coins)
    assert all((coin * 2**52) % 1 == 0.5 for coin in coins)  # the midpoint of a cell
    assert {int(coin * 2**52) % 2 for coin in coins} == {0, 1}


def test_the_largest_and_smallest_hashes_make_coins_between_0_and_1(monkeypatch):
    for extreme in (0, 2**64 - 1):
        monkeypatch.setattr(noise, "_hash", lambda key, counters, extreme=extreme: np.array([extreme], np.uint64))
        assert 0 < noise.uniform(1) < 1


@pytest.mark.statistical
def test_coins_are_uniform_and_know_nothing_of_the_rows_beside_them():
    """Kolmogorov-Smirnov as below; correlation with the proposal's row of the same node: |r| < 4.5 / sqrt(n)."""
    addresses = [noise.Address(seed, 0, 5, "coin", (0,)) for seed in range(40_000)]
    coins = np.array([noise.uniform(noise.row_key(address)) for address in addresses])
    expected = (np.arange(len(coins)) + 0.5) / len(coins)
    assert np.abs(np.sort(coins) - expected).max() < 2.2 / np.sqrt(len(coins))
    rows = [noise.gumbel_at(noise.row_key(address._replace(purpose="proposal")), np.arange(2)) for address in addresses]
    for column in np.array(rows).T:
        assert abs(np.corrcoef(coins, column)[0, 1]) < 4.5 / np.sqrt(len(coins))


def test_the_noise_of_a_seed_never_changes():
    """Version 1, as recorded when it was made: a seed's text stays its text."""
    row = noise.gumbel_at(key_of(1234, 56), np.array([0, 1, 63, 64, 4095, 151_999]))
    assert row.tolist() == pytest.approx(RECORDED, abs=0, rel=1e-15)


RECORDED = [
    -0.34924938296308966,
    0.4650084827499386,
    -0.9727619859516152,
    1.6861888449867737,
    1.8035550960725637,
    -0.4103157865745305,
]


@pytest.mark.statistical
def test_the_noise_is_standard_gumbel():
    """Kolmogorov-Smirnov at 10^6 draws; a true null exceeds 2.2 / sqrt(n) once in 10^4."""
    values = np.sort(np.concatenate([full_row(key_of(seed, 0), 10_000) for seed in range(100)]))
    expected = np.exp(-np.exp(-values))
    observed = (np.arange(len(values)) + 0.5) / len(values)
    assert np.abs(observed - expected).max() < 2.2 / np.sqrt(len(values))


@pytest.mark.statistical
def test_members_of_a_group_are_independent():
    """E is exponential in every member, so any two of a group must not correlate: |r| < 4.5 / sqrt(n)."""
    races = np.exp(-np.stack([full_row(key_of(seed, 0), 64) for seed in range(40_000)]))
    correlations = np.corrcoef(races.T)[np.triu_indices(64, 1)]
    assert np.abs(correlations).max() < 5.0 / np.sqrt(len(races))
    maxima = races.min(axis=1) * 64  # the first arrival of 64 is Exp(64)
    assert abs(maxima.mean() - 1) < 4.5 / np.sqrt(len(races))
    winners = np.bincount(races.argmin(axis=1), minlength=64)
    assert ((winners - 625) ** 2 / 625).sum() < 63 + 4.5 * np.sqrt(2 * 63)


@pytest.mark.statistical
def test_argmax_samples_the_softmax():
    """Chi-square over 8 tokens and 40,000 draws; the bound is passed by chance less than once in 10^5."""
    logits = np.array([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -np.inf], dtype=np.float32)
    draws = [noise.argmax(key_of(11, position), logits, 0.8) for position in range(40_000)]
    counts = np.bincount(draws, minlength=8)
    weights = np.exp(logits.astype(np.float64) / 0.8)
    expected = weights / weights.sum() * len(draws)
    assert counts[7] == 0
    assert ((counts[:7] - expected[:7]) ** 2 / expected[:7]).sum() < 34
