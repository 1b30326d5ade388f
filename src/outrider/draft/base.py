"""What a drafter is: it looks at texts and proposes how they go on. It may be wrong; it cannot change the text."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence as Sequences
from typing import Any, NamedTuple

from outrider.sequence import DraftWork, Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict


class Draft(NamedTuple):
    """One tree per sequence, in the order asked; empty where the drafter has no guess.

    Only the trees matter to the text. The rest tells a policy how sure the guesses are and what they took.

    Attributes:
        trees: of each sequence.
        scores: of each tree's nodes, any finite number that is higher the surer the guess; None: no opinion.
        sources: who made each tree; None: the drafter itself.
        num_steps: draft steps taken one after the other; None: as many as the deepest tree is deep.
        num_caught_up: tokens of the texts that had to be computed before guessing, beyond the last few.
        work: of each source; the engine fills it in.

    Example:
        >>> from outrider import Draft, TokenTree
        >>> len(Draft([TokenTree.chain((5, 6)), TokenTree()]).trees)
        2
    """

    trees: list[TokenTree]
    scores: list[tuple[float, ...] | None] | None = None
    sources: list[str] | None = None
    num_steps: int | None = None
    num_caught_up: int = 0
    work: tuple[DraftWork, ...] = ()


def fault_of(tree: TokenTree, scores: tuple[float, ...] | None, budget: DraftBudget, vocab_size: int) -> str | None:
    """What is wrong with one sequence's draft, in words; None if nothing is.

    A runtime would read and write other memory if a tree were taken on trust.
    """
    if len(tree) > budget.max_nodes:
        return f"proposed {len(tree)} nodes, but its budget is {budget.max_nodes}"
    if not tree.is_valid(vocab_size):
        return f"proposed {tree}, which is no tree of a vocabulary of {vocab_size}"
    if tree.depth > budget.max_depth:
        return f"proposed depth {tree.depth}, but may go to {budget.max_depth}"
    if scores is not None and (len(scores) != len(tree) or not all(map(math.isfinite, scores))):
        return f"scored {len(tree)} nodes with {scores}, but must give each a finite number"
    return None


class Drafter(ABC):
    """Anything that proposes.

    A drafter sees sequences, never the target. It keeps its own state by `sequence.request.request_id`, in step with
    `sequence.token_ids` alone: it may be asked for any subset of sequences in any step.

    Example:
        >>> from outrider import Draft, Drafter, TokenTree
        >>> class LastAgain(Drafter):
        ...     name = "last again"
        ...     def propose(self, sequences, budgets):
        ...         return Draft([TokenTree.chain((sequence.root_token,) * budget.limit)
        ...                       for sequence, budget in zip(sequences, budgets)])
        >>> LastAgain().name
        'last again'
    """

    name: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of those that draft, told apart by policies: a cascade's members, else the drafter itself."""
        return (self.name,)

    @abstractmethod
    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        """Make the candidate trees, each within its budget."""

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:  # noqa: B027
        """Learn what became of a draft. Called before the accepted tokens are appended."""

    def release(self, sequence: Sequence) -> None:  # noqa: B027
        """Forget a sequence: it is finished, or it lost its cache and will be back."""

    def memory(self) -> int:
        """Bytes that this drafter adds to the target's."""
        return 0

    def describe(self) -> dict[str, Any]:
        """What it is, for a result's provenance."""
        return {"name": self.name}

    def check(self) -> None:  # noqa: B027
        """Assert the invariants that hold between steps."""
