"""No drafter: the empty draft, which is plain decoding."""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from outrider.draft.base import Draft, Drafter
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree


class NoDrafter(Drafter):
    """Proposes nothing."""

    name = "none"

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        return Draft([TokenTree() for _ in sequences])
