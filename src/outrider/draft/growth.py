"""What a draft's nodes are worth by their scores, where a chain stops paying, and which nodes make the best tree.

Knows no texts and no models.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence as Sequences
from heapq import heappop, heappush

from outrider.tree import ROOT, DraftBudget, TokenTree, Worth

# How likely guesses are right where a budget does not say: fitted to the bundled pair at temperatures 0, 0.7 and 1, the
# first five guesses of each place.
USUAL_INTERCEPT, USUAL_SLOPE = -0.9, 2.0

# How likely a drawn guess is accepted where those before it at its place were not: for shapes, which know no texts.
USUAL_ACCEPTANCE = 0.6


def gain_of(tree: TokenTree, scores: Sequences[float] | None, worth: Worth) -> float:
    """Tokens that a draft is expected to earn in the target's forward, the price of its rows taken off."""
    return sum(survival - worth.node_price for survival in worth.survivals(tree, scores))


def paying_chain(
    tokens: tuple[int, ...], scores: tuple[float, ...], worth: Worth
) -> tuple[TokenTree, tuple[float, ...]]:
    """A chain that cost nothing to make, up to its first node that does not pay for its row: perhaps none of it."""
    tree = TokenTree.chain(tokens)
    num_paying = sum(survival >= worth.node_price for survival in worth.survivals(tree, scores))
    return TokenTree.chain(tokens[:num_paying]), scores[:num_paying]


@functools.lru_cache(maxsize=256)
def settled_shape(num_nodes: int, max_depth: int, max_children: int) -> tuple[int, ...]:
    """Parents of a tree that is to be drawn: the best of this size, if all guesses are as good as usual.

    It knows nothing of what will be drawn. A node's worth is the product of its path's chances, so that the worthiest
    nodes are the best tree (Chen et al. 2024, "Sequoia"). They come by depth, siblings in the order of drawing.

    Example:
        >>> settled_shape(4, 4, 3)
        (-1, -1, 0, 2)
    """
    found: list[tuple[int, int]] = []  # depth and parent, the worthiest first
    waiting: list[tuple[float, int, int, int, int]] = []

    def add(worth: float, depth: int, parent: int, rank: int) -> None:
        if depth <= max_depth and rank < max_children:
            heappush(waiting, (-worth, depth, parent, rank, len(found)))

    add(USUAL_ACCEPTANCE, 1, ROOT, 0)
    while waiting and len(found) < num_nodes:
        negative, depth, parent, rank, _ = heappop(waiting)
        add(-negative * (1 - USUAL_ACCEPTANCE), depth, parent, rank + 1)
        add(-negative * USUAL_ACCEPTANCE, depth + 1, len(found), 0)
        found.append((depth, parent))
    order = sorted(range(len(found)), key=lambda node: (found[node][0], node))
    place = {ROOT: ROOT} | {node: index for index, node in enumerate(order)}
    return tuple(place[found[node][1]] for node in order)


class BestFirst:
    """A tree of the likeliest nodes: of all that are known, as many as the budget allows.

    A node's survival never exceeds its parent's, so that the likeliest nodes always are a tree, and no other tree of
    their number is expected to earn more (Chen et al. 2024, "Sequoia", for trees that are fixed beforehand). A node
    that is not among the likeliest now will never be, whatever is found elsewhere: so one draft step can go on from all
    nodes of one depth that are among them.

    Args:
        budget: limits, and what guesses are worth; one that tells apart neither scores nor siblings gets the usual
            curve.
        max_depth: within the budget's.
    """

    def __init__(self, budget: DraftBudget, max_depth: int) -> None:
        self.max_depth = max_depth
        self.max_nodes = budget.max_nodes
        self.worth = budget.worth
        if not budget.worth.slope and not budget.worth.siblings:
            self.worth = budget.worth._replace(intercept=USUAL_INTERCEPT, slope=USUAL_SLOPE)
        self.known = TokenTree()
        self._scores: list[float] = []
        self._survivals: list[float] = []
        self._depths: list[int] = []
        self._is_first: list[bool] = []  # of the guesses at its place
        self._depth = 0  # of the nodes to go on from

    def add(self, guesses: Sequences[tuple[int, Sequences[tuple[int, float]]]]) -> None:
        """Take in a draft step: for each node that was gone on from, tokens and their scores."""
        tokens, parents = [*self.known.tokens], [*self.known.parents]
        for parent, children in guesses:
            before = 1.0 if parent == ROOT else self._survivals[parent]
            chances = self.worth.chances([score for _, score in children])
            for rank, ((token, score), chance) in enumerate(zip(children, chances, strict=True)):
                self._is_first.append(rank == 0)
                tokens.append(token)
                parents.append(parent)
                self._scores.append(score)
                self._survivals.append(before * chance)
                self._depths.append(self._depth + 1)
        self.known = TokenTree(tuple(tokens), tuple(parents))
        self._depth += 1

    def frontier(self) -> list[int]:
        """Nodes to go on from in the next draft step; none when the tree is grown."""
        if self._depth == 0:
            return [ROOT]
        if self._depth == self.max_depth:
            return []
        return [
            node
            for node in self._likeliest()
            if self._depths[node] == self._depth and self.worth.pays_to_go_on(self._survivals[node])
        ]

    def goes_on_from(self, node: int) -> bool:
        """Whether a draft step below this node may still find one of the likeliest, and pays."""
        if self._depth >= self.max_depth or not self.worth.pays_to_go_on(self._survivals[node]):
            return False
        return node in self._likeliest()

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        """The likeliest nodes that pay for their rows; the likeliest of all always does.

        They come likeliest first, so that the first few are the best tree of their number.
        """
        known = self._likeliest()
        nodes = [node for node in known if node == known[0] or self._survivals[node] >= self._price(node)]
        place = {ROOT: ROOT} | {node: index for index, node in enumerate(nodes)}
        tokens = tuple(self.known.tokens[node] for node in nodes)
        parents = tuple(place[self.known.parents[node]] for node in nodes)
        return TokenTree(tokens, parents), tuple(self._scores[node] for node in nodes)

    def _price(self, node: int) -> float:
        """Of a node; one below a sibling must earn what the sibling must, lest it stay without its parent."""
        is_first, parent = self._is_first[node], self.known.parents[node]
        while is_first and parent != ROOT:
            is_first, parent = self._is_first[parent], self.known.parents[parent]
        return self.worth.node_price if is_first else max(self.worth.node_price, self.worth.sibling_price)

    def _likeliest(self) -> list[int]:
        """Likeliest first; of equal ones those found earlier, so that no node comes without its parent."""
        order = sorted(range(len(self.known)), key=lambda node: (-self._survivals[node], node))
        return order[: self.max_nodes]
