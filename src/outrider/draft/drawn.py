"""A draft model's drafts for block verification in the making: chains and trees that are drawn, by noise of their own.

Their shape is settled before anything is drawn, all that was drawn is verified, and each token comes with the
probabilities that it was drawn from: that is what `verify/traversal.py` asks of a proposal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.draft.growth import settled_shape
from outrider.draft.making import Chain, Growing, Memory, Part
from outrider.sequence import Sequence
from outrider.tree import ROOT, DraftBudget, TokenTree


@dataclass(slots=True)
class DrawnChain(Chain):
    """A draft for block verification: as long as the budget says, whatever is drawn.

    Attributes:
        vocab_size: the target's.
        probabilities: [guesses][vocab] that each guess was drawn from.
    """

    vocab_size: int = 0
    probabilities: list[NDArray[np.float64]] = field(default_factory=list[NDArray[np.float64]])

    def grow(self, logits: NDArray[np.float32]) -> None:
        """Add a token drawn from the draft model's distribution, under noise of its own.

        The score is the distribution's, not the token's: whether to draft on must not depend on what was drawn last.
        """
        request = self.sequence.request
        processed = self.process(logits[0], self.guesses)
        root_position, path = len(self.sequence.token_ids) - 1, (0,) * (len(self.guesses) + 1)
        row = noise.Address(request.seed, request.stream, root_position, "proposal", path)
        probabilities = np.zeros(self.vocab_size)
        probabilities[: len(processed)] = sampling.probabilities(processed, request.params)
        self.probabilities.append(probabilities)
        self.guesses.append(sampling.choose(processed, request.params, row))
        self.scores.append(sampling.sureness(processed, request.params))
        self.survival *= self.budget.worth.chance(self.scores[-1])

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        """The tree, of all that was drawn."""
        return TokenTree.chain(tuple(self.guesses)), tuple(self.scores)


class DrawnTree(Growing):
    """A tree for block verification, of a shape that only the budget decides.

    Siblings are drawn without replacement: each from what the draft model says where those before it are ruled out, by
    a row of noise of its own. So they differ, and at temperature 0 they are the likeliest tokens.

    Attributes:
        probabilities: [nodes][vocab of the target] that each node's token was drawn from.
    """

    def __init__(self, sequence: Sequence, budget: DraftBudget, depth: int, memory: Memory, *, vocab_size: int) -> None:
        super().__init__(sequence, budget, depth, memory)
        parents = settled_shape(budget.max_nodes, depth, budget.max_children)
        self.tree = TokenTree((0,) * len(parents), parents)  # tokens as they are drawn
        self.probabilities = [np.zeros(vocab_size) for _ in parents]
        self._scores = [0.0] * len(parents)
        self._depths = (*self.tree.depths(), 0)  # the last is the root's, whose number is -1
        self._frontier = [ROOT]

    @property
    def num_rows(self) -> int:
        return self.num_unseen + len(self.tree)

    @property
    def is_growing(self) -> bool:
        return bool(self._frontier)

    def part(self) -> Part:
        """The text's last tokens; afterwards the nodes that have children, with those that they descend from."""
        return self.part_of(self.tree, self._frontier)

    def grow(self, logits: NDArray[np.float32]) -> None:
        """Draw the children of the nodes that were computed."""
        tokens = list(self.tree.tokens)
        for node, row in zip(self._frontier, logits, strict=True):
            left = np.array(self.process(row, self.tree.tokens_to(node)))
            for child in self._children(node):
                tokens[child] = self._draw(child, left)
                left[tokens[child]] = -np.inf
        self.tree = TokenTree(tuple(tokens), self.tree.parents)
        depth = self._depths[self._frontier[0]] + 1
        self._frontier = [
            node for node in range(len(tokens)) if self._depths[node] == depth and node in self.tree.parents
        ]

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        """The tree, of all that was drawn."""
        return self.tree, tuple(self._scores)

    def _children(self, node: int) -> list[int]:
        return [child for child, parent in enumerate(self.tree.parents) if parent == node]

    def _draw(self, child: int, left: NDArray[np.float32]) -> int:
        """A node's token, from the logits that its siblings left; where nothing is left, a token that nobody drew."""
        request, probabilities = self.sequence.request, self.probabilities[child]
        if np.isneginf(left).all():
            probabilities[0] = 1.0
            return 0
        path = self.tree.ranks_to(child)
        row = noise.Address(request.seed, request.stream, len(self.sequence.token_ids) - 1, "proposal", path)
        probabilities[: len(left)] = sampling.probabilities(left, request.params)
        self._scores[child] = sampling.sureness(left, request.params)
        return sampling.choose(left, request.params, row)
