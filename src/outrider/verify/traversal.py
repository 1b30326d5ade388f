"""Traversal verification: keeps the most of a drawn chain that any rule may keep, by the target's distribution.

A tree's form of block verification (Sun et al. 2024, arXiv 2403.10444), which is its case on a chain; for trees see
Weng et al. 2025, arXiv 2505.12398. A node is worth a weight: the probability with which something must be emitted at or
below it, given its token. The root's is 1. At a node of weight w with the target's distribution `target`:

    a child was drawn from `proposal`    its weight is min(1, w target(x) / proposal(x))
    it emitted nothing                   what is left to emit is (w target - proposal)+, of mass m: from now on the
                                         node's distribution is that, divided by m, and its weight m / (m + 1 - w)
    no child is left                     the node emits with probability w, by its distribution, or its parent goes on

Whatever a proposal takes from w target, min(proposal, w target), its child emits; the rest is what is left. By
induction from the leaves a node emits with probability w exactly, and then by the target's distribution. This holds for
any proposal that was fixed before its token was drawn. A token that nobody drew has a point mass for its proposal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.tree import ROOT, TokenTree, Verdict
from outrider.verify.base import Round, Verifier, verdict_at


class Emission(NamedTuple):
    """Where a round ends: the last accepted node, and the token after it."""

    node: int
    token: int


class TraversalVerifier(Verifier):
    """Preserves the target's distribution, and at temperature 0 its text; not the text of a seed."""

    name = "block"

    def verify(self, tree: TokenTree, rows: Round) -> Verdict:
        emission = _emit(tree, rows, ROOT, 1)
        assert emission is not None, "the root's weight is 1"
        return verdict_at(tree, *emission)


def _emit(tree: TokenTree, rows: Round, node: int, weight: Any) -> Emission | None:
    """Emit at or below a node with probability `weight`, exactly."""
    if weight == 0:
        return None
    target = rows.target_probabilities(node + 1)
    for child, parent in enumerate(tree.parents):  # in the order in which they were drawn
        if parent != node:
            continue
        token, proposal = tree.tokens[child], rows.draft_probabilities(child)
        chance = 1 if proposal is None else proposal[token]
        if emission := _emit(tree, rows, child, min(1, weight * target[token] / chance)):
            return emission
        rest = _rest(weight, target, token, proposal)
        mass = rest.sum()
        if mass == 0:
            if node != ROOT:
                return None
            break  # the proposal is the target's own distribution: only rounding can have let it fail
        # In this order nothing is lost where the mass is tiny: the root keeps weight 1.
        target, weight = rest / mass, mass / (mass + (1 - weight))
    return Emission(node, rows.pick(node, target)) if rows.flip(node, weight) else None


def _rest(weight: Any, target: NDArray[Any], token: int, proposal: NDArray[Any] | None) -> NDArray[Any]:
    """What a child's proposal leaves of the mass that its parent must emit."""
    rest = weight * target
    if proposal is not None:
        return np.maximum(rest - proposal, 0)
    rest[token] = 0
    return rest
