"""Several drafters as one: each text is drafted by whichever is worth most there. Knows no texts and no models."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.draft.base import Draft, Drafter
from outrider.draft.growth import gain_of
from outrider.draft.suffix import score_of
from outrider.errors import ParameterError
from outrider.sequence import DraftWork, Hindsight, Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict

# Where a policy prices no members, a match of this length is followed without asking further.
DECENT_SCORE = score_of(4)


@dataclass(slots=True)
class _Best:
    """The best draft of one text so far, and what it is expected to earn."""

    tree: TokenTree
    scores: tuple[float, ...] | None
    member: Drafter
    gain: float
    probabilities: NDArray[np.float64] | None = None

    @property
    def is_drawn(self) -> bool:
        return self.member.draws_in_order and len(self.tree) > 0


class Cascade(Drafter):
    """Asks its members from the cheapest to the dearest, and of each text keeps the best draft.

    Where the budgets price the members, a dearer one is asked only about the texts where it is expected to earn more
    than the best draft that is made already; its draft is kept if it is indeed worth more. Where they do not (a fixed
    depth was asked for), the first member that is sure enough drafts, or one that gives no scores, or else the last.

    What was drawn to be verified by ratios (`Drafter.draws_in_order`) must not be chosen by what it is: of a member
    that draws, a draft that was asked for is kept, and nobody is asked after it.

    A verdict is told to the member whose draft it was, and to no other.

    Args:
        members: cheapest first, all named differently.

    Raises:
        ParameterError: there are no members, or two of one name.
    """

    name = "cascade"

    def __init__(self, members: Sequences[Drafter]) -> None:
        names = [member.name for member in members]
        if not names or len(set(names)) < len(names):
            raise ParameterError(f"members are {names}, but must be one or more, each of its own name")
        self.members = tuple(members)
        self._drafted: dict[int, Drafter] = {}  # by request, who made the last draft

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @property
    def draws_in_order(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of what members drew, it gives the probabilities on."""
        return any(member.draws_in_order for member in self.members)

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        nothing = _Best(TokenTree(), (), self.members[0], 0.0)
        best = [nothing] * len(sequences)
        num_steps = num_caught_up = 0
        work: tuple[DraftWork, ...] = ()
        hindsight: tuple[Hindsight, ...] = ()
        for rank, member in enumerate(self.members):
            asked = [index for index, budget in enumerate(budgets) if self._is_wanted(rank, budget, best[index])]
            if not asked:
                continue
            granted = [_budget_of(rank, budgets[index]) for index in asked]
            draft = member.propose([sequences[index] for index in asked], granted)
            num_steps += _num_steps(draft)
            num_caught_up += draft.num_caught_up
            work += draft.work
            hindsight += draft.hindsight
            for index, made in zip(asked, _drafts_of(draft, member, granted), strict=True):
                if self._is_better(made, best[index], budgets[index]):
                    best[index] = made
        for sequence, made in zip(sequences, best, strict=True):
            self._drafted[sequence.request.request_id] = made.member
        return Draft(
            [made.tree for made in best],
            [made.scores for made in best],
            [made.member.name for made in best],
            num_steps=num_steps,
            num_caught_up=num_caught_up,
            probabilities=[made.probabilities for made in best],
            work=work,
            hindsight=hindsight,
        )

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:
        if member := self._drafted.get(sequence.request.request_id):
            member.observe(sequence, tree, verdict)

    def release(self, sequence: Sequence) -> None:
        self._drafted.pop(sequence.request.request_id, None)
        with ExitStack() as releasing:  # one that raises must not keep the others from it
            for member in self.members:
                releasing.callback(member.release, sequence)

    def memory(self) -> int:
        return sum(member.memory() for member in self.members)

    def max_memory(self, num_tokens: int) -> int:
        return sum(member.max_memory(num_tokens) for member in self.members)

    def hold(self, num_tokens: int) -> None:
        for member in self.members:
            member.hold(num_tokens)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "members": [member.describe() for member in self.members]}

    def check(self) -> None:
        for member in self.members:
            member.check()

    def _is_wanted(self, rank: int, budget: DraftBudget, best: _Best) -> bool:
        """Whether to ask this member about a text that has such a draft already."""
        own = _budget_of(rank, budget)
        if own.limit < 1 or best.is_drawn:
            return own.looks_back and own.limit < 1
        if not len(best.tree):
            return True
        if budget.members:
            return budget.members[rank].gain > best.gain
        return best.scores is not None and best.scores[0] < DECENT_SCORE

    def _is_better(self, made: _Best, best: _Best, budget: DraftBudget) -> bool:
        """An empty draft is no better than another; without prices, whoever is asked later knows better."""
        if made.is_drawn:
            return True
        return len(made.tree) > 0 and (not budget.members or not len(best.tree) or made.gain > best.gain)


def _budget_of(rank: int, budget: DraftBudget) -> DraftBudget:
    """What a member may spend: its own budget, within that of the whole."""
    if not budget.members:
        return budget
    own = budget.members[rank]
    if own.max_depth <= budget.max_depth and own.max_nodes <= budget.max_nodes:
        return own
    return own._replace(max_depth=min(own.max_depth, budget.max_depth), max_nodes=min(own.max_nodes, budget.max_nodes))


def _drafts_of(draft: Draft, member: Drafter, budgets: list[DraftBudget]) -> list[_Best]:
    nothing = [None] * len(draft.trees)
    scores = draft.scores or nothing
    probabilities = (draft.probabilities if member.draws_in_order else None) or nothing
    return [
        _Best(tree, tree_scores, member, gain_of(tree, tree_scores, budget.worth), tree_probabilities)
        for tree, tree_scores, tree_probabilities, budget in zip(
            draft.trees, scores, probabilities, budgets, strict=True
        )
    ]


def _num_steps(draft: Draft) -> int:
    if draft.num_steps is not None:
        return draft.num_steps
    return max((tree.depth for tree in draft.trees), default=0)
