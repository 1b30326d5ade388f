"""The same depth in every step, as the request asked."""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from outrider.policy.base import Policy
from outrider.sequence import Sequence
from outrider.tree import DraftBudget

DEFAULT_DEPTH = 4


class FixedPolicy(Policy):
    """Drafts `request.depth` tokens, or `default_depth` where the request leaves it open."""

    name = "fixed"

    def __init__(self, default_depth: int = DEFAULT_DEPTH) -> None:
        self.default_depth = default_depth

    def plan(self, sequences: Sequences[Sequence]) -> list[DraftBudget]:
        return [fixed_budget(sequence, self.default_depth) for sequence in sequences]


def fixed_budget(sequence: Sequence, default_depth: int) -> DraftBudget:
    """Never beyond the request's end: the step's last token is the target's."""
    asked = sequence.request.depth
    depth = min(default_depth if asked == "auto" else asked, sequence.num_tokens_left - 1)
    return DraftBudget(max_depth=depth, max_nodes=depth, max_children=sequence.request.max_children)
