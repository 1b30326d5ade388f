"""Bad luck is forgiven where guesses are as good as they were thought, and only there."""

from __future__ import annotations

import random

import pytest

from outrider.policy.luck import MOST_FORGIVEN, NUM_UNKNOWN, Luck, expected_of
from outrider.tree import ROOT, TokenTree

CHAIN = TokenTree.chain((5, 5, 5, 5))
SURVIVALS = [0.7**depth for depth in range(1, 5)]


def accepted(draw: random.Random, chance: float) -> int:
    return next((depth for depth in range(4) if draw.random() >= chance), 4)


def relieved(num_steps: int, chance: float, luck: Luck | None = None, seed: int = 0) -> float:
    """What is forgiven after so many steps of a chain, guesses of which are thought to be right in 7 of 10 cases."""
    luck, draw = luck or Luck(), random.Random(seed)
    return sum(luck.relief(accepted(draw, chance), *expected_of(CHAIN, SURVIVALS)) for _ in range(num_steps))


def test_expected_tokens_and_their_spread_are_those_of_a_chain_by_enumeration():
    chances = [0.3, 0.7 * 0.3, 0.49 * 0.3, 0.343 * 0.3, 0.2401]  # of no token, one, ...
    mean = sum(number * chance for number, chance in enumerate(chances))
    variance = sum(number**2 * chance for number, chance in enumerate(chances)) - mean**2
    assert expected_of(CHAIN, SURVIVALS) == pytest.approx((mean, variance))
    fork = TokenTree((1, 2), (ROOT, ROOT))
    assert expected_of(fork, [0.5, 0.25]) == pytest.approx((0.75, 0.75 * 0.25))


def test_of_a_drafter_that_nobody_knows_nothing_is_forgiven():
    assert relieved(NUM_UNKNOWN, 0.3) == 0


def test_what_chance_explains_is_forgiven_up_to_a_bound():
    found = [relieved(2 * NUM_UNKNOWN, 0.7, seed=seed) for seed in range(200)]
    assert all(0 <= each <= MOST_FORGIVEN for each in found)
    # Half of all have been unlucky, of whom few so much that it does not look like chance.
    assert sum(each > 0 for each in found) > 60


def test_what_guesses_lack_that_are_worse_than_thought_is_not_forgiven():
    luck = Luck()
    forgiven = relieved(3 * NUM_UNKNOWN, 0.7, luck)
    assert forgiven + relieved(NUM_UNKNOWN // 2, 0.2, luck) == pytest.approx(0, abs=1e-9)
