"""What a policy is: it decides how much a drafter may spend, and can change only the speed. Knows no arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod

from outrider.sequence import Sequence
from outrider.tree import DraftBudget


class Policy(ABC):
    """Sets each sequence's budget for the next step."""

    name: str

    @abstractmethod
    def budget(self, sequence: Sequence) -> DraftBudget:
        """What the drafter may propose for this sequence now."""
