"""A broken drafter is not an outage: its request goes on plain. Knows drafters and clocks; no models, no cache.

Whatever a drafter does, the text is the target's, so a fault costs speed only. A text whose draft failed is not drafted
for again; another request gets another chance. A call that runs late cannot be interrupted, only not repeated.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence as Sequences
from typing import Literal

from outrider.draft.base import Draft, Drafter, fault_of
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict

FaultKind = Literal["raised", "malformed", "late"]
_LOG = logging.getLogger("outrider")


class GuardedDrafter:
    """Asks a drafter, and survives it.

    Args:
        drafter: whose faults are expected.
        vocab_size: the target's.
        clock: gives seconds.
        deadline: seconds that one call may take.

    Attributes:
        faults: how often each kind was seen. Each is logged once.
    """

    def __init__(self, drafter: Drafter, vocab_size: int, clock: Callable[[], float], deadline: float) -> None:
        self.drafter = drafter
        self.faults: Counter[FaultKind] = Counter()
        self._vocab_size = vocab_size
        self._clock = clock
        self._deadline = deadline

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        """A draft that can be trusted not to harm. Only texts that may have one are shown to the drafter."""
        asked = [
            index
            for index, (sequence, budget) in enumerate(zip(sequences, budgets, strict=True))
            if budget.limit > 0 and sequence.draft_fault is None
        ]
        complete = Draft([TokenTree()] * len(sequences), [None] * len(sequences), [self.drafter.name] * len(sequences))
        if not asked:
            return complete._replace(num_steps=0)
        some = self._ask([sequences[index] for index in asked], [budgets[index] for index in asked])
        assert complete.scores is not None
        assert complete.sources is not None
        for place, index in enumerate(asked):
            complete.trees[index] = some.trees[place]
            complete.scores[index] = some.scores[place] if some.scores else None
            complete.sources[index] = some.sources[place] if some.sources else self.drafter.name
        deepest = max((max(tree.depths(), default=0) for tree in complete.trees), default=0)
        num_steps = deepest if some.num_steps is None else some.num_steps
        return complete._replace(num_steps=num_steps, num_caught_up=some.num_caught_up)

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:
        """Tell the drafter what became of its draft."""
        if sequence.draft_fault is None:
            try:
                self.drafter.observe(sequence, tree, verdict)
            except Exception as error:  # noqa: BLE001 - a drafter may be anybody's code
                self._note("raised", _words(error), [sequence])

    def release(self, sequence: Sequence) -> None:
        """Have the drafter forget a sequence."""
        try:
            self.drafter.release(sequence)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("raised", _words(error), [sequence])

    def check(self) -> None:
        self.drafter.check()

    def _ask(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        nothing = Draft([TokenTree() for _ in sequences], num_steps=0)
        began = self._clock()
        try:
            draft = self.drafter.propose(sequences, budgets)
            faults = self._faults_of(draft, budgets)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("raised", _words(error), sequences)
            return nothing
        seconds = self._clock() - began
        if isinstance(faults, str):
            self._note("malformed", faults, sequences)
            return nothing
        if seconds > self._deadline:
            self._note("late", f"took {seconds:.3g} s, but may take {self._deadline:g} s", sequences)
        for index, fault in enumerate(faults):
            if fault:
                self._note("malformed", fault, [sequences[index]])
                draft.trees[index] = TokenTree()
        return draft

    def _faults_of(self, draft: Draft, budgets: Sequences[DraftBudget]) -> str | list[str | None]:
        """One fault of the whole draft, or one or none of each tree."""
        for name in ("trees", "scores", "sources"):
            values = getattr(draft, name)
            if values is not None and len(values) != len(budgets):
                return f"made {len(values)} {name} for {len(budgets)} sequences"
        scores = draft.scores or [None] * len(budgets)
        return [
            fault_of(tree, tree_scores, budget, self._vocab_size)
            for tree, tree_scores, budget in zip(draft.trees, scores, budgets, strict=True)
        ]

    def _note(self, kind: FaultKind, what: str, sequences: Sequences[Sequence]) -> None:
        """Count it, log the first of its kind, and draft no more for these texts."""
        self.faults[kind] += 1
        message = f"drafter {self.drafter.name!r} {what}"
        if self.faults[kind] == 1:
            _LOG.warning("%s: the text goes on without drafts, and is the same", message)
        for sequence in sequences:
            if sequence.draft_fault is None:
                sequence.draft_fault = message


def _words(error: Exception) -> str:
    return f"raised {type(error).__name__}" + (f" ({error})" if str(error) else "")
