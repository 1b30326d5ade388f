"""What a policy is: it decides how much a drafter may spend, and can change only the speed. Knows no arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Sequences

from outrider.sequence import DecodeStep, ScheduledBatch, Sequence
from outrider.tree import DraftBudget, TokenTree


class Policy(ABC):
    """Sets the budgets of a step, all its sequences together, and learns from what the step did and cost."""

    name: str

    @abstractmethod
    def plan(self, sequences: Sequences[Sequence]) -> list[DraftBudget]:
        """What the drafter may propose for each of these sequences, which decode together now."""

    def select(
        self,
        batch: ScheduledBatch,
        trees: Sequences[TokenTree],
        scores: Sequences[tuple[float, ...] | None],
        sources: Sequences[str],
    ) -> list[int]:
        """How many of each tree's first nodes to verify, all trees together, now that they are made."""
        return [len(tree) for tree in trees]

    def observe(self, step: DecodeStep) -> None:  # noqa: B027
        """Learn from a step that was planned. Called once the tokens are appended."""

    def release(self, sequence: Sequence) -> None:  # noqa: B027
        """Forget a finished sequence."""
