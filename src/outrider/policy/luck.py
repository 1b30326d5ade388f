"""How much of what drafting lost is chance: what guesses that are as good as thought do now and then. Numbers only.

Where drafting gains a tenth of a step on average, one step gains or loses one and more. An account that books each as
it comes is overdrawn again and again, however right the estimates are: the ruin of a gambler with good odds and little
money. But where they are right, accepted tokens differ from expected ones by chance only, whose spread is known; where
they are wrong, by more and more. So what fell short is forgiven up to a bound while chance explains it, and is owed
again as soon as it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Sequences

from outrider.tree import ROOT, TokenTree

# What chance explains, in standard deviations: those of a sum that forgets are 0.7 of what its variances say. And plain
# steps that are forgiven at most.
NUM_DEVIATIONS, MOST_FORGIVEN = 2.0, 6.0
# Of a drafter that nobody knows yet nothing is forgiven: steps with drafts until then, and for each after them.
NUM_UNKNOWN, FORGIVEN_EACH = 100, 0.05
MEMORY = 0.99  # of a step with drafts


class Luck:
    """Accepted tokens beside expected ones, of a text of the batch, since so many steps with drafts."""

    def __init__(self) -> None:
        self._short = self._variance = self._forgiven = 0.0
        self._num_steps = 0

    def relief(self, accepted: float, expected: float, variance: float) -> float:
        """A step was verified: tokens by which the account's loss is to be less, or more where luck has changed."""
        self._short = MEMORY * self._short + expected - accepted
        self._variance = MEMORY * self._variance + variance
        self._num_steps += 1
        most = min(MOST_FORGIVEN, FORGIVEN_EACH * max(0, self._num_steps - NUM_UNKNOWN))
        is_chance = self._short <= NUM_DEVIATIONS * math.sqrt(self._variance)
        before, self._forgiven = self._forgiven, min(max(self._short, 0.0), most) * is_chance
        return self._forgiven - before


def expected_of(tree: TokenTree, survivals: Sequences[float]) -> tuple[float, float]:
    """Mean and variance of the number of accepted nodes, each of which is accepted with its survival."""
    depths: list[int] = []
    mean = square = 0.0
    for parent, survival in zip(tree.parents, survivals, strict=True):
        depths.append(1 + (0 if parent == ROOT else depths[parent]))
        mean += survival
        square += (2 * depths[-1] - 1) * survival
    return mean, max(square - mean**2, 0.0)
