"""What a drafter is: it looks at texts and proposes how they go on. It may be wrong; it cannot change the text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Sequences
from typing import Any, NamedTuple

from outrider.errors import UsageError
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict


class Draft(NamedTuple):
    """One tree per sequence, in the order asked; empty where the drafter has no guess.

    Example:
        >>> from outrider import Draft, TokenTree
        >>> len(Draft([TokenTree.chain((5, 6)), TokenTree()]).trees)
        2
    """

    trees: list[TokenTree]


def check_draft(name: str, draft: Draft, budgets: Sequences[DraftBudget], vocab_size: int) -> None:
    """Refuse a draft that is not what was asked for.

    Raises:
        UsageError: trees are missing, malformed, beyond their budget, or hold tokens that the target does not have.
    """
    if len(draft.trees) != len(budgets):
        raise UsageError(f"drafter {name!r} made {len(draft.trees)} trees for {len(budgets)} sequences")
    for tree, budget in zip(draft.trees, budgets, strict=True):
        if len(tree) > budget.max_nodes:
            raise UsageError(f"drafter {name!r} proposed {len(tree)} nodes, but its budget is {budget.max_nodes}")
        if not tree.is_valid(vocab_size):
            raise UsageError(f"drafter {name!r} proposed {tree}, which is no tree of a vocabulary of {vocab_size}")
        if max(tree.depths(), default=0) > budget.max_depth:
            raise UsageError(f"drafter {name!r} proposed depth {max(tree.depths())}, but may go to {budget.max_depth}")


class Drafter(ABC):
    """Anything that proposes.

    A drafter sees sequences, never the target. It keeps its own state by `sequence.request.request_id`, in step with
    `sequence.token_ids` alone: it may be asked for any subset of sequences in any step.

    Example:
        >>> from outrider import Draft, Drafter, TokenTree
        >>> class LastAgain(Drafter):
        ...     name = "last again"
        ...     def propose(self, sequences, budgets):
        ...         return Draft([TokenTree.chain((sequence.root_token,) * min(budget))
        ...                       for sequence, budget in zip(sequences, budgets)])
        >>> LastAgain().name
        'last again'
    """

    name: str

    @abstractmethod
    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        """Make the candidate trees, each within its budget."""

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:  # noqa: B027
        """Learn what became of a draft. Called before the accepted tokens are appended."""

    def release(self, sequence: Sequence) -> None:  # noqa: B027
        """Forget a finished sequence."""

    def memory(self) -> int:
        """Bytes that this drafter adds to the target's."""
        return 0

    def describe(self) -> dict[str, Any]:
        """What it is, for a result's provenance."""
        return {"name": self.name}

    def check(self) -> None:  # noqa: B027
        """Assert the invariants that hold between steps."""
