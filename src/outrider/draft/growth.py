"""What a draft's nodes are worth by their scores, and where a chain stops paying. Knows no texts and no models."""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from outrider.tree import TokenTree, Worth


def gain_of(tree: TokenTree, scores: Sequences[float] | None, worth: Worth) -> float:
    """Tokens that a draft is expected to earn in the target's forward, the price of its rows taken off."""
    return sum(survival - worth.node_price for survival in worth.survivals(tree, scores))


def paying_chain(
    tokens: tuple[int, ...], scores: tuple[float, ...], worth: Worth
) -> tuple[TokenTree, tuple[float, ...]]:
    """A chain that cost nothing to make, up to its first node that does not pay for its row: perhaps none of it."""
    tree = TokenTree.chain(tokens)
    num_paying = sum(survival >= worth.node_price for survival in worth.survivals(tree, scores))
    return TokenTree.chain(tokens[:num_paying]), scores[:num_paying]
