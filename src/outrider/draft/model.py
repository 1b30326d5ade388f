"""A draft model: a small language model that guesses under the target's parameters and the target's noise.

Its cache follows the text: slots of rejected guesses are forgotten the next time it is asked, and whatever tokens it
has not seen (a prompt, the target's own tokens) are computed before it guesses on. Knows the runtime interface only.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.cache.table import BlockPool, BlockTable
from outrider.draft.base import Draft, Drafter
from outrider.runtime.base import Runtime, SequenceRows
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree

PREFILL_CHUNK = 256


class _Memory:
    """What the draft model's cache holds of one sequence: the tokens in its slots, the text's first, then guesses."""

    def __init__(self, pool: BlockPool) -> None:
        self.table = BlockTable(pool)
        self.token_ids: list[int] = []
        self.num_of_text = 0  # slots known to hold the text's own tokens; a text only grows

    def follow(self, text: list[int]) -> None:
        """Forget the guesses that the text did not take, and its last token, whose logits are wanted next."""
        last = min(len(self.token_ids), len(text) - 1)
        while self.num_of_text < last and self.token_ids[self.num_of_text] == text[self.num_of_text]:
            self.num_of_text += 1
        del self.token_ids[self.num_of_text :]
        self.table.release(self.num_of_text)


class _Chain(NamedTuple):
    """A draft in the making."""

    sequence: Sequence
    depth: int
    memory: _Memory
    guesses: list[int]

    def unseen(self) -> list[int]:
        """Tokens of the text and its guesses that the model has not computed."""
        num_seen, num_text = len(self.memory.token_ids), len(self.sequence.token_ids)
        return self.guesses[num_seen - num_text :] if num_seen >= num_text else self.sequence.token_ids[num_seen:]

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The draft model's next token, under the noise that the target will use there."""
        request = self.sequence.request
        position = len(self.sequence.token_ids) + len(self.guesses)
        return sampling.choose(logits, request.params, noise.Address(request.seed, request.stream, position))


class ModelDrafter(Drafter):
    """Drafts chains with a model of the target's vocabulary, for all sequences of a step together.

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
        self._memories: dict[int, _Memory] = {}

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        chains = [self._start(*pair) for pair in zip(sequences, budgets, strict=True)]
        while growing := [chain for chain in chains if len(chain.guesses) < chain.depth]:
            logits = self._forward([(chain.memory, chain.unseen()) for chain in growing], wanted=True)
            for chain, row in zip(growing, logits, strict=True):
                chain.guesses.append(chain.choose(row[: self.vocab_size]))
        return Draft([TokenTree.chain(tuple(chain.guesses)) for chain in chains])

    def release(self, sequence: Sequence) -> None:
        memory = self._memories.pop(sequence.request.request_id, None)
        if memory is not None:
            memory.table.release()

    def memory(self) -> int:
        return sum(self.runtime.memory())

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.runtime.describe()}

    def check(self) -> None:
        self.pool.check(memory.table for memory in self._memories.values())

    def _start(self, sequence: Sequence, budget: DraftBudget) -> _Chain:
        """A chain whose model is less than a chunk behind; nothing is computed for a sequence without a budget."""
        memory = self._memories.setdefault(sequence.request.request_id, _Memory(self.pool))
        # A draft model may have a shorter context than the target: a text beyond it goes on without drafts.
        num_left = self.runtime.config.max_context - len(sequence.token_ids)
        chain = _Chain(sequence, min(budget.limit, num_left), memory, [])
        if chain.depth > 0:
            memory.follow(sequence.token_ids)
            if max(chain.unseen()) >= self.runtime.config.vocab_size:
                return chain._replace(depth=0)
            while len(unseen := chain.unseen()) > PREFILL_CHUNK:
                self._forward([(memory, unseen[:PREFILL_CHUNK])], wanted=False)
        return chain

    def _forward(self, parts: list[tuple[_Memory, list[int]]], *, wanted: bool) -> NDArray[np.float32]:
        """Compute these tokens after each memory's own; the logits of each part's last, if wanted."""
        with ExitStack() as reserved:
            batch: list[SequenceRows] = []
            for memory, token_ids in parts:
                num_rows = len(token_ids)
                reserved.enter_context(memory.table.reserve(max(num_rows, self.runtime.min_rows)))
                output_rows = (num_rows - 1,) if wanted else ()
                batch.append(SequenceRows(token_ids, memory.table.num_committed, memory.table.blocks, output_rows))
            logits = self.runtime.forward(batch).logits
            for memory, token_ids in parts:
                memory.table.commit(tuple(range(len(token_ids))))
                memory.token_ids += token_ids
        return logits
