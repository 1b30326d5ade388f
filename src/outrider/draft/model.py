"""A draft model: a small language model that guesses under the target's parameters and the target's noise.

Or, for block verification, one that draws by noise of its own, and says from which probabilities.

Its cache follows the text: slots of rejected guesses are forgotten the next time it is asked, and whatever tokens it
has not seen (a prompt, the target's own tokens) are computed before it guesses on. Knows the runtime interface only.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.cache.table import BlockPool, BlockTable, OutOfBlocksError
from outrider.draft.base import Draft, Drafter
from outrider.request import Request
from outrider.runtime.base import Runtime, SequenceRows
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree

# Rows of a forward that only catches up, of all sequences together.
MAX_PREFILL_ROWS = 512
# A draft kept whole leaves its last guess and the target's next token; any other draft leaves the next token alone.
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


@dataclass(slots=True)
class _Chain:
    """A draft in the making. `survival` is the last guess's."""

    sequence: Sequence
    budget: DraftBudget
    depth: int
    memory: _Memory
    guesses: list[int] = field(default_factory=list[int])
    scores: list[float] = field(default_factory=list[float])
    survival: float = 1.0

    @property
    def is_growing(self) -> bool:
        if not self.guesses:
            return True
        return len(self.guesses) < self.depth and self.budget.worth.pays_to_go_on(self.survival)

    @property
    def num_unseen(self) -> int:
        return len(self.sequence.token_ids) + len(self.guesses) - len(self.memory.token_ids)

    def unseen(self) -> list[int]:
        """Tokens of the text and its guesses that the model has not computed."""
        num_seen, num_text = len(self.memory.token_ids), len(self.sequence.token_ids)
        return self.guesses[num_seen - num_text :] if num_seen >= num_text else self.sequence.token_ids[num_seen:]

    def grow(self, logits: NDArray[np.float32]) -> None:
        """Add the draft model's next token, under the noise that the target will use there."""
        request = self.sequence.request
        position = len(self.sequence.token_ids) + len(self.guesses)
        if self.memory.history.is_needed:
            # Raises acceptance only: the target penalises and bans by its own books.
            logits = self.memory.history.process(logits, self.guesses)
        row = noise.Address(request.seed, request.stream, position)
        token, score = sampling.guess(logits, request.params, row)
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


@dataclass(slots=True)
class _DrawnChain(_Chain):
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
        if self.memory.history.is_needed:
            logits = self.memory.history.process(logits, self.guesses)
        root_position, path = len(self.sequence.token_ids) - 1, (0,) * (len(self.guesses) + 1)
        row = noise.Address(request.seed, request.stream, root_position, "proposal", path)
        probabilities = np.zeros(self.vocab_size)
        probabilities[: len(logits)] = sampling.probabilities(logits, request.params)
        self.probabilities.append(probabilities)
        self.guesses.append(sampling.choose(logits, request.params, row))
        self.scores.append(sampling.sureness(logits, request.params))
        self.survival *= self.budget.worth.chance(self.scores[-1])

    def finish(self) -> tuple[TokenTree, tuple[float, ...]]:
        """The tree, of all that was drawn."""
        return TokenTree.chain(tuple(self.guesses)), tuple(self.scores)


class ModelDrafter(Drafter):
    """Drafts chains with a model of the target's vocabulary, for all sequences of a step together.

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
        self.draws_in_order = draws
        self.pool = BlockPool(max_blocks, runtime.resize)
        self._memories: dict[int, _Memory] = {}  # by request, longest unused first

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        with ExitStack() as reserved:
            chains = self._start(sequences, budgets, reserved)
            num_caught_up = self._catch_up(list(chains.values()))
            num_steps = 0
            while growing := [chain for chain in chains.values() if chain.is_growing]:
                logits = self._forward([(chain.memory, chain.unseen()) for chain in growing], wanted=True)
                for chain, row in zip(growing, logits, strict=True):
                    chain.grow(row[: self.vocab_size])
                num_steps += 1
        trees = [TokenTree() for _ in sequences]
        scores: list[tuple[float, ...] | None] = [()] * len(sequences)
        probabilities: list[NDArray[np.float64] | None] = [None] * len(sequences)
        for index, chain in chains.items():
            trees[index], scores[index] = chain.finish()
            if isinstance(chain, _DrawnChain):
                probabilities[index] = np.stack(chain.probabilities)
        return Draft(trees, scores, num_steps=num_steps, num_caught_up=num_caught_up, probabilities=probabilities)

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
    ) -> dict[int, _Chain]:
        """Chains by the index of their sequence, for those that can have one, with room for all they may become."""
        chains: dict[int, _Chain] = {}
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
            parts = (sequence, budget, min(budget.limit, num_left), memory)
            chain = _DrawnChain(*parts, vocab_size=self.vocab_size) if self.draws_in_order else _Chain(*parts)
            if self._can_compute(chain) and self._make_room(chain, asked, reserved):
                chains[index] = chain
            else:
                self._forget(request_id)
        return chains

    def _can_compute(self, chain: _Chain) -> bool:
        return chain.depth > 0 and max(chain.unseen()) < self.runtime.config.vocab_size

    def _make_room(self, chain: _Chain, asked: set[int], reserved: ExitStack) -> bool:
        """Reserve slots for all rows of this round; whether there is room, before anything is computed in vain."""
        num_rows = chain.num_unseen + chain.depth - 1 + self.runtime.min_rows - 1  # the last may need filling up
        while True:
            try:
                reserved.enter_context(chain.memory.table.reserve(num_rows))
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

    def _catch_up(self, chains: list[_Chain]) -> int:
        """Compute what was not seen until one forward can hold the rest; tokens to compute beyond the usual few.

        Sequences share the forwards, so these are as full as may be.
        """
        num_caught_up = sum(max(0, chain.num_unseen - NUM_USUALLY_UNSEEN) for chain in chains)
        while sum(chain.num_unseen for chain in chains) > MAX_PREFILL_ROWS:
            parts: list[tuple[_Memory, list[int]]] = []
            num_left = MAX_PREFILL_ROWS
            for chain in chains:
                if token_ids := chain.unseen()[:-1][:num_left]:
                    parts.append((chain.memory, token_ids))
                    num_left -= len(token_ids)
            if not parts:  # as many sequences as that, each with its last token left
                break
            self._forward(parts, wanted=False)
        return num_caught_up

    def _forward(self, parts: list[tuple[_Memory, list[int]]], *, wanted: bool) -> NDArray[np.float32]:
        """Compute these tokens after each memory's own; the logits of each part's last, if wanted."""
        batch: list[SequenceRows] = []
        for memory, token_ids in parts:
            output_rows = (len(token_ids) - 1,) if wanted else ()
            batch.append(SequenceRows(token_ids, memory.table.num_committed, memory.table.blocks, output_rows))
        logits = self.runtime.forward(batch).logits
        for memory, token_ids in parts:
            memory.table.commit(tuple(range(len(token_ids))))
            memory.token_ids += token_ids
        return logits
