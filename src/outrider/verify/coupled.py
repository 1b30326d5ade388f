"""Coupled verification: a drafted token is accepted if and only if it is the target's own.

The target samples its token at every position with noise that no drafter can influence (Gumbel-max with common random
numbers; Daliri, Musco, Suresh 2024, arXiv 2408.07978). Whatever was drafted, the emitted tokens are therefore those of
plain decoding; a draft only decides how many of them come out of one forward.
"""

from __future__ import annotations

from outrider.tree import ROOT, TokenTree, Verdict
from outrider.verify.base import TargetRows, Verifier


class CoupledVerifier(Verifier):
    """Preserves the target's text itself, for any tree, however it was drawn."""

    name = "coupled"

    def verify(self, tree: TokenTree, rows: TargetRows) -> Verdict:
        """Walk from the root along the target's own tokens until one was not drafted."""
        path: list[int] = []
        node = ROOT
        while True:
            token = rows.token(node + 1)
            child = tree.child(node, token)
            if child is None:
                is_bonus = node != ROOT and node not in tree.parents
                return Verdict(tuple(path), token, is_bonus)
            path.append(child)
            node = child
