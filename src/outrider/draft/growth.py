"""What a draft's nodes are worth by their scores, and where a chain stops paying. Knows no texts and no models."""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from outrider.tree import ROOT, TokenTree, Worth


def survivals(tree: TokenTree, scores: Sequences[float] | None, worth: Worth) -> list[float]:
    """How likely each node is to be accepted; every guess of a drafter that gives no scores is as good as its mean."""
    found: list[float] = []
    for node, parent in enumerate(tree.parents):
        chance = worth.mean if scores is None else worth.chance(scores[node])
        found.append(chance * (1.0 if parent == ROOT else found[parent]))
    return found


def gain_of(tree: TokenTree, scores: Sequences[float] | None, worth: Worth) -> float:
    """Tokens that a draft is expected to earn in the target's forward, the price of its rows taken off."""
    return sum(survival - worth.node_price for survival in survivals(tree, scores, worth))


def paying_chain(
    tokens: tuple[int, ...], scores: tuple[float, ...], worth: Worth
) -> tuple[TokenTree, tuple[float, ...]]:
    """A chain that cost nothing to make, up to its first node that does not pay for its row: perhaps none of it."""
    tree = TokenTree.chain(tokens)
    num_paying = sum(survival >= worth.node_price for survival in survivals(tree, scores, worth))
    return TokenTree.chain(tokens[:num_paying]), scores[:num_paying]
