"""Verification as the papers have it, in slow loops over single tokens: what the tests hold the fast code against.

For chains, whose every token was drawn, or was not (a point mass). Nothing here is used to make a text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.tree import ROOT, TokenTree, Verdict
from outrider.verify.base import Round, verdict_at


def token_verification(tree: TokenTree, rows: Round) -> Verdict:
    """Token by token (Leviathan, Kalman, Matias 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318)."""
    _require_chain(tree)
    for node, token in enumerate(tree.tokens):
        target, draft = rows.target_probabilities(node), _draft(tree, rows, node)
        if not rows.flip(node, min(1, target[token] / draft[token])):
            rest = _over(1, target, draft)
            return verdict_at(tree, node - 1, rows.pick(node - 1, _normalised(rest)))
    last = len(tree) - 1
    return verdict_at(tree, last, rows.pick(last, rows.target_probabilities(len(tree))))


def block_verification(tree: TokenTree, rows: Round) -> Verdict:
    """The whole chain at once (Sun et al. 2024, arXiv 2403.10444), its positions tried from the last to the first."""
    _require_chain(tree)
    weights: list[Any] = [1]
    for node, token in enumerate(tree.tokens):
        ratio = rows.target_probabilities(node)[token] / _draft(tree, rows, node)[token]
        weights.append(min(1, weights[-1] * ratio))
    last = len(tree) - 1
    if tree.tokens and rows.flip(last, weights[-1]):
        return verdict_at(tree, last, rows.pick(last, rows.target_probabilities(len(tree))))
    for node in range(last - 1, ROOT, -1):
        weight = weights[node + 1]
        rest = _over(weight, rows.target_probabilities(node + 1), _draft(tree, rows, node + 1))
        mass = sum(rest)
        if mass > 0 and rows.flip(node, mass / (mass + (1 - weight))):
            return verdict_at(tree, node, rows.pick(node, _normalised(rest)))
    rest = list(rows.target_probabilities(0))
    if tree.tokens:
        rest = _over(1, rows.target_probabilities(0), _draft(tree, rows, 0))
    return verdict_at(tree, ROOT, rows.pick(ROOT, _normalised(rest)))


def recursive_rejection(tree: TokenTree, rows: Round) -> Verdict:
    """Token verification on a tree, child after child: keeps less than traversal does.

    Miao et al. 2023, arXiv 2305.09781; without replacement: Chen et al. 2024, arXiv 2402.12374.
    """
    node = ROOT
    while True:
        target = list(rows.target_probabilities(node + 1))
        kept = None
        for child, token in enumerate(tree.tokens):
            if tree.parents[child] == node:
                draft = _draft(tree, rows, child)
                if rows.flip(child, min(1, target[token] / draft[token])):
                    kept = child
                    break
                target = list(_normalised(_over(1, target, draft)))
        if kept is None:
            return verdict_at(tree, node, rows.pick(node, np.array(target)))
        node = kept


def _draft(tree: TokenTree, rows: Round, node: int) -> list[Any]:
    """What a node's token was drawn from."""
    probabilities = rows.draft_probabilities(node)
    if probabilities is not None:
        return list(probabilities)
    vocab_size = len(rows.target_probabilities(0))
    return [int(token == tree.tokens[node]) for token in range(vocab_size)]


def _over(weight: Any, target: Any, draft: Any) -> list[Any]:
    """What the target wants beyond the draft: (weight target - draft)+."""
    return [max(weight * wanted - drawn, 0) for wanted, drawn in zip(target, draft, strict=True)]


def _normalised(values: list[Any]) -> NDArray[Any]:
    total = sum(values)
    return np.array([value / total for value in values])


def _require_chain(tree: TokenTree) -> None:
    assert tree.is_chain, f"{tree} is no chain"
