"""A model small enough to reason about: its logits are a function of the tokens that a row may see, nothing else.

It keeps its cache by slots exactly as the books say, and poisons what it should not read, so that any mistake in
blocks, positions, parents, commits or moves changes the text. If it knows the books' pool, it poisons what is free too,
and lets nobody write a block that several hold.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from outrider.cache.table import BLOCK_SIZE, BlockPool, num_blocks_for
from outrider.draft.base import Draft, Drafter
from outrider.engine.config import EngineConfig
from outrider.engine.engine import Engine, Parts
from outrider.engine.llm import VERIFIERS
from outrider.model.config import ModelConfig, RopeConfig
from outrider.policy.fixed import FixedPolicy
from outrider.request import Depth, Request, SamplingParams
from outrider.runtime.base import MemoryUse, ModelOutput, Runtime, RuntimeOptions, SequenceRows
from outrider.sequence import Sequence as TextSequence
from outrider.tree import DraftBudget, TokenTree

VOCAB_SIZE = 23
UNWRITTEN = -1


class FakeRuntime(Runtime):
    """Logits by hashing the last `memory` visible tokens: a text with loops and surprises."""

    name = "fake"
    exactness = "bitwise"

    def __init__(
        self,
        *,
        salt: int = 0,
        order: int = 3,
        min_rows: int = 2,
        end_token_ids: tuple[int, ...] = (),
        max_context: int = 4096,
    ) -> None:
        self.config = ModelConfig(
            family="llama", vocab_size=VOCAB_SIZE, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1,
            num_kv_heads=1, head_dim=8, rms_norm_eps=1e-6, rope=RopeConfig(theta=1e4, kind="default", parameters={}),
            max_context=max_context, tie_word_embeddings=True, qkv_bias=False, output_bias=False, mlp_bias=False,
            qk_norm=False, eos_token_ids=end_token_ids, dtype="float32",
        )  # fmt: skip
        self.options = RuntimeOptions(dtype="float32", num_threads=1)
        self.min_rows = min_rows
        self.num_blocks = 0
        self.salt, self.order = salt, order
        self.slots = np.zeros(0, dtype=np.int64)
        self.batches: list[list[SequenceRows]] = []
        self.pool: BlockPool | None = None
        self.returned = np.zeros((0, VOCAB_SIZE), np.float32)

    @property
    def num_rows(self) -> int:
        """Tokens computed so far, padding not counted."""
        return sum(len(rows.token_ids) for batch in self.batches for rows in batch)

    def forward(self, batch: Sequence[SequenceRows]) -> ModelOutput:
        self.batches.append(list(batch))
        if self.pool:
            free = [block for block in range(self.pool.num_blocks) if not self.pool.num_holders(block)]
            self.slots.reshape(-1, BLOCK_SIZE)[free] = UNWRITTEN
        assert all(rows.num_past + max(rows.depths()) < self.config.max_context for rows in batch)
        logits = [row for rows in batch for row in self._sequence(rows)]
        self.returned.fill(np.nan)  # what the last forward returned was valid until now
        self.returned = np.stack(logits) if logits else np.zeros((0, VOCAB_SIZE), np.float32)
        return ModelOutput(self.returned, self.computed_rows([len(rows.token_ids) for rows in batch]))

    def _sequence(self, rows: SequenceRows) -> list[np.ndarray]:
        num_slots = rows.num_past + max(len(rows.token_ids), self.min_rows)
        # padding rows write garbage, and what stands after the last one in its block is cleared
        slots = range(rows.num_past, BLOCK_SIZE * num_blocks_for(num_slots))
        self._write(rows.blocks, slots, [*rows.token_ids, *[UNWRITTEN] * (len(slots) - len(rows.token_ids))])
        past = [int(self.slots[self._slot(rows.blocks, slot)]) for slot in range(rows.num_past)]
        return [self.logits([*past, *self._visible(rows, row)]) for row in rows.output_rows]

    def _visible(self, rows: SequenceRows, row: int) -> list[int]:
        parents = rows.parents or range(-1, len(rows.token_ids) - 1)
        path: list[int] = []
        while row != -1:
            path.append(rows.token_ids[row])
            row = parents[row]
        return path[::-1]

    def logits(self, context: list[int]) -> np.ndarray:
        assert UNWRITTEN not in context, "a row sees a slot that nothing wrote"
        generator = random.Random(hash((self.salt, len(context) % 3, *context[-self.order :])))
        return np.array([generator.gauss(0, 2) for _ in range(VOCAB_SIZE)], dtype=np.float32)

    def _write(self, blocks: Sequence[int], slots: Sequence[int], token_ids: Sequence[int]) -> None:
        if self.pool:
            written = {blocks[slot // BLOCK_SIZE] for slot in slots}
            assert all(self.pool.num_holders(block) == 1 for block in written), "a shared block is written"
        self.slots[[self._slot(blocks, slot) for slot in slots]] = token_ids

    def _slot(self, blocks: Sequence[int], slot: int) -> int:
        return blocks[slot // BLOCK_SIZE] * BLOCK_SIZE + slot % BLOCK_SIZE

    def resize(self, num_blocks: int) -> None:
        grown = np.full(num_blocks * BLOCK_SIZE, UNWRITTEN)
        grown[: len(self.slots)] = self.slots
        self.slots, self.num_blocks = grown, num_blocks

    def move(self, blocks: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        for start, end in moves:
            self._write(blocks, [end], [int(self.slots[self._slot(blocks, start)])])

    def memory(self) -> MemoryUse:
        return MemoryUse(0, self.slots.nbytes)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


class TreeDrafter(Drafter):
    """Random trees, right as often as the target's own text happens to be guessed."""

    name = "tree"

    def __init__(self, seed: int, guess: Callable[[list[int]], int]) -> None:
        self.random = random.Random(seed)
        self.guess = guess

    def propose(self, sequences: Sequence[TextSequence], budgets: Sequence[DraftBudget]) -> Draft:
        return Draft([self._tree(*pair) for pair in zip(sequences, budgets, strict=True)])

    def _tree(self, sequence: TextSequence, budget: DraftBudget) -> TokenTree:
        tokens: list[int] = []
        parents: list[int] = []
        texts: list[list[int]] = []
        while len(tokens) < budget.max_nodes:
            parent = self.random.randrange(-1, len(tokens))
            tree = TokenTree(tuple(tokens), tuple(parents))
            if parent >= 0 and tree.depths()[parent] >= budget.max_depth:
                continue
            text = sequence.token_ids if parent < 0 else texts[parent]
            token = self.guess(text) if self.random.random() < 0.7 else self.random.randrange(VOCAB_SIZE)
            tokens.append(token)
            parents.append(parent)
            texts.append([*text, token])
        return TokenTree(tuple(tokens), tuple(parents))


def make_engine(
    target: FakeRuntime, drafter: Drafter, *, clock: Callable[[], float] = time.perf_counter, **config: Any
) -> Engine:
    """Prompts share nothing with chunks of 16, as a chunk must be whole blocks; they do with 32."""
    asked = EngineConfig(**{"prefill_chunk": 16, "max_cache_tokens": 4096, **config})
    parts = Parts(
        target=target,
        drafter=drafter,
        verifier=VERIFIERS[asked.verify],
        policy=FixedPolicy(),
        tokenizer=None,
        clock=clock,
    )
    engine = Engine(parts, asked)
    target.pool = engine.pool
    return engine


def request(index: int, prompt: Sequence[int], *, depth: Depth = 4, seed: int = 7, **params: Any) -> Request:
    sampling_params = SamplingParams(**params)
    return Request(
        request_id=index,
        prompt_token_ids=tuple(prompt),
        params=sampling_params,
        seed=seed,
        depth=depth,
        end_token_ids=frozenset(sampling_params.stop_token_ids),
    )


def run(engine: Engine, requests: Sequence[Request]) -> list[TextSequence]:
    """Everything finished, invariants checked after every step."""
    sequences = [engine.add(request_) for request_ in requests]
    while not engine.is_idle:
        engine.step()
        engine.check()
    assert_nothing_is_held(engine)
    return sequences


def assert_nothing_is_held(engine: Engine) -> None:
    """But for prompts that are kept for others."""
    assert engine.pool.num_free + engine.books.index.num_idle_blocks == engine.pool.num_blocks


def plain_text(runtime: FakeRuntime, request_: Request) -> list[int]:
    """Decoding as a first-year student writes it: no cache, no batch, no draft, nothing remembered."""
    from outrider import noise, sampling

    text = list(request_.prompt_token_ids)
    for _ in range(request_.params.max_tokens):
        history = sampling.History(request_)
        history.follow(text)
        logits = runtime.logits(text)
        row = noise.Address(request_.seed, request_.stream, len(text))
        processed = history.process(logits, ()) if history.is_needed else logits
        text.append(sampling.choose(processed, request_.params, row))
        if text[-1] in request_.end_token_ids:
            break
    return text[len(request_.prompt_token_ids) :]
