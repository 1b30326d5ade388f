"""Plans for several texts are believed as far as earlier ones kept what they promised."""

from __future__ import annotations

import pytest

from outrider.policy.trust import LEAST, MAX_SECONDS, Trust


def entered(num_steps: int, tokens: float, gain: float, plain_steps: float, num_sequences: int = 4) -> Trust:
    trust = Trust()
    for _ in range(num_steps):
        trust.enter(num_sequences, tokens, gain, plain_steps)
    return trust


def test_a_single_texts_plans_are_believed():
    assert entered(100, 1.0, 1.2, 1.2, num_sequences=1).of(1) == 1.0


def test_of_several_texts_a_little_is_doubted_before_any_step():
    assert 0.95 < Trust().of(8) < Trust().of(2) < 1.0


def test_it_comes_to_what_was_kept():
    # A tenth more tokens in a step than plain decoding was promised for its seconds, and as many as that came.
    assert entered(400, tokens=1.2, gain=1.0, plain_steps=1.2).of(4) == pytest.approx(0.98, abs=0.03)
    assert entered(400, tokens=1.2, gain=1.1, plain_steps=1.2).of(4) == pytest.approx(1.2 / 1.32, abs=0.03)


def test_it_is_bounded_and_other_numbers_of_texts_are_apart():
    trust = entered(400, tokens=1.0, gain=1.5, plain_steps=2.0)
    assert trust.of(4) == LEAST
    assert trust.of(16) == Trust().of(16)


def test_a_hiccup_of_the_machine_says_nothing():
    assert entered(100, 1.0, 1.1, MAX_SECONDS).of(4) == Trust().of(4)


def test_it_is_forgotten_while_nothing_is_drafted():
    trust = entered(400, tokens=1.0, gain=1.1, plain_steps=1.2)
    before = trust.of(4)
    for _ in range(2000):
        trust.idle(4)
    assert before < 0.9 < trust.of(4)
