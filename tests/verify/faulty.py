"""Verifiers and ways to draft with mistakes that have been made elsewhere, or nearly: what a certifier must find."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction

import numpy as np

from outrider.tree import ROOT, TokenTree
from outrider.verify.base import verdict_at
from outrider.verify.cases import Models, chain_of, drawn, make_models, tree_case
from outrider.verify.enumerate import Case, Chance, Proposal, Text

SEEDS = range(6)


def chains(length: int, vocab_size: int = 3, kind: str = "general") -> Iterator[Case]:
    """Drawn as they should be."""
    for seed in SEEDS:
        models = make_models(kind, vocab_size, seed)
        yield tree_case(f"{kind} {seed}", models, chain_of(length), drawn)


def cases_of(
    way: Callable[[Models, Text, Chance], Proposal], *, num_tokens: int, num_rounds: int = 1, vocab_size: int = 3
) -> Iterator[Case]:
    for seed in SEEDS:
        models = make_models("general", vocab_size, seed)

        def propose(text: Text, chance: Chance, models: Models = models) -> Proposal:
            return way(models, text, chance)

        yield Case(f"general {seed}", models.target, propose, num_tokens, num_rounds)


def positive_part(values):
    return np.maximum(values, 0)


def without_residual(tree, rows):
    """Token verification whose replacement is drawn from the target as if nothing had been rejected."""
    for node, token in enumerate(tree.tokens):
        target, draft = rows.target_probabilities(node), rows.draft_probabilities(node)
        if not rows.flip(node, min(1, target[token] / draft[token])):
            return verdict_at(tree, node - 1, rows.pick(node - 1, target))
    last = len(tree) - 1
    return verdict_at(tree, last, rows.pick(last, rows.target_probabilities(len(tree))))


def block(tree, rows, *, last_is_capped=True, residual_is_weighted=True):
    """Block verification of a drawn chain, with its mistakes at choice."""
    weights, ratio = [Fraction(1)], Fraction(1)
    for node, token in enumerate(tree.tokens):
        step = rows.target_probabilities(node)[token] / rows.draft_probabilities(node)[token]
        ratio *= step
        weights.append(min(1, weights[-1] * step))
    last = len(tree) - 1
    if rows.flip(last, weights[-1] if last_is_capped else min(1, ratio)):
        return verdict_at(tree, last, rows.pick(last, rows.target_probabilities(len(tree))))
    for node in range(last - 1, ROOT - 1, -1):
        weight, target = weights[node + 1], rows.target_probabilities(node + 1)
        rest = positive_part(weight * target - rows.draft_probabilities(node + 1))
        mass = rest.sum()
        chance = mass / (mass + 1 - weight) if mass else 0
        if node == ROOT or rows.flip(node, chance):
            if not residual_is_weighted:
                rest = positive_part(target - rows.draft_probabilities(node + 1))
            return verdict_at(tree, node, rows.pick(node, rest / rest.sum() if rest.sum() else target))
    raise AssertionError


def uncapped_last_ratio(tree, rows):
    """The last position is tested with the whole product of ratios, which may have been above 1 on its way."""
    return block(tree, rows, last_is_capped=False)


def residual_of_token_verification(tree, rows):
    return block(tree, rows, residual_is_weighted=False)


def without_unlikely(models: Models, text: Text, chance: Chance) -> Proposal:
    """A chain that ends before a token which turned out unlikely."""
    tokens, proposals = [], []
    for depth in range(2):
        draft = models.draft((*text, *tokens))
        token = chance.pick(draft, ("proposal", len(text), (0,) * (depth + 1)))
        if draft[token] < Fraction(1, 3):
            break
        tokens.append(token)
        proposals.append(draft)
    return Proposal(TokenTree.chain(tuple(tokens)), proposals)


def likeliest_said_to_be_drawn(models: Models, text: Text, chance: Chance) -> Proposal:
    draft = models.draft(text)
    return Proposal(TokenTree.chain((int(draft.argmax()),)), [draft])


def likeliest_first(models: Models, text: Text, chance: Chance) -> Proposal:
    """Two siblings, drawn without replacement and then put in order."""
    draft = models.draft(text)
    first, left = drawn(draft, [], lambda shares: chance.pick(shares, ("proposal", len(text), (0,))))
    second, _ = drawn(draft, [first], lambda shares: chance.pick(shares, ("proposal", len(text), (1,))))
    tokens = sorted((first, second), key=lambda token: -draft[token])
    rest = draft.copy()
    rest[tokens[0]] = Fraction(0)
    return Proposal(TokenTree(tuple(tokens), (ROOT, ROOT)), [left, rest / rest.sum()])


def best_two_of_three(models: Models, text: Text, chance: Chance) -> Proposal:
    """Two siblings and a child of the first are drawn; the least likely leaf is dropped."""
    draft = models.draft(text)
    first, _ = drawn(draft, [], lambda shares: chance.pick(shares, ("proposal", len(text), (0,))))
    second, left = drawn(draft, [first], lambda shares: chance.pick(shares, ("proposal", len(text), (1,))))
    below = models.draft((*text, first))
    child = chance.pick(below, ("proposal", len(text), (0, 0)))
    if draft[second] > draft[first] * below[child]:
        return Proposal(TokenTree((first, second), (ROOT, ROOT)), [draft, left])
    return Proposal(TokenTree((first, child), (ROOT, 0)), [draft, below])


def one_row_for_a_depth(models: Models, text: Text, chance: Chance) -> Proposal:
    """Two siblings with a child each, the children drawn by one row of noise."""
    draft = models.draft(text)
    first, _ = drawn(draft, [], lambda shares: chance.pick(shares, ("proposal", len(text), (0,))))
    second, left = drawn(draft, [first], lambda shares: chance.pick(shares, ("proposal", len(text), (1,))))
    below = [models.draft((*text, token)) for token in (first, second)]
    children = [chance.pick(each, ("proposal", len(text), "depth 2")) for each in below]
    return Proposal(TokenTree((first, second, *children), (ROOT, ROOT, 0, 1)), [draft, left, *below])


def chain_by(key: Callable[[Text, int], Hashable]) -> Callable[[Models, Text, Chance], Proposal]:
    """Chains of two whose rows of noise have these keys."""

    def way(models: Models, text: Text, chance: Chance) -> Proposal:
        tokens, proposals = [], []
        for depth in range(2):
            proposals.append(models.draft((*text, *tokens)))
            tokens.append(chance.pick(proposals[-1], key(text, depth)))
        return Proposal(TokenTree.chain(tuple(tokens)), proposals)

    return way


one_row_for_a_position = chain_by(lambda text, depth: ("proposal", len(text) + depth))
the_residuals_row = chain_by(lambda text, depth: ("residual", len(text), (0,) * depth))
the_coins_row = chain_by(lambda text, depth: ("coin", len(text), (0,) * (depth + 1)))
