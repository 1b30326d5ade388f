"""A draft's shape: token trees, how large they may be, and what verification said of them. Knows no arrays.

Rows of a forward number a tree's nodes after its root: row 0 is the root (the last emitted token, not yet in the
cache), row i + 1 is node i.

    root ── 0 ── 2          tokens  = (a, b, c)
        └── 1               parents = (-1, -1, 0)       depth of node 2 is 2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

ROOT = -1


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Candidate tokens with parents; node `i` hangs under node `parents[i]`, or under the root if that is -1.

    Parents come before children, so that every prefix of a tree is a tree. An empty tree is plain decoding, a tree
    whose every node hangs under the one before is a chain.

    Example:
        >>> from outrider import TokenTree
        >>> TokenTree.chain((5, 6, 7)).parents
        (-1, 0, 1)
        >>> TokenTree(tokens=(5, 6, 7), parents=(-1, -1, 0)).depths()
        (1, 1, 2)
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    @classmethod
    def chain(cls, tokens: tuple[int, ...]) -> TokenTree:
        """The tree with one branch."""
        return cls(tokens, tuple(range(ROOT, len(tokens) - 1)))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        return self.parents == tuple(range(ROOT, len(self.tokens) - 1))

    def child(self, node: int, token: int) -> int | None:
        """The first child of `node` that proposes `token`."""
        for index, parent in enumerate(self.parents):
            if parent == node and self.tokens[index] == token:
                return index
        return None

    @property
    def depth(self) -> int:
        """Of its deepest node; 0 if it is empty."""
        return max(self.depths(), default=0)

    def depths(self) -> tuple[int, ...]:
        """Distance of each node from the root: a node's position is the root's plus this, never its slot."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == ROOT else depths[parent] + 1)
        return tuple(depths)

    def tokens_to(self, node: int) -> tuple[int, ...]:
        """The tokens from the root's first child down to `node`; none for the root itself."""
        tokens: list[int] = []
        while node != ROOT:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tuple(reversed(tokens))

    def first(self, num_nodes: int) -> TokenTree:
        """The tree of its first nodes."""
        return self if num_nodes >= len(self.tokens) else TokenTree(self.tokens[:num_nodes], self.parents[:num_nodes])

    def ranks_to(self, node: int) -> tuple[int, ...]:
        """Which child of its parent each node is, from the root's down to `node`: its place in the tree's shape.

        Example:
            >>> TokenTree(tokens=(5, 6, 7), parents=(-1, -1, 1)).ranks_to(2)
            (1, 0)
        """
        ranks: list[int] = []
        while node != ROOT:
            ranks.append(self.parents[:node].count(self.parents[node]))
            node = self.parents[node]
        return tuple(reversed(ranks))

    def is_valid(self, vocab_size: int) -> bool:
        """Whether every node hangs under an earlier one, and every token is a plain number of the vocabulary."""
        return (
            len(self.tokens) == len(self.parents)
            and all(type(parent) is int and ROOT <= parent < index for index, parent in enumerate(self.parents))
            and all(type(token) is int and 0 <= token < vocab_size for token in self.tokens)
        )


class Worth(NamedTuple):
    """What guesses are likely to earn on one text, and what they must earn. A policy fills it, a drafter obeys it.

    The chance that a guess is the target's token is `sigmoid(intercept + slope * score)` for the score that the
    drafter gave it. A node's survival is the product of these chances along its path: the tokens it is expected to
    add. It pays for its row in the target's forward if that is at least `node_price`.

    Attributes:
        intercept, slope: of the logistic curve.
        mean: chance of a guess that is not made yet.
        node_price: tokens that one row more must earn.
        step_price: tokens that one draft step more, with its row, must earn.
        siblings: chances of the second guess at a place, the third and so on, each where those before it are wrong;
            empty: a guess that stands beside others is judged by its score alone.
        sibling_price: tokens that any guess but the first at its place must earn.
    """

    intercept: float = 20.0
    slope: float = 0.0
    mean: float = 1.0
    node_price: float = 0.0
    step_price: float = 0.0
    siblings: tuple[float, ...] = ()
    sibling_price: float = 0.0

    def chance(self, score: float) -> float:
        """How likely a guess of this score is the target's token."""
        exponent = self.intercept + self.slope * score
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, exponent))))

    def chances(self, scores: Sequence[float]) -> list[float]:
        """How likely each of the guesses at one place is the target's token; they come best first."""
        if not self.siblings:
            return [self.chance(score) for score in scores]
        return self._shared(self.chance(scores[0]), len(scores))

    def survivals(self, tree: TokenTree, scores: Sequence[float] | None) -> list[float]:
        """How likely each node is to be accepted; guesses without scores are as good as the mean."""
        if self.siblings and not tree.is_chain:
            return self._survivals_beside(tree, scores)
        found: list[float] = []
        for node, parent in enumerate(tree.parents):
            chance = self.mean if scores is None else self.chance(scores[node])
            found.append(chance * (1.0 if parent == ROOT else found[parent]))
        return found

    def _survivals_beside(self, tree: TokenTree, scores: Sequence[float] | None) -> list[float]:
        """Where siblings share what the first of them leaves."""
        found: list[float] = []
        at_place: dict[int, list[float]] = {}
        for node, parent in enumerate(tree.parents):
            chances = at_place.get(parent)
            if chances is None:
                first = self.mean if scores is None else self.chance(scores[node])
                chances = at_place[parent] = self._shared(first, 1 + len(self.siblings))[::-1]
            chance = chances.pop() if chances else 0.0
            found.append(chance * (1.0 if parent == ROOT else found[parent]))
        return found

    def _shared(self, first: float, count: int) -> list[float]:
        """Chances of so many guesses at one place, of which none is likelier than the one before."""
        chances = [first]
        for chance in self.siblings[: count - 1]:
            chances.append(min((1.0 - sum(chances)) * chance, chances[-1]))
        return chances + [0.0] * (count - len(chances))

    def pays_to_go_on(self, survival: float) -> bool:
        """Whether to draft one token more under a node of this survival."""
        return survival * self.mean >= self.step_price


class DraftBudget(NamedTuple):
    """What a drafter may spend on one sequence in one step, and what its guesses are worth there.

    Attributes:
        max_depth, max_nodes: limits.
        worth: when to stop before the limits; by default never.
        gain: tokens that drafting with this budget is expected to earn, its price already taken off.
        members: a cascade's budgets for its members, in its order; empty for any other drafter.
        max_children: guesses that may follow one token, for a drafter that can make trees; 1 asks for a chain.
        max_catch_up: tokens of the text, beyond the last few, that a drafter may compute in one call before it guesses.
            One that has more left computes so many, proposes nothing, and goes on from there when it is asked again.
            None: all.
        is_comb: whether a tree is to be gone on from along its first guesses only, whose siblings stay leaves: it takes
            the draft steps of a chain, and no rows more.
        looks_back: whether a drafter that can is to read the text and tell what it would have guessed there.
    """

    max_depth: int
    max_nodes: int
    worth: Worth = Worth()
    gain: float = 0.0
    members: tuple[DraftBudget, ...] = ()
    max_children: int = 1
    max_catch_up: int | None = None
    is_comb: bool = False
    looks_back: bool = False

    def of_member(self, index: int) -> DraftBudget:
        """What one of a cascade's members may spend; of any other drafter, the drafter."""
        return self.members[index] if self.members else self

    @property
    def limit(self) -> int:
        """Nodes of the longest chain allowed."""
        return max(0, min(self.max_depth, self.max_nodes))

    @property
    def is_asking(self) -> bool:
        """Whether a drafter has anything to do: to guess, or to look back."""
        return self.limit > 0 or self.looks_back

    def cut(self, num_nodes: int) -> DraftBudget:
        """The budget, and its members', for so many nodes at most."""
        if self.max_nodes <= num_nodes:
            return self
        members = tuple(member.cut(num_nodes) for member in self.members)
        return self._replace(max_depth=min(self.max_depth, num_nodes), max_nodes=num_nodes, members=members)


NO_DRAFT = DraftBudget(0, 0)


class Verdict(NamedTuple):
    """What verification decided: the accepted nodes from the root on, and the token the step ends with.

    `is_bonus` is true if the whole draft was kept, so that `next_token` came on top of it.
    """

    path: tuple[int, ...]
    next_token: int
    is_bonus: bool

    @property
    def num_accepted(self) -> int:
        return len(self.path)
