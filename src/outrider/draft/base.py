"""What a drafter is: it looks at texts and proposes how they go on. It may be wrong; it cannot change the text.

Under block verification there is one thing that it must be right about: the probabilities of what it drew.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence as Sequences
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.sequence import DraftWork, Hindsight, Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict


class Draft(NamedTuple):
    """One tree per sequence, in the order asked; empty where the drafter has no guess.

    Only the trees matter to the text, and where tokens were drawn, their probabilities. The rest tells a policy how
    sure the guesses are and what they took.

    Attributes:
        trees: of each sequence.
        scores: of each tree's nodes, any finite number that is higher the surer the guess; None: no opinion.
        sources: who made each tree; None: the drafter itself.
        num_steps: draft steps taken one after the other; None: as many as the deepest tree is deep.
        num_caught_up: tokens of the texts that had to be computed before guessing, beyond the last few.
        probabilities: of each tree, [nodes, vocab of the target]: what each node's token was drawn from; None where
            nothing was drawn, or all. They count only if the drafter `draws_in_order`.
        work: of each source; the engine fills it in.
        hindsight: of drafters that `looks_back`, on any of the sequences.

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
    probabilities: list[NDArray[np.float64] | None] | None = None
    work: tuple[DraftWork, ...] = ()
    hindsight: tuple[Hindsight, ...] = ()

    @classmethod
    def nothing(cls, num_sequences: int, source: str) -> Draft:
        """Of a step in which nobody is asked."""
        scores: list[tuple[float, ...] | None] = [None] * num_sequences
        return cls([TokenTree()] * num_sequences, scores, [source] * num_sequences, num_steps=0)


# By how much probabilities in double precision may miss a sum of 1.
MAX_ROUNDING = 1e-6


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


def fault_of_hindsight(told: Hindsight, sequences: Sequences[Sequence]) -> str | None:
    """What is wrong with what a drafter says that it would have guessed, in words; None if nothing is."""
    if told.request_id not in {sequence.request.request_id for sequence in sequences}:
        return f"looked back on request {told.request_id}, but was not asked about it"
    num_guesses = sum(outcome is not None for outcome in told.outcomes)
    if told.scores is not None and (len(told.scores) != num_guesses or not all(map(math.isfinite, told.scores))):
        return f"scored {num_guesses} guesses that it looked back on with {told.scores}, but must give finite numbers"
    return None


def fault_of_probabilities(tree: TokenTree, probabilities: NDArray[np.float64], vocab_size: int) -> str | None:
    """What is wrong with what a tree is said to have been drawn from, in words; None if nothing that can be seen is."""
    if np.shape(probabilities) != (len(tree), vocab_size):
        return f"gave probabilities of shape {np.shape(probabilities)}, but must give {(len(tree), vocab_size)}"
    if not len(tree):
        return None
    totals = probabilities.sum(axis=1)
    if not (probabilities.min() >= 0 and np.abs(totals - 1).max() <= MAX_ROUNDING):
        return f"gave probabilities that add up to {totals.tolist()}, but must give some of 0 or more that add up to 1"
    if not probabilities[np.arange(len(tree)), tree.tokens].all():
        return f"proposed {tree} with tokens that it gave no probability"
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

    Attributes:
        draws_in_order: whether its drafts give probabilities, for block verification to use. Then each token is drawn
            from just these, by chance that nobody else sees (`noise`, purpose "proposal"), and nothing is left out,
            reordered or withheld for what was drawn: a tree's shape is settled first, or ends below a token that stays
            in it. Other drafters' tokens are verified as what nobody drew; these must not depend on the noise of
            coins and residuals, and may depend on anything else.
        makes_trees: whether a policy may ask it for trees that its guesses decide, by budgets of more than one child.
        looks_back: whether it can tell what it would have guessed where it was not asked: of the last places
            (`MAX_TOLD`) whose tokens it reads to catch up, each once while it remembers the text. A budget may ask for
            just that.
    """

    name: str
    draws_in_order: bool = False
    makes_trees: bool = False
    looks_back: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of those that draft, told apart by policies: a cascade's members, else the drafter itself."""
        return (self.name,)

    @abstractmethod
    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        """Make the candidate trees, each within its budget."""

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:  # noqa: B027
        """Learn what became of a draft that had nodes. Called before the accepted tokens are appended."""

    def release(self, sequence: Sequence) -> None:  # noqa: B027
        """Forget a sequence: it is finished, or it lost its cache and will be back."""

    def memory(self) -> int:
        """Bytes that this drafter adds to the target's."""
        return 0

    def max_memory(self, num_tokens: int) -> int:
        """Bytes that it may come to keep, but for a model's, if it is held to texts of so many tokens."""
        return 0

    def hold(self, num_tokens: int) -> None:  # noqa: B027
        """Keep what is derived from running texts within so many of their tokens; called before it is asked."""

    def describe(self) -> dict[str, Any]:
        """What it is, for a result's provenance."""
        return {"name": self.name}

    def check(self) -> None:  # noqa: B027
        """Assert the invariants that hold between steps."""
