"""Block and traversal verification, enumerated: the target's distribution exactly, and as much accepted as can be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from outrider.tree import TokenTree
from outrider.verify import reference
from outrider.verify.cases import (
    DRAWS,
    KINDS,
    TREES,
    Models,
    chain_cases,
    chain_of,
    drawn,
    large_cases,
    make_models,
    tree_case,
)
from outrider.verify.coupled import CoupledVerifier
from outrider.verify.enumerate import Case, certify, emissions
from outrider.verify.traversal import TraversalVerifier

BLOCK = TraversalVerifier()


def num_tokens_emitted(rule, case: Case) -> Fraction:
    """Expected, of one round."""
    return sum(len(text) * probability for text, probability in emissions(rule, case).items())


def chain(length: int, *, kind: str = "general", seed: int = 0, vocab_size: int = 3) -> Case:
    return tree_case("", make_models(kind, vocab_size, seed), chain_of(length), drawn)


def test_traversal_is_exact_on_every_case():
    certificate = certify(BLOCK)
    assert (certificate.distance, certificate.worst_case) == (0, None)
    assert certificate.num_cases > 100


@pytest.mark.parametrize("rule", [reference.token_verification, reference.block_verification])
def test_the_papers_rules_are_exact_on_chains(rule):
    assert certify(rule, chain_cases()).distance == 0


@pytest.mark.slow
def test_traversal_is_exact_on_large_cases():
    certificate = certify(BLOCK, large_cases())
    assert (certificate.distance, certificate.worst_case) == (0, None)
    assert certificate.num_cases == 4 * 2 * 4 + 2 * 2


@pytest.mark.slow
@pytest.mark.parametrize("rule", [CoupledVerifier(), reference.recursive_rejection], ids=["coupled", "recursive"])
def test_the_other_rules_are_exact_on_every_case(rule):
    assert certify(rule).distance == 0


def test_coupled_verification_is_exact_whatever_is_left_out_for_what_was_drawn():
    from tests.verify import faulty

    for way in (faulty.without_unlikely, faulty.best_two_of_three, faulty.likeliest_first):
        assert certify(CoupledVerifier(), faulty.cases_of(way, num_tokens=3)).distance == 0


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_chain_it_is_block_verification(kind):
    """Not only in what it emits, but in how much of the draft each emission keeps."""
    for length in (1, 2, 3):
        case = chain(length, kind=kind)
        assert emissions(BLOCK.verify, case) == emissions(reference.block_verification, case)


def test_it_keeps_the_sum_of_the_weights_and_never_less_than_token_verification():
    for seed in range(4):
        case, models = chain(3, seed=seed), make_models("general", 3, seed)
        kept = num_tokens_emitted(BLOCK.verify, case) - 1
        assert kept == sum_of_weights(models, (), Fraction(1), 3)
        assert kept >= num_tokens_emitted(reference.token_verification, case) - 1


def sum_of_weights(models: Models, text: tuple[int, ...], weight: Fraction, length: int) -> Fraction:
    """E[w_1 + ... + w_length] over drafts, of running capped ratios."""
    if length == 0:
        return Fraction(0)
    total = Fraction(0)
    for token, (wanted, drawn_) in enumerate(zip(models.target(text), models.draft(text), strict=True)):
        below = min(Fraction(1), weight * wanted / drawn_)
        total += drawn_ * (below + sum_of_weights(models, (*text, token), below, length - 1))
    return total


def test_the_example_of_the_paper():
    """Two tokens, target (1/3, 2/3), draft (2/3, 1/3), whatever came before: 11/9 accepted of two against 10/9."""
    target, draft = (np.array([Fraction(first, 3), Fraction(3 - first, 3)]) for first in (1, 2))
    case = tree_case("", Models(lambda text: target, lambda text: draft), chain_of(2), drawn)
    assert num_tokens_emitted(BLOCK.verify, case) - 1 == Fraction(11, 9)
    assert num_tokens_emitted(reference.token_verification, case) - 1 == Fraction(10, 9)


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("way", DRAWS)
def test_on_a_tree_it_keeps_no_less_than_rejection_from_node_to_node(shape, way):
    case = tree_case("", make_models("general", 3), TREES[shape], DRAWS[way])
    assert num_tokens_emitted(BLOCK.verify, case) >= num_tokens_emitted(reference.recursive_rejection, case)


class FloatRound:
    """One-hot or smooth rows in floats, with numpy's chance."""

    def __init__(self, target: np.ndarray, draft: np.ndarray | None, seed: int) -> None:
        self.target, self.draft = target, draft
        self.generator = np.random.default_rng(seed)

    def token(self, row):
        return int(self.target[row].argmax())

    def target_probabilities(self, row):
        return self.target[row]

    def draft_probabilities(self, node):
        return None if self.draft is None else self.draft[node]

    def flip(self, node, probability):
        assert 0 <= probability <= 1
        return self.generator.random() < probability

    def pick(self, node, probabilities):
        assert probabilities.sum() == pytest.approx(1)
        return int(self.generator.choice(len(probabilities), p=probabilities))


def random_tree(generator: np.random.Generator, vocab_size: int) -> TokenTree:
    size = int(generator.integers(0, 9))
    tokens = tuple(map(int, generator.integers(0, vocab_size, size)))
    return TokenTree(tokens, tuple(int(generator.integers(-1, node)) for node in range(size)))


@pytest.mark.parametrize("is_drawn", [True, False])
def test_where_the_target_is_certain_it_is_coupled_verification(is_drawn):
    for seed in range(300):
        generator = np.random.default_rng(seed)
        tree = random_tree(generator, 4)
        target = np.eye(4)[generator.integers(0, 4, len(tree) + 1)]
        draft = np.eye(4)[list(tree.tokens)].reshape(len(tree), 4) if is_drawn else None
        rows = FloatRound(target, draft, seed)
        # Of siblings of one token coupled verification takes the first, and this one what is below any: no such here.
        if len({(parent, token) for parent, token in zip(tree.parents, tree.tokens, strict=True)}) == len(tree):
            assert BLOCK.verify(tree, rows) == CoupledVerifier().verify(tree, rows)


def test_a_drafter_that_is_the_target_has_everything_accepted_in_floats():
    for seed in range(100):
        generator = np.random.default_rng(seed)
        rows = generator.dirichlet(np.full(50, 0.3), 9)
        tokens = tuple(int(generator.choice(50, p=row)) for row in rows[:8])
        verdict = BLOCK.verify(TokenTree.chain(tokens), FloatRound(rows, rows[:8], seed))
        assert (verdict.path, verdict.is_bonus) == (tuple(range(8)), True)


def test_rounding_takes_no_probability_out_of_its_range():
    """Distributions of a few likely tokens, of almost the same shape, over long chains."""
    for seed in range(100):
        generator = np.random.default_rng(seed)
        draft = generator.dirichlet(np.full(30, 0.05), 32)
        target = np.concatenate([draft * generator.uniform(1 - 1e-15, 1 + 1e-15, draft.shape), draft[:1]])
        target[::3] = generator.dirichlet(np.full(30, 0.05), len(target[::3]))
        target /= target.sum(axis=1, keepdims=True)
        tokens = tuple(int(generator.choice(30, p=row)) for row in draft)
        BLOCK.verify(TokenTree.chain(tokens), FloatRound(target, draft, seed))
