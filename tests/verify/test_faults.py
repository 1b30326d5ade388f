"""The certifier finds every known mistake, with the very total variation that it makes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from outrider.verify import reference
from outrider.verify.enumerate import certify
from outrider.verify.traversal import TraversalVerifier
from tests.verify import faulty

VERIFIERS = {
    "no residual": (faulty.without_residual, 2, Fraction(1515, 7436)),  # 0.204
    "block acceptance, token residual, 2": (faulty.residual_of_token_verification, 2, Fraction(7, 528)),  # 0.013
    "block acceptance, token residual, 3": (faulty.residual_of_token_verification, 3, Fraction(1017743, 57657600)),
    "uncapped last ratio, 2": (faulty.uncapped_last_ratio, 2, Fraction(203, 2535)),  # 0.080
    "uncapped last ratio, 3": (faulty.uncapped_last_ratio, 3, Fraction(21167831, 250415550)),  # 0.085
}
# A way to draft, tokens and rounds compared, and the distance.
WAYS = {
    "unlikely tokens dropped": (faulty.without_unlikely, 3, 1, Fraction(5483, 26400)),  # 0.208
    "argmax said to be drawn": (faulty.likeliest_said_to_be_drawn, 2, 1, Fraction(2, 5)),
    "siblings sorted": (faulty.likeliest_first, 2, 1, Fraction(118, 385)),  # 0.306
    "drawn nodes pruned": (faulty.best_two_of_three, 3, 1, Fraction(61873, 649440)),  # 0.095
    "one row for the branches of a depth": (faulty.one_row_for_a_depth, 3, 1, Fraction(2307167, 57231900)),  # 0.040
    "a position's row again in the next round": (faulty.one_row_for_a_position, 3, 2, Fraction(4549, 92250)),  # 0.049
    "the residual's row for a proposal": (faulty.the_residuals_row, 3, 1, Fraction(3, 25)),
    "the coin's row for a proposal": (faulty.the_coins_row, 3, 1, Fraction(35, 208)),  # 0.168
}


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_mistake_of_a_verifier_is_found(name):
    verifier, length, distance = VERIFIERS[name]
    assert certify(verifier, faulty.chains(length)).distance == distance


@pytest.mark.parametrize("name", WAYS)
def test_a_mistake_of_a_drafter_is_found(name):
    way, num_tokens, num_rounds, distance = WAYS[name]
    cases = faulty.cases_of(way, num_tokens=num_tokens, num_rounds=num_rounds)
    assert certify(TraversalVerifier(), cases).distance == distance


def test_without_the_mistakes_the_distance_is_0():
    """The same code with its switches off, and the same chains with the engine's keys."""
    assert certify(faulty.block, faulty.chains(3)).distance == 0
    keyed = faulty.chain_by(lambda text, depth: ("proposal", len(text), (0,) * (depth + 1)))
    assert certify(TraversalVerifier(), faulty.cases_of(keyed, num_tokens=3, num_rounds=2)).distance == 0


def test_a_mistake_that_needs_two_rounds_is_not_seen_in_one():
    cases = faulty.cases_of(faulty.one_row_for_a_position, num_tokens=3)
    assert certify(TraversalVerifier(), cases).distance == 0


def test_a_mistake_may_be_none_under_another_rule():
    """Rejection from node to node looks below one branch only, so what another branch drew cannot matter."""
    cases = faulty.cases_of(faulty.one_row_for_a_depth, num_tokens=3)
    assert certify(reference.recursive_rejection, cases).distance == 0
