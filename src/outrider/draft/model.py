"""A draft model: a small language model that guesses under the target's parameters and the target's noise.

Its cache follows the text: slots of rejected guesses are forgotten the next time it is asked, and whatever tokens it
has not seen (a prompt, the target's own tokens) are computed before it guesses on. A chain's guesses stay in the cache
until then. A tree's are computed again in each draft step, as far as a node descends from them, since a row sees all
slots before its own: a few rows more cost a draft model next to nothing. Knows the runtime interface only.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.cache.table import BlockPool, BlockTable, OutOfBlocksError
from outrider.draft.base import Draft, Drafter
from outrider.draft.growth import BestFirst
from outrider.request import Request
from outrider.runtime.base import Runtime, SequenceRows
from outrider.sequence import Sequence
from outrider.tree import ROOT, DraftBudget, TokenTree

# Rows of a forward that only catches up, of all sequences together.
MAX_PREFILL_ROWS = 512
# A chain kept whole leaves its last guess and the target's next token; any other chain leaves the next token alone.
NUM_USUALLY_UNSEEN = 2


class _Memory:
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


class _Part(NamedTuple):
    """One sequence's rows in a forward, of which the first `num_kept` stay in the cache."""

    memory: _Memory
    token_ids: list[int]
    num_kept: int
    output_rows: Sequences[int]
    parents: list[int] | None = None

    def rows(self) -> SequenceRows:
        table = self.memory.table
        return SequenceRows(self.token_ids, table.num_committed, table.blocks, self.output_rows, self.parents)


@dataclass(slots=True)
class _Growing:
    """A draft in the making."""

    sequence: Sequence
    budget: DraftBudget
    depth: int
    memory: _Memory

    @property
    def num_unseen(self) -> int:
        return len(self.sequence.token_ids) - len(self.memory.token_ids)

    @property
    def num_usually_unseen(self) -> int:
        """Tokens of the text that a draft of this budget may have left."""
        return NUM_USUALLY_UNSEEN if self.budget.max_children == 1 else self.depth + 1

    def unseen(self) -> list[int]:
        """Tokens of the text that the model has not computed."""
        return self.sequence.token_ids[len(self.memory.token_ids) :]

    def process(self, logits: NDArray[np.float32], path: Sequences[int]) -> NDArray[np.float32]:
        """Raises acceptance only: the target penalises and bans by its own books."""
        return self.memory.history.process(logits, path) if self.memory.history.is_needed else logits

    def noise_row(self, num_guesses: int) -> noise.Address:
        """The noise that the target will use after so many guesses."""
        request = self.sequence.request
        return noise.Address(request.seed, request.stream, len(self.sequence.token_ids) + num_guesses)


@dataclass(slots=True)
class _Chain(_Growing):
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

    def part(self) -> _Part:
        """What to compute for the next guess."""
        token_ids = self.guesses[-1:] if self.guesses else self.unseen()
        return _Part(self.memory, token_ids, len(token_ids), (len(token_ids) - 1,))

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


class _Tree(_Growing):
    """The likeliest nodes, each found among its parent's best guesses under the noise of its position."""

    def __init__(self, sequence: Sequence, budget: DraftBudget, depth: int, memory: _Memory) -> None:
        super().__init__(sequence, budget, depth, memory)
        self._growth = BestFirst(budget, depth)
        self._frontier = self._growth.frontier()

    @property
    def num_rows(self) -> int:
        return self.num_unseen + self.budget.max_nodes

    @property
    def is_growing(self) -> bool:
        return bool(self._frontier)

    def part(self) -> _Part:
        """The text's last tokens; afterwards the nodes to go on from, with those that they descend from."""
        if self._frontier == [ROOT]:
            token_ids = self.unseen()
            return _Part(self.memory, token_ids, len(token_ids), (len(token_ids) - 1,))
        known, needed = self._growth.known, set(self._frontier)
        for node in reversed(range(len(known))):
            if node in needed:
                needed.add(known.parents[node])
        nodes = sorted(needed - {ROOT})
        row_of = {ROOT: ROOT} | {node: row for row, node in enumerate(nodes)}
        parents = [row_of[known.parents[node]] for node in nodes]
        output_rows = [row_of[node] for node in self._frontier]
        return _Part(self.memory, [known.tokens[node] for node in nodes], 0, output_rows, parents)

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


class ModelDrafter(Drafter):
    """Drafts with a model of the target's vocabulary, for all sequences of a step together.

    Chains, or trees where a budget allows more than one child: a node's children are the draft model's best tokens
    under the noise of their position, and the tree is of the nodes that are likeliest to be accepted.

    When its cache is full, it forgets the sequences that it was not asked about, longest unused first; one that still
    finds no room gets no draft.

    Args:
        runtime: the draft model; its rows need not be bitwise, since they cannot change the text.
        max_blocks: limit of its cache.
        vocab_size: the target's. Heads of one tokenizer may be padded differently: ids that one of the two lacks
            are not drafted.
    """

    name = "model"

    def __init__(self, runtime: Runtime, max_blocks: int, vocab_size: int) -> None:
        self.runtime = runtime
        self.vocab_size = vocab_size
        self.pool = BlockPool(max_blocks, runtime.resize)
        self._memories: dict[int, _Memory] = {}  # by request, longest unused first

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        with ExitStack() as reserved:
            started = self._start(sequences, budgets, reserved)
            num_caught_up = self._catch_up(list(started.values()))
            num_steps = 0
            while growing := [each for each in started.values() if each.is_growing]:
                parts = [each.part() for each in growing]
                logits = self._forward(parts)
                first_row = 0
                for each, part in zip(growing, parts, strict=True):
                    end_row = first_row + len(part.output_rows)
                    each.grow(logits[first_row:end_row, : self.vocab_size])
                    first_row = end_row
                num_steps += 1
        trees = [TokenTree() for _ in sequences]
        scores: list[tuple[float, ...] | None] = [()] * len(sequences)
        for index, each in started.items():
            trees[index], scores[index] = each.finish()
        return Draft(trees, scores, num_steps=num_steps, num_caught_up=num_caught_up)

    def release(self, sequence: Sequence) -> None:
        self._forget(sequence.request.request_id)

    def memory(self) -> int:
        return sum(self.runtime.memory())

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.runtime.describe()}

    def check(self) -> None:
        self.pool.check(memory.table for memory in self._memories.values())

    def _start(
        self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget], reserved: ExitStack
    ) -> dict[int, _Chain | _Tree]:
        """Drafts by the index of their sequence, for those that can have one, with room for all they may become."""
        started: dict[int, _Chain | _Tree] = {}
        asked = {sequence.request.request_id for sequence in sequences}
        for index, (sequence, budget) in enumerate(zip(sequences, budgets, strict=True)):
            if budget.limit < 1:
                continue
            request_id = sequence.request.request_id
            memory = self._memories.pop(request_id, None) or _Memory(self.pool, sequence.request)
            self._memories[request_id] = memory
            memory.follow(sequence.token_ids)
            # A draft model may have a shorter context than the target: a text beyond it goes on without drafts.
            num_left = self.runtime.config.max_context - len(sequence.token_ids)
            kind = _Tree if budget.max_children > 1 else _Chain
            growing = kind(sequence, budget, min(budget.limit, num_left), memory)
            if self._can_compute(growing) and self._make_room(growing, asked, reserved):
                started[index] = growing
            else:
                self._forget(request_id)
        return started

    def _can_compute(self, growing: _Growing) -> bool:
        return growing.depth > 0 and max(growing.unseen()) < self.runtime.config.vocab_size

    def _make_room(self, growing: _Chain | _Tree, asked: set[int], reserved: ExitStack) -> bool:
        """Reserve slots for all rows of this round; whether there is room, before anything is computed in vain."""
        num_rows = growing.num_rows + self.runtime.min_rows - 1  # the last may need filling up
        while True:
            try:
                reserved.enter_context(growing.memory.table.reserve(num_rows))
            except OutOfBlocksError:
                unused = next((request_id for request_id in self._memories if request_id not in asked), None)
                if unused is None:
                    return False
                self._forget(unused)
            else:
                return True

    def _forget(self, request_id: int) -> None:
        memory = self._memories.pop(request_id, None)
        if memory is not None:
            memory.table.release()

    def _catch_up(self, drafts: Sequences[_Growing]) -> int:
        """Compute what was not seen until one forward can hold the rest; tokens to compute beyond the usual few.

        Sequences share the forwards, so these are as full as may be.
        """
        num_caught_up = sum(max(0, each.num_unseen - each.num_usually_unseen) for each in drafts)
        while sum(each.num_unseen for each in drafts) > MAX_PREFILL_ROWS:
            parts: list[_Part] = []
            num_left = MAX_PREFILL_ROWS
            for each in drafts:
                if token_ids := each.unseen()[:-1][:num_left]:
                    parts.append(_Part(each.memory, token_ids, len(token_ids), ()))
                    num_left -= len(token_ids)
            if not parts:  # as many sequences as that, each with its last token left
                break
            self._forward(parts)
        return num_caught_up

    def _forward(self, parts: list[_Part]) -> NDArray[np.float32]:
        """Compute these rows after each memory's own tokens; the logits of the wanted ones."""
        logits = self.runtime.forward([part.rows() for part in parts]).logits
        for part in parts:
            part.memory.table.commit(tuple(range(part.num_kept)))
            part.memory.token_ids += part.token_ids[: part.num_kept]
        return logits
