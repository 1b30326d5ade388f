"""What a verifier is: a pure function of a tree and of one round's answers. Knows no model, no cache and no engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from numpy.typing import NDArray

from outrider.tree import TokenTree, Verdict


class TargetRows(Protocol):
    """The target's answers at the rows of one sequence's forward: row 0 is the root, row i + 1 is node i."""

    def token(self, row: int) -> int:
        """The target's own token after this row, under the noise of the position that it would take."""
        ...


class Round(TargetRows, Protocol):
    """All that a verifier may look at in one round, and all the chance that it may use.

    Probabilities are float64 in the engine, and fractions where a verifier is certified: arithmetic must do for both.
    """

    def target_probabilities(self, row: int) -> NDArray[Any]:
        """[vocab], after processing, of the token after this row."""
        ...

    def draft_probabilities(self, node: int) -> NDArray[Any] | None:
        """[vocab] that the node's token was really drawn from, its siblings before it being known.

        None if it was not drawn: a point mass.
        """
        ...

    def flip(self, node: int, probability: Any) -> bool:
        """A coin of this node's own, true with this probability. A node has one coin a round."""
        ...

    def pick(self, node: int, probabilities: NDArray[Any]) -> int:
        """A token by probabilities [vocab] that add up to 1. A node has one pick a round."""
        ...


class Verifier(ABC):
    """Decides how much of a draft to keep."""

    name: str

    @abstractmethod
    def verify(self, tree: TokenTree, rows: Round) -> Verdict:
        """The accepted path and the token that follows it."""


def verdict_at(tree: TokenTree, node: int, next_token: int) -> Verdict:
    """The verdict that keeps everything down to `node`."""
    path: list[int] = []
    is_bonus = node >= 0 and node not in tree.parents
    while node >= 0:
        path.append(node)
        node = tree.parents[node]
    return Verdict(tuple(reversed(path)), next_token, is_bonus)
