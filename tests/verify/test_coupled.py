"""Coupled verification, enumerated: every tree, every target, exact rationals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

from outrider.tree import ROOT, TokenTree
from outrider.verify.coupled import CoupledVerifier

VOCABULARY = range(3)
DEPTH = 2


class TargetTable:
    """A target that answers each context from a table, as fixed noise makes it do."""

    def __init__(self, answers: dict[tuple[int, ...], int], tree: TokenTree) -> None:
        self.answers = answers
        self.tree = tree

    def context(self, row: int) -> tuple[int, ...]:
        node, tokens = row - 1, ()
        while node != ROOT:
            tokens = (self.tree.tokens[node], *tokens)
            node = self.tree.parents[node]
        return tokens

    def token(self, row: int) -> int:
        return self.answers[self.context(row)]


def all_trees(max_nodes: int) -> Iterator[TokenTree]:
    for num_nodes in range(max_nodes + 1):
        for tokens in itertools.product(VOCABULARY, repeat=num_nodes):
            for parents in itertools.product(*(range(ROOT, node) for node in range(num_nodes))):
                tree = TokenTree(tokens, parents)
                if max(tree.depths(), default=0) <= DEPTH:
                    yield tree


def emitted(tree: TokenTree, answers: dict[tuple[int, ...], int]) -> tuple[int, ...]:
    verdict = CoupledVerifier().verify(tree, TargetTable(answers, tree))
    return (*(tree.tokens[node] for node in verdict.path), verdict.next_token)


def contexts() -> list[tuple[int, ...]]:
    return [tokens for length in range(DEPTH + 1) for tokens in itertools.product(VOCABULARY, repeat=length)]


def test_what_is_emitted_is_the_beginning_of_plain_decoding_for_every_tree_and_target():
    contexts_ = contexts()
    for offset in range(27):  # targets that differ in every context; all 3^13 would take hours and add nothing
        answers = {context: (offset // 3 ** (len(context) % 3) + sum(context)) % 3 for context in contexts_}
        plain = ()
        for _ in range(DEPTH + 1):
            plain = (*plain, answers[plain])
        for tree in all_trees(3):
            result = emitted(tree, answers)
            assert result == plain[: len(result)]


def test_the_first_tokens_have_exactly_the_targets_distribution():
    """P(emission begins with z) = P_target(z) in rationals, over all answers that noise can give."""
    first = {0: Fraction(1, 2), 1: Fraction(1, 3), 2: Fraction(1, 6)}
    second = {
        (0,): {0: Fraction(1, 5), 1: Fraction(4, 5), 2: Fraction(0)},
        (1,): {0: Fraction(1, 3), 1: Fraction(1, 3), 2: Fraction(1, 3)},
        (2,): {0: Fraction(0), 1: Fraction(0), 2: Fraction(1)},
    }
    tables = [first, second[0,], second[1,], second[2,]]
    for tree in (tree for tree in all_trees(2) if max(tree.depths(), default=0) <= 1):
        mass: dict[tuple[int, ...], Fraction] = {}
        for combination in itertools.product(VOCABULARY, repeat=4):
            answers = dict(zip([(), (0,), (1,), (2,)], combination, strict=True))
            weight = Fraction(1)
            for table, token in zip(tables, combination, strict=True):
                weight *= table[token]
            result = emitted(tree, answers)
            if len(result) == 1:  # the rest of the text comes from the target alone
                for token in VOCABULARY:
                    pair = (*result, token)
                    mass[pair] = mass.get(pair, Fraction(0)) + weight * second[result][token]
            else:
                mass[result] = mass.get(result, Fraction(0)) + weight
        for pair, probability in mass.items():
            assert probability == first[pair[0]] * second[pair[:1]][pair[1]]


def test_a_verdict_says_whether_the_whole_draft_was_kept():
    chain = TokenTree.chain((1, 2))
    answers = dict.fromkeys(contexts(), 0)
    verify = CoupledVerifier().verify
    kept = verify(chain, TargetTable({**answers, (): 1, (1,): 2}, chain))
    assert (kept.path, kept.next_token, kept.is_bonus) == ((0, 1), 0, True)
    cut = verify(chain, TargetTable({**answers, (): 1}, chain))
    assert (cut.path, cut.next_token, cut.is_bonus) == ((0,), 0, False)
    empty = verify(TokenTree(), TargetTable(answers, TokenTree()))
    assert (empty.path, empty.next_token, empty.is_bonus) == ((), 0, False)
