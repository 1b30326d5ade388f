"""Learns from decoding steps what they cost. Knows what was asked for; no texts and no plans."""

from __future__ import annotations

from collections.abc import Mapping

from outrider.policy.branching import Branching
from outrider.policy.cost import StepCosts
from outrider.policy.losses import Losses, num_looked_at
from outrider.sequence import MAX_TOLD, DecodeStep

# Steps without any draft, after which costs are doubted.
FORGET_STEPS = 1000


class CostLearner:
    """Teaches costs.

    Args:
        index: of the sources that a policy knows, by their names.

    Attributes:
        num_since_plain: steps since the last one without any guess.
    """

    def __init__(self, costs: StepCosts, branching: Branching, losses: Losses, index: Mapping[str, int]) -> None:
        self.costs = costs
        self.num_since_plain = 0
        self._branching = branching
        self._losses = losses
        self._index = index
        self._num_since_draft = 0
        self._was_looking = False

    def observe(self, step: DecodeStep) -> None:
        """Learn from a step, of which no row was only computed again."""
        is_plain = not any(map(len, step.trees))
        self.num_since_plain = 0 if is_plain else self.num_since_plain + 1
        seconds = self._branching.costs.observe_target(step)
        self.costs.observe_target(step.num_computed_rows, seconds, len(step.sequences))
        self._observe_thinking(step)
        for work in step.work:
            if work.source not in self._index or work.seconds <= 0:
                continue
            index = self._index[work.source]
            is_short = work.num_caught_up <= MAX_TOLD * work.num_sequences
            if num_looked_at(step, index) and is_short and self.costs.is_told(work.source):
                continue  # which takes as many guesses and tells little of what reading takes
            is_comb = any(budget.of_member(index).is_comb for budget in step.budgets)
            self.costs.observe_draft(self._branching.costs.observe_draft(work) if is_comb else work)

    def _observe_thinking(self, step: DecodeStep) -> None:
        """With drafts or without; after a draft or a look a part of it is what was learned from that, and not idle."""
        is_drafting = any(budget.max_depth > 0 for budget in step.budgets)
        is_looking = any(budget.looks_back for budget in step.budgets)
        is_idle = not (is_drafting or is_looking or self._was_looking or self._num_since_draft == 0)
        self._was_looking = is_looking
        may_draft = any(sequence.request.depth == "auto" for sequence in step.sequences)
        self._num_since_draft = 0 if is_drafting else self._num_since_draft + may_draft
        if self._num_since_draft == FORGET_STEPS:
            self._num_since_draft = 0
            self.costs.forget()
            self._losses.forget()
        if is_drafting or is_idle:
            thought = step.thinking_seconds / self.costs.speed
            self.costs.thinking.observe(len(step.sequences), thought, is_drafting=is_drafting)
