"""The harness itself: all that chance can do, exactly, and clear words for what cannot be certified."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from outrider.errors import UsageError
from outrider.tree import TokenTree, Verdict
from outrider.verify.cases import DRAWS, KINDS, TREES, all_cases, chain_cases, large_cases, make_models
from outrider.verify.enumerate import Chance, certify, outcomes

THIRD = Fraction(1, 3)


def test_outcomes_are_all_that_can_happen_with_their_probabilities():
    def experiment(chance: Chance):
        first = chance.pick([THIRD, Fraction(0), 2 * THIRD])
        return (first, chance.flip(THIRD)) if first else (first,)

    assert outcomes(experiment) == {(0,): THIRD, (2, True): Fraction(2, 9), (2, False): Fraction(4, 9)}


def test_what_is_certain_is_no_choice():
    assert outcomes(lambda chance: (chance.flip(1), chance.flip(0), chance.pick([0, 1]))) == {(True, False, 1): 1}


def test_one_key_is_one_number():
    """The same row twice gives the same token; another distribution the one that the number falls on."""
    half = Fraction(1, 2)

    def twice(chance: Chance, second):
        return chance.pick([half, half], "row"), chance.pick(second, "row")

    assert outcomes(lambda chance: twice(chance, [half, half])) == {(0, 0): half, (1, 1): half}
    third = [THIRD, THIRD, THIRD]
    assert outcomes(lambda chance: twice(chance, third)) == {
        (0, 0): THIRD, (0, 1): Fraction(1, 6), (1, 1): Fraction(1, 6), (1, 2): THIRD,
    }  # fmt: skip
    independent = outcomes(lambda chance: (chance.pick([half, half], "row"), chance.pick([half, half], "other")))
    assert set(independent.values()) == {Fraction(1, 4)}


def sample_and_match(tree, rows):
    """The five lines of a researcher."""
    path, token = (), rows.pick(-1, rows.target_probabilities(0))
    while (node := tree.child(path[-1] if path else -1, token)) is not None:
        path, token = (*path, node), rows.pick(node, rows.target_probabilities(node + 1))
    return Verdict(path, token, is_bonus=False)


def test_a_rule_of_ones_own_is_certified():
    certificate = certify(sample_and_match, chain_cases())
    assert (certificate.distance, certificate.worst_case) == (0, None)
    assert certificate.num_cases == len(list(chain_cases())) > 50


def test_what_is_not_lossless_is_named():
    certificate = certify(lambda tree, rows: Verdict((), 0, is_bonus=False), chain_cases())
    assert certificate.distance == 1
    assert certificate.worst_case in {case.name for case in chain_cases()}


def replaced(probabilities):
    return lambda tree, rows: Verdict((), rows.pick(-1, probabilities(rows)), is_bonus=False)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (replaced(lambda rows: rows.target_probabilities(0).astype(float)), "which is rounded: use the numbers"),
        (replaced(lambda rows: rows.target_probabilities(0) / 2), "must add up to 1"),
        (replaced(lambda rows: rows.target_probabilities(0)[:0]), "must add up to 1"),
        (replaced(lambda rows: np.array([Fraction(-1), Fraction(2)])), "all 0 or more"),
        (lambda tree, rows: Verdict((), rows.flip(-1, 2), is_bonus=False), "must be between 0 and 1"),
        (lambda tree, rows: Verdict((0, 0), 0, is_bonus=False), "which is no path of"),
        (lambda tree, rows: Verdict((-1,), 0, is_bonus=False), r"accepted \(-1,\), but must accept nodes of the tree"),
        (lambda tree, rows: Verdict((len(tree),), 0, is_bonus=False), "whole numbers below 1"),
        (lambda tree, rows: Verdict((0.0,), 0, is_bonus=False), r"accepted \(0.0,\)"),
        (lambda tree, rows: Verdict(None, 0, is_bonus=False), "accepted None"),
        (lambda tree, rows: Verdict((), 0.5, is_bonus=False), "ended with 0.5, but must end with a token"),
        (lambda tree, rows: Verdict((), 3, is_bonus=False), "ended with 3, .* below 3"),
        (lambda tree, rows: Verdict((), -1, is_bonus=False), "ended with -1"),
        (lambda tree, rows: Verdict((), True, is_bonus=False), "ended with True"),
        (lambda tree, rows: None, r"returned None, but must return a Verdict\(path, next_token, is_bonus\)"),
    ],
)
def test_what_cannot_be_certified_is_refused_with_the_case(rule, words):
    with pytest.raises(UsageError, match=words) as refused:
        certify(rule)
    assert str(refused.value).endswith("in the case 'general, 3 tokens, chain 1'")


def test_without_cases_nothing_is_certified():
    """A generator that is used up would have anything pass."""
    cases = chain_cases()
    certify(sample_and_match, cases)
    with pytest.raises(UsageError, match="there are no cases to certify it on"):
        certify(lambda tree, rows: Verdict((), 0, is_bonus=False), cases)


def test_cases_are_what_they_are_called():
    names = [case.name for case in (*all_cases(), *large_cases())]
    assert len(set(names)) == len(names)
    for kind in KINDS:  # every way to draw, every shape, on both vocabularies
        for size in (3, 4):
            assert {f"{kind}, {size} tokens, chain {length}" for length in (1, 2, 3)} <= set(names)
            assert {f"{kind}, {size} tokens, tree {tree}, {way}" for tree in TREES for way in DRAWS} <= set(names)
    for part in (*KINDS, *TREES, "chain 1", "chain 2", "chain 3", "3 tokens", "4 tokens", "two rounds", "not drawn"):
        assert any(part in name for name in names), part
    for kind in KINDS:
        for vocab_size in (3, 4):
            models = make_models(kind, vocab_size)
            rows = [(models.target(text), models.draft(text)) for text in [(), (0,), (1, 2)]]
            assert all(row.sum() == 1 for pair in rows for row in pair)
    general = make_models("general", 3)
    assert not (general.target(()) == general.target((0,))).all()
    for text in [(), (0,), (1, 2)]:
        equal, disjoint = make_models("equal", 3), make_models("disjoint", 3)
        assert (equal.target(text) == equal.draft(text)).all()
        assert not (disjoint.target(text) * disjoint.draft(text)).any()
        assert sorted(make_models("certain target", 3).target(text)) == [0, 0, 1]
        assert sorted(make_models("certain draft", 3).draft(text)) == [0, 0, 1]


def test_models_cannot_be_spoiled_by_a_verifier():
    def spoil(tree: TokenTree, rows):
        rows.target_probabilities(0)[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        certify(spoil)
