"""A draft model: a small language model that guesses under the target's parameters and the target's noise.

Or, for block verification, one that draws by noise of its own, and says from which probabilities. Runs the drafts of
all sequences together and keeps the model's cache; knows the runtime interface only.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from contextlib import ExitStack
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import BlockPool, OutOfBlocksError
from outrider.draft.base import Draft, Drafter
from outrider.draft.drawn import DrawnChain, DrawnTree
from outrider.draft.making import Chain, Comb, Growing, Memory, Part, Tree
from outrider.runtime.base import Runtime
from outrider.sequence import MAX_TOLD, MAX_TOLD_TOGETHER, Hindsight, Sequence
from outrider.tree import DraftBudget, TokenTree

AnyDraft = Chain | Comb | Tree | DrawnTree

# Rows of a forward that only catches up, of all sequences together.
MAX_PREFILL_ROWS = 512
# Of a text that has more to compute before its next guess, all but the last token is computed apart: forwards that
# nobody wants logits of come in few sizes, and others are slow the first time that there are so many rows.
MOST_UNSEEN = 16


class ModelDrafter(Drafter):
    """Drafts with a model of the target's vocabulary, for all sequences of a step together.

    Chains, or trees where a budget allows more than one child: a node's children are the draft model's best tokens
    under the noise of their position, and the tree is of the nodes that are likeliest to be accepted. Of a comb, whose
    siblings are not gone on from, a draft step costs what a chain's does. A tree that is drawn has a shape that is
    settled before.

    A text that it may not catch up with in one call gets no draft until it has, chunk by chunk.

    When its cache is full, it forgets the sequences that it was not asked about, longest unused first; one that still
    finds no room gets no draft.

    Args:
        runtime: the draft model; its rows need not be bitwise, since they cannot change the text.
        max_blocks: limit of its cache.
        vocab_size: the target's. Heads of one tokenizer may be padded differently: ids that one of the two lacks
            are not drafted.
        draws: for block verification: guesses are drawn from the model's distribution, which is given with them,
            instead of guessed under the target's noise.
    """

    name = "model"

    def __init__(self, runtime: Runtime, max_blocks: int, vocab_size: int, *, draws: bool = False) -> None:
        self.runtime = runtime
        self.vocab_size = vocab_size
        self.draws_in_order, self.makes_trees, self.looks_back = draws, not draws, not draws
        self.pool = BlockPool(max_blocks, runtime.resize)
        self._memories: dict[int, Memory] = {}  # by request, longest unused first

    def drawing(self) -> Self:
        """The same drafter on the same cache, but that it draws; while one of the two has texts, the other has none."""
        other = copy(self)
        other.draws_in_order, other.makes_trees, other.looks_back = True, False, False
        return other

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        with ExitStack() as reserved:
            asked = self._start(sequences, budgets, reserved)
            started = {index: each for index, each in asked.items() if not each.must_wait}
            hindsight: list[Hindsight] = []
            num_caught_up = self._catch_up_partly([each for each in asked.values() if each.must_wait], hindsight)
            num_caught_up += self._catch_up(list(started.values()), hindsight)
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
        probabilities: list[NDArray[np.float64] | None] = [None] * len(sequences)
        for index, each in started.items():
            trees[index], scores[index] = each.finish()
            if isinstance(each, DrawnChain | DrawnTree):
                probabilities[index] = np.stack(each.probabilities)
        return Draft(
            trees, scores, num_steps=num_steps, num_caught_up=num_caught_up, probabilities=probabilities,
            hindsight=tuple(hindsight),
        )  # fmt: skip

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
    ) -> dict[int, AnyDraft]:
        """Drafts by the index of their sequence, for those that can have one, with room for all they may become."""
        started: dict[int, AnyDraft] = {}
        asked = {sequence.request.request_id for sequence in sequences}
        for index, (sequence, budget) in enumerate(zip(sequences, budgets, strict=True)):
            if not budget.is_asking:
                continue
            request_id = sequence.request.request_id
            memory = self._memories.pop(request_id, None) or Memory(self.pool, sequence.request)
            self._memories[request_id] = memory
            memory.follow(sequence.token_ids)
            # A draft model may have a shorter context than the target: a text beyond it goes on without drafts.
            num_left = self.runtime.config.max_context - len(sequence.token_ids)
            growing = self._begin(sequence, budget, min(max(budget.limit, 1), num_left), memory)
            if self._can_compute(growing) and self._make_room(growing, asked, reserved):
                started[index] = growing
            else:
                self._forget(request_id)
        return started

    def _begin(self, sequence: Sequence, budget: DraftBudget, depth: int, memory: Memory) -> AnyDraft:
        """What is drawn is of a shape that is settled here; no comb, which is for what a policy knows of siblings."""
        if self.draws_in_order and budget.max_children > 1 and not budget.is_comb:
            return DrawnTree(sequence, budget, depth, memory, vocab_size=self.vocab_size)
        if self.draws_in_order:
            return DrawnChain(sequence, budget._replace(max_children=1), depth, memory, vocab_size=self.vocab_size)
        if budget.max_children == 1:
            return Chain(sequence, budget, depth, memory)
        return (Comb if budget.is_comb else Tree)(sequence, budget, depth, memory)

    def _can_compute(self, growing: Growing) -> bool:
        return growing.depth > 0 and max(growing.unseen()) < self.runtime.config.vocab_size

    def _make_room(self, growing: AnyDraft, asked: set[int], reserved: ExitStack) -> bool:
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

    def _catch_up(self, drafts: Sequences[Growing], hindsight: list[Hindsight]) -> int:
        """Compute what was not seen but for a few tokens; how many there were beyond the usual ones.

        Sequences share the forwards, so these are as full as may be.
        """
        num_caught_up = sum(each.num_behind for each in drafts)
        is_much = sum(each.num_unseen for each in drafts) > MAX_PREFILL_ROWS
        late = [each for each in drafts if is_much or each.num_unseen > MOST_UNSEEN]
        while any(each.num_unseen > 1 for each in late):
            parts: list[Part] = []
            num_left = MAX_PREFILL_ROWS
            for each in late:
                if token_ids := each.unseen()[:-1][:num_left]:
                    parts.append(each.reading(token_ids, self._most_told(drafts)))
                    num_left -= len(token_ids)
            self._read(late, parts, hindsight)
        return num_caught_up

    def _catch_up_partly(self, drafts: Sequences[Growing], hindsight: list[Hindsight]) -> int:
        """Compute what budgets allow of texts that get no draft yet, and keep it; how many tokens that was."""
        wanted = [each.num_to_read for each in drafts]
        num_caught_up = sum(wanted)
        while any(wanted):
            parts: list[Part] = []
            num_left = MAX_PREFILL_ROWS
            for number, each in enumerate(drafts):
                if token_ids := each.unseen()[: min(wanted[number], num_left)]:
                    parts.append(each.reading(token_ids, self._most_told(drafts)))
                    wanted[number] -= len(token_ids)
                    num_left -= len(token_ids)
            self._read(drafts, parts, hindsight)
        return num_caught_up

    def _most_told(self, drafts: Sequences[Growing]) -> int:
        """Places of each text to look back on, if all of them are read at once."""
        return min(MAX_TOLD, MAX_TOLD_TOGETHER // max(1, len(drafts))) if self.looks_back else 0

    def _read(self, drafts: Sequences[Growing], parts: list[Part], hindsight: list[Hindsight]) -> None:
        """Compute parts of texts, and note what would have been guessed in them."""
        places = [[len(part.memory.token_ids) + row for row in part.output_rows] for part in parts]
        logits = self._forward(parts)
        by_memory = {id(each.memory): each for each in drafts}
        first_row = 0
        for part, texts_places in zip(parts, places, strict=True):
            if texts_places:
                end_row = first_row + len(texts_places)
                each = by_memory[id(part.memory)]
                found = each.hindsight(texts_places, logits[first_row:end_row, : self.vocab_size])
                hindsight.append(Hindsight(self.name, each.sequence.request.request_id, *found))
                first_row = end_row

    def _forward(self, parts: list[Part]) -> NDArray[np.float32]:
        """Compute these rows after each memory's own tokens; the logits of the wanted ones."""
        logits = self.runtime.forward([part.rows() for part in parts]).logits
        for part in parts:
            part.memory.table.commit(tuple(range(part.num_kept)))
            part.memory.token_ids += part.token_ids[: part.num_kept]
        return logits
