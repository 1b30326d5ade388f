"""A draft model's drafts in the making, chains, combs or trees of guesses, and what its cache holds.

The cache follows the text: slots of rejected guesses are forgotten the next time it is asked, and whatever tokens it
has not seen (a prompt, the target's own tokens) are computed before it guesses on. A chain's guesses stay in the cache
until then. A tree's are computed again in each draft step, as far as a node descends from them, since a row sees all
slots before its own: a few rows more cost a draft model next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.cache.table import BlockPool, BlockTable
from outrider.draft.growth import BestFirst
from outrider.request import Request
from outrider.runtime.base import SequenceRows
from outrider.sequence import Sequence
from outrider.tree import ROOT, DraftBudget, TokenTree

# A chain kept whole leaves its last guess and the target's next token; any other chain leaves the next token alone.
NUM_USUALLY_UNSEEN = 2


class Memory:
    """What the draft model's cache holds of one sequence: the tokens in its slots, the text's first, then guesses."""

    def __init__(self, pool: BlockPool, request: Request) -> None:
        self.table = BlockTable(pool)
        self.history = sampling.History(request)
        self.token_ids: list[int] = []
        self.num_of_text = 0  # slots known to hold the text's own tokens; a text only grows

    def follow(self, text: list[int]) -> None:
        """Forget the guesses that the text did not take, and its last token, whose logits are wanted next."""
        last = min(len(self.token_ids), len(text) - 1)
        while self.num_of_text < last and self.token_ids[self.num_of_text] == text[self.num_of_text]:
            self.num_of_text += 1
        del self.token_ids[self.num_of_text :]
        self.table.release(self.num_of_text)
        self.history.follow(text)


class Part(NamedTuple):
    """One sequence's rows in a forward, of which the first `num_kept` stay in the cache."""

    memory: Memory
    token_ids: list[int]
    num_kept: int
    output_rows: Sequences[int]
    parents: list[int] | None = None

    def rows(self) -> SequenceRows:
        table = self.memory.table
        return SequenceRows(self.token_ids, table.num_committed, table.blocks, self.output_rows, self.parents)


@dataclass(slots=True)
class Growing:
    """A draft in the making."""

    sequence: Sequence
    budget: DraftBudget
    depth: int
    memory: Memory

    @property
    def num_unseen(self) -> int:
        return len(self.sequence.token_ids) - len(self.memory.token_ids)

    @property
    def num_usually_unseen(self) -> int:
        """Tokens of the text that a draft of this budget may have left."""
        return NUM_USUALLY_UNSEEN if self.budget.max_children == 1 else self.depth + 1

    @property
    def num_behind(self) -> int:
        """Tokens of the text to compute beyond these."""
        return max(0, self.num_unseen - self.num_usually_unseen)

    @property
    def must_wait(self) -> bool:
        """Whether the budget leaves guessing to a later call, since there is too much to catch up on, or altogether."""
        return self.budget.limit < 1 or self._is_far_behind

    @property
    def _is_far_behind(self) -> bool:
        return self.budget.max_catch_up is not None and self.num_behind > self.budget.max_catch_up

    @property
    def num_to_read(self) -> int:
        """Tokens to compute where no guess is asked for: all but the last, which a guess is made from, or a part."""
        return max(0, self.budget.max_catch_up or 0) if self._is_far_behind else max(0, self.num_unseen - 1)

    def reading(self, token_ids: list[int], most_told: int) -> Part:
        """The text's next tokens, after which of them it is to be seen what would have been guessed."""
        first, text = len(self.memory.token_ids), self.sequence.token_ids
        num_told = len(text) - 1  # places that another token of the text comes after
        begin = max(len(self.sequence.request.prompt_token_ids) - 1, num_told - most_told, first)
        end = min(num_told, first + len(token_ids))
        return Part(self.memory, token_ids, len(token_ids), range(begin - first, end - first))

    def hindsight(
        self, places: Sequences[int], logits: NDArray[np.float32]
    ) -> tuple[tuple[bool, ...], tuple[float, ...]]:
        """Whether the token after each place would have been guessed, and how surely.

        Penalties are those of later, which are about those of then, and left out.
        """
        request, text = self.sequence.request, self.sequence.token_ids
        found = [
            sampling.guess(row, request.params, noise.Address(request.seed, request.stream, place + 1))
            for place, row in zip(places, logits, strict=True)
        ]
        outcomes = tuple(token == text[place + 1] for place, (token, _) in zip(places, found, strict=True))
        return outcomes, tuple(score for _, score in found)

    def unseen(self) -> list[int]:
        """Tokens of the text that the model has not computed."""
        return self.sequence.token_ids[len(self.memory.token_ids) :]

    def part_of(self, tree: TokenTree, frontier: Sequences[int]) -> Part:
        """What to compute to go on from these nodes of one depth: the text's last tokens where it is the root.

        Else it is the nodes with all that they descend from, of which the cache keeps nothing.
        """
        if list(frontier) == [ROOT]:
            token_ids = self.unseen()
            return Part(self.memory, token_ids, len(token_ids), (len(token_ids) - 1,))
        needed = set(frontier)
        for node in reversed(range(len(tree))):
            if node in needed:
                needed.add(tree.parents[node])
        nodes = sorted(needed - {ROOT})
        row_of = {ROOT: ROOT} | {node: row for row, node in enumerate(nodes)}
        parents = [row_of[tree.parents[node]] for node in nodes]
        output_rows = [row_of[node] for node in frontier]
        return Part(self.memory, [tree.tokens[node] for node in nodes], 0, output_rows, parents)

    def process(self, logits: NDArray[np.float32], path: Sequences[int]) -> NDArray[np.float32]:
        """Raises acceptance only: the target penalises and bans by its own books."""
        return self.memory.history.process(logits, path) if self.memory.history.is_needed else logits

    def noise_row(self, num_guesses: int) -> noise.Address:
        """The noise that the target will use after so many guesses."""
        request = self.sequence.request
        return noise.Address(request.seed, request.stream, len(self.sequence.token_ids) + num_guesses)


@dataclass(slots=True)
class Chain(Growing):
    """`survival` is the last guess's."""

    guesses: list[int] = field(default_factory=list[int])
    scores: list[float] = field(default_factory=list[float])
    survival: float = 1.0

    @property
    def num_rows(self) -> int:
        """Of all draft steps together."""
        return self.num_unseen + self.depth - 1

    @property
    def is_growing(self) -> bool:
        if not self.guesses:
            return True
        return len(self.guesses) < self.depth and self.budget.worth.pays_to_go_on(self.survival)

    def part(self) -> Part:
        """What to compute for the next guess."""
        token_ids = self.guesses[-1:] if self.guesses else self.unseen()
        return Part(self.memory, token_ids, len(token_ids), (len(token_ids) - 1,))

    def grow(self, logits: NDArray[np.float32]) -> None:
        """Add the draft model's next token, under the noise that the target will use there."""
        row = self.noise_row(len(self.guesses))
        token, score = sampling.guess(self.process(logits[0], self.guesses), self.sequence.request.params, row)
        self.guesses.append(token)
        self.scores.append(score)
        self.survival *= self.budget.worth.chance(score)

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        """The tree: a last guess that turned out not to pay for its row is left out, the first one never is.

        Without the first there would be no verdict, and nothing to learn from that the price was wrong.
        """
        is_dropped = len(self.guesses) > 1 and self.survival < self.budget.worth.node_price
        num_kept = len(self.guesses) - is_dropped
        return TokenTree.chain(tuple(self.guesses[:num_kept])), tuple(self.scores[:num_kept])


class Comb(Growing):
    """A chain of best guesses, each with the next best beside it, which are not gone on from.

    So its draft steps compute what a chain's do, and leave it in the cache. Where the target takes the one beside, the
    draft ends there.
    """

    def __init__(self, sequence: Sequence, budget: DraftBudget, depth: int, memory: Memory) -> None:
        super().__init__(sequence, budget, depth, memory)
        self._growth = BestFirst(budget, depth)
        self._guesses: list[int] = []
        self._last = ROOT  # the chain's last node

    @property
    def num_usually_unseen(self) -> int:
        """Tokens of the text that a draft may have left: never more than a chain's."""
        return NUM_USUALLY_UNSEEN

    @property
    def num_rows(self) -> int:
        return self.num_unseen + self.depth - 1

    @property
    def is_growing(self) -> bool:
        return self._last == ROOT or self._growth.goes_on_from(self._last)

    def part(self) -> Part:
        """What to compute for the next guesses."""
        token_ids = self._guesses[-1:] or self.unseen()
        return Part(self.memory, token_ids, len(token_ids), (len(token_ids) - 1,))

    def grow(self, logits: NDArray[np.float32]) -> None:
        """Add the best guesses of the next place."""
        params, row = self.sequence.request.params, self.noise_row(len(self._guesses))
        processed = self.process(logits[0], self._guesses)
        found = sampling.guesses(processed, params, row, self.budget.max_children)
        before, self._last = self._last, len(self._growth.known)
        self._growth.add([(before, found)])
        self._guesses.append(found[0].token_id)

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        return self._growth.finish()


class Tree(Growing):
    """The likeliest nodes, each found among its parent's best guesses under the noise of its position."""

    def __init__(self, sequence: Sequence, budget: DraftBudget, depth: int, memory: Memory) -> None:
        super().__init__(sequence, budget, depth, memory)
        self._growth = BestFirst(budget, depth)
        self._frontier = self._growth.frontier()

    @property
    def num_rows(self) -> int:
        return self.num_unseen + self.budget.max_nodes

    @property
    def is_growing(self) -> bool:
        return bool(self._frontier)

    def part(self) -> Part:
        """The text's last tokens; afterwards the nodes to go on from, with those that they descend from."""
        return self.part_of(self._growth.known, self._frontier)

    def grow(self, logits: NDArray[np.float32]) -> None:
        """Add the best guesses after each node that was computed."""
        params = self.sequence.request.params
        grown: list[tuple[int, list[sampling.Guess]]] = []
        for node, row in zip(self._frontier, logits, strict=True):
            path = self._growth.known.tokens_to(node)
            processed = self.process(row, path)
            grown.append(
                (node, sampling.guesses(processed, params, self.noise_row(len(path)), self.budget.max_children))
            )
        self._growth.add(grown)
        self._frontier = sorted(self._growth.frontier())

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        return self._growth.finish()
