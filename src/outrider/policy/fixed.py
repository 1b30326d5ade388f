"""The same depth in every step, as the request asked."""

from __future__ import annotations

from outrider.policy.base import Policy
from outrider.sequence import Sequence
from outrider.tree import DraftBudget


class FixedPolicy(Policy):
    """Drafts `request.depth` tokens, and never beyond the request's end: the step's last token is the target's."""

    name = "fixed"

    def budget(self, sequence: Sequence) -> DraftBudget:
        depth = min(sequence.request.depth, sequence.num_tokens_left - 1)
        return DraftBudget(max_depth=depth, max_nodes=depth)
