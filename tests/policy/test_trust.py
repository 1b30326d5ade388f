"""What plans for several texts promise to gain is believed as far as earlier ones kept it."""

from __future__ import annotations

import pytest

from outrider.policy.trust import FIRST, MAX_SECONDS, Trust


def entered(num_steps: int, tokens: float, gain: float, plain_steps: float, num_sequences: int = 4) -> Trust:
    trust = Trust()
    for _ in range(num_steps):
        trust.enter(num_sequences, tokens, gain, plain_steps)
    return trust


def test_a_single_texts_plans_are_believed():
    assert entered(100, 1.0, 0.2, 1.2, num_sequences=1).of(1) == 1.0


def test_of_several_texts_a_little_is_doubted_before_any_step():
    assert Trust().of(8) == Trust().of(2) == pytest.approx(FIRST)


def test_it_comes_to_the_share_of_the_gain_that_was_made():
    # In the time of 1.2 plain steps, half as many tokens more were promised: 1.8; and 1.5 or 2 came.
    assert entered(400, tokens=1.5, gain=0.5, plain_steps=1.2).of(4) == pytest.approx(0.5, abs=0.05)
    assert entered(400, tokens=2.0, gain=0.5, plain_steps=1.2).of(4) == 1.0


def test_plans_that_gain_nothing_are_not_made():
    assert entered(400, tokens=1.0, gain=0.5, plain_steps=1.2).of(4) == 0.0


def test_other_numbers_of_texts_are_apart():
    assert entered(400, tokens=1.0, gain=0.5, plain_steps=2.0).of(16) == Trust().of(16)


def test_a_hiccup_of_the_machine_says_nothing():
    assert entered(100, 1.0, 0.1, MAX_SECONDS).of(4) == Trust().of(4)


def test_it_is_forgotten_while_nothing_is_drafted():
    trust = entered(400, tokens=1.0, gain=0.3, plain_steps=1.2)
    before = trust.of(4)
    for _ in range(4000):
        trust.idle(4)
    assert before == 0.0 < trust.of(4)
