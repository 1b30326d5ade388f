"""A broken drafter is not an outage: its texts go on without it. Knows drafters and clocks; no models, no cache.

Whatever a drafter does, the text is the target's, so a fault costs speed only. (Not so under block verification, if a
drafter drew by other probabilities than it says: that cannot be seen from here.) A drafter that failed is not asked
about those texts again; other texts give it another chance, and other members of a cascade go on. A call that runs late
cannot be interrupted, only not repeated.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence as Sequences
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outrider.draft.base import Draft, Drafter, fault_of, fault_of_hindsight, fault_of_probabilities
from outrider.draft.cascade import Cascade
from outrider.sequence import DraftWork, Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict

FaultKind = Literal["raised", "malformed", "late"]
MANY_CAUGHT_UP = 256
MAX_MESSAGE = 300
_LOG = logging.getLogger("outrider")


class Guard:
    """What a drafter is held to, and what was seen of it.

    Args:
        vocab_size: the target's.
        clock: gives seconds.
        deadline: seconds that one call may take.
        is_chains_only: whether a tree that branches is a fault, since it could change bits that were promised.

    Attributes:
        faults: how often each kind was seen. The first of each is logged.
    """

    def __init__(
        self, vocab_size: int, clock: Callable[[], float], deadline: float, *, is_chains_only: bool = False
    ) -> None:
        self.is_chains_only = is_chains_only
        self.vocab_size = vocab_size
        self.clock = clock
        self.deadline = deadline
        self.faults: Counter[FaultKind] = Counter()

    def around(self, drafter: Drafter) -> Drafter:
        """A drafter that does no harm; of a cascade, every member by itself."""
        if isinstance(drafter, Cascade):
            return Cascade([GuardedDrafter(member, self) for member in drafter.members])
        return GuardedDrafter(drafter, self)

    def branching_fault_of(self, tree: TokenTree) -> str | None:
        """What is wrong with a valid tree where only chains are bitwise."""
        if self.is_chains_only and not tree.is_chain:
            return "proposed a tree that branches, but exactness is bitwise, and only chains are here"
        return None

    def note(self, kind: FaultKind, message: str, sequences: Sequences[Sequence]) -> None:
        """Count it, log the first of its kind, and say it in the results."""
        self.faults[kind] += 1
        if self.faults[kind] == 1:
            _LOG.warning("%s: the texts go on without it, and are the same", message)
        for sequence in sequences:
            if sequence.draft_fault is None:
                sequence.draft_fault = f"{message} at token {sequence.num_output_tokens}"


class GuardedDrafter(Drafter):
    """Asks another drafter, and survives it."""

    def __init__(self, drafter: Drafter, guard: Guard) -> None:
        self.name = drafter.name
        self.draws_in_order, self.makes_trees = drafter.draws_in_order, drafter.makes_trees
        self.looks_back = drafter.looks_back
        self.drafter = drafter
        self._guard = guard
        self._failed: set[int] = set()  # requests

    @property
    def sources(self) -> tuple[str, ...]:
        return self.drafter.sources

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        """A draft that can be trusted not to harm. Only texts that may have one are shown to the drafter."""
        asked = [
            index
            for index, (sequence, budget) in enumerate(zip(sequences, budgets, strict=True))
            if budget.is_asking and sequence.request.request_id not in self._failed
        ]
        trees, sources = [TokenTree()] * len(sequences), [self.name] * len(sequences)
        scores: list[tuple[float, ...] | None] = [None] * len(sequences)
        probabilities: list[NDArray[np.float64] | None] = [None] * len(sequences)
        if not asked:
            return Draft(trees, scores, sources, num_steps=0)
        began = self._guard.clock()
        some = self._ask([sequences[index] for index in asked], [budgets[index] for index in asked])
        seconds = self._guard.clock() - began
        for place, index in enumerate(asked):
            trees[index] = some.trees[place]
            scores[index] = some.scores[place] if some.scores else None
            sources[index] = some.sources[place] if some.sources else self.name
            probabilities[index] = some.probabilities[place] if some.probabilities else None
        deepest = max((tree.depth for tree in trees), default=0)
        num_steps = deepest if some.num_steps is None else some.num_steps
        work = some.work or (DraftWork(self.name, len(asked), num_steps, some.num_caught_up, seconds),)
        return Draft(trees, scores, sources, num_steps, some.num_caught_up, probabilities, work, some.hindsight)

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:
        if sequence.request.request_id not in self._failed:
            try:
                self.drafter.observe(sequence, tree, verdict)
            except Exception as error:  # noqa: BLE001 - a drafter may be anybody's code
                self._note("raised", _words(error), [sequence])

    def release(self, sequence: Sequence) -> None:
        try:
            self.drafter.release(sequence)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("raised", _words(error), [sequence])
        if sequence.finish_reason:  # and not preempted
            self._failed.discard(sequence.request.request_id)

    def memory(self) -> int:
        return self.drafter.memory()

    def max_memory(self, num_tokens: int) -> int:
        return self.drafter.max_memory(num_tokens)

    def hold(self, num_tokens: int) -> None:
        self.drafter.hold(num_tokens)

    def describe(self) -> dict[str, Any]:
        return self.drafter.describe()

    def check(self) -> None:
        self.drafter.check()

    def _ask(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        nothing = Draft([TokenTree() for _ in sequences], num_steps=0)
        began = self._guard.clock()
        try:
            draft = Draft(*self.drafter.propose(sequences, budgets))
            faults = self._faults_of(draft, sequences, budgets)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("raised", _words(error), sequences)
            return nothing
        seconds = self._guard.clock() - began
        if isinstance(faults, str):
            self._note("malformed", faults, sequences)
            return nothing
        # A drafter that catches up with long texts takes its time once; the policy has weighed that.
        if seconds > self._guard.deadline and draft.num_caught_up < MANY_CAUGHT_UP:
            self._note("late", f"took {seconds:.3g} s, but may take {self._guard.deadline:g} s", sequences)
        for index, fault in enumerate(faults):
            if fault:
                self._note("malformed", fault, [sequences[index]])
        trees = [TokenTree() if fault else tree for tree, fault in zip(draft.trees, faults, strict=True)]
        scores = [None if fault else each for each, fault in zip(_scores(draft), faults, strict=True)]
        probabilities = [
            None if fault else each for each, fault in zip(self._probabilities(draft), faults, strict=True)
        ]
        return draft._replace(trees=trees, scores=scores, probabilities=probabilities)

    def _faults_of(
        self, draft: Draft, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]
    ) -> str | list[str | None]:
        """One fault of the whole draft, or one or none of each tree."""
        for name in ("trees", "scores", "sources", "probabilities"):
            values = getattr(draft, name)
            if values is not None and len(values) != len(budgets):
                return f"made {len(values)} {name} for {len(budgets)} sequences"
        for count in (draft.num_steps or 0, draft.num_caught_up):
            if type(count) is not int or count < 0:
                return f"counted {count!r} steps or tokens caught up, but must give a whole number of 0 or more"
        for told in draft.hindsight:
            if fault := fault_of_hindsight(told, sequences):
                return fault
        vocab_size = self._guard.vocab_size
        faults = [
            fault_of(tree, scores, budget, vocab_size) or self._guard.branching_fault_of(tree)
            for tree, scores, budget in zip(draft.trees, _scores(draft), budgets, strict=True)
        ]
        return [
            fault if fault or each is None else fault_of_probabilities(tree, each, vocab_size)
            for tree, each, fault in zip(draft.trees, self._probabilities(draft), faults, strict=True)
        ]

    def _probabilities(self, draft: Draft) -> list[NDArray[np.float64] | None]:
        """Of a drafter that does not draw, none: its tokens are verified as what nobody drew."""
        if draft.probabilities is None or not self.draws_in_order:
            return [None] * len(draft.trees)
        return draft.probabilities

    def _note(self, kind: FaultKind, what: str, sequences: Sequences[Sequence]) -> None:
        self._guard.note(kind, f"drafter {self.name!r} {what}"[:MAX_MESSAGE], sequences)
        self._failed.update(sequence.request.request_id for sequence in sequences)


def _scores(draft: Draft) -> list[tuple[float, ...] | None]:
    return [None] * len(draft.trees) if draft.scores is None else draft.scores


def _words(error: Exception) -> str:
    return f"raised {type(error).__name__}" + (f" ({error})" if str(error) else "")
