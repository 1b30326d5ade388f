"""What a verifier is: a pure function of a tree and the target's answers. Knows no model, no cache and no engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from outrider.tree import TokenTree, Verdict


class TargetRows(Protocol):
    """The target's answers at the rows of one sequence's forward: row 0 is the root, row i + 1 is node i."""

    def token(self, row: int) -> int:
        """The target's own token after this row, under the noise of the position that it would take."""
        ...


class Verifier(ABC):
    """Decides how much of a draft to keep."""

    name: str

    @abstractmethod
    def verify(self, tree: TokenTree, target: TargetRows) -> Verdict:
        """The accepted path and the token that follows it."""
