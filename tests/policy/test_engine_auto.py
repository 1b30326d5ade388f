"""Through the real loop, on a clock that forwards and drafts advance: the text is the target's, the speed no worse."""

from __future__ import annotations

import dataclasses
import random

import pytest

from outrider.cache.table import BLOCK_SIZE
from outrider.draft.base import Draft, Drafter
from outrider.draft.model import ModelDrafter
from outrider.engine.config import EngineConfig
from outrider.engine.engine import Engine, Parts
from outrider.policy.base import Policy
from outrider.policy.cost import StepCosts
from outrider.policy.fixed import FixedPolicy
from outrider.policy.marginal import AutoPolicy
from outrider.tree import TokenTree
from outrider.verify.coupled import CoupledVerifier
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, plain_text, request, run


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def row_seconds(rows: int) -> float:
    return 1 + 0.02 * (rows - 1)


class TimedRuntime(FakeRuntime):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, batch):
        self.clock.now += row_seconds(self.computed_rows([len(rows.token_ids) for rows in batch]))
        return super().forward(batch)


class TimedDrafter(Drafter):
    """Guesses the target's own greedy token this often, and takes its time."""

    name = "timed"

    def __init__(self, clock: Clock, agreement: float, step: float) -> None:
        self.clock, self.agreement, self.step = clock, agreement, step
        self.random, self.model = random.Random(5), FakeRuntime()

    def propose(self, sequences, budgets) -> Draft:
        self.clock.now += self.step * max(budget.limit for budget in budgets)
        return Draft(
            [self._chain(list(pair[0].token_ids), pair[1].limit) for pair in zip(sequences, budgets, strict=True)]
        )

    def _chain(self, text: list[int], depth: int) -> TokenTree:
        guesses: list[int] = []
        for _ in range(depth):
            right = int(self.model.logits([*text, *guesses]).argmax())
            guesses.append(right if self.random.random() < self.agreement else (right + 1) % VOCAB_SIZE)
        return TokenTree.chain(tuple(guesses))


def decode(agreement: float, step: float, policy: Policy | None = None, *, num_texts: int = 1):
    clock = Clock()
    target = TimedRuntime(clock)
    if policy is None:
        profile = [(rows, row_seconds(rows)) for rows in (2, 9, 33)]
        policy = AutoPolicy(StepCosts(profile, target.computed_rows, {"timed": None}), ("timed",))
    drafter = TimedDrafter(clock, agreement, step)
    parts = Parts(
        target=target, drafter=drafter, verifier=CoupledVerifier(), policy=policy, tokenizer=None, clock=clock
    )
    config = EngineConfig(prefill_chunk=BLOCK_SIZE, max_cache_tokens=4096, draft_deadline=1e9)
    engine = Engine(parts, config)
    target.pool = engine.pool
    sequences = run(
        engine, [request(index, [1, 2, index + 3], depth="auto", max_tokens=200) for index in range(num_texts)]
    )
    seconds = max(sequence.stats.decode_seconds for sequence in sequences)
    return [sequence.output_token_ids for sequence in sequences], seconds, sequences


@pytest.mark.parametrize("num_texts", [1, 3])
@pytest.mark.parametrize(("agreement", "step"), [(0.9, 0.1), (0.6, 0.02), (0.0, 0.1), (0.0, 2.0), (0.9, 2.0)])
def test_the_text_is_the_targets_and_is_there_as_soon_as_plainly(agreement, step, num_texts):
    texts, seconds, _ = decode(agreement, step, num_texts=num_texts)
    plain_texts, plain_seconds, _ = decode(agreement, step, FixedPolicy(0), num_texts=num_texts)
    assert texts == plain_texts
    assert seconds <= 1.03 * plain_seconds  # of 200 tokens, the first tries included


def test_a_good_drafter_makes_it_much_faster_and_the_results_say_so():
    _, seconds, [sequence] = decode(0.9, 0.05)
    _, plain_seconds, _ = decode(0.9, 0.05, FixedPolicy(0))
    assert seconds <= 0.45 * plain_seconds
    assert sequence.decisions[0].depth > 0
    assert sequence.decisions[0].source == "timed"


class UnsureRuntime(FakeRuntime):
    """A draft model that is often wrong at first, and then right at the second guess; a step takes its time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(min_rows=1)
        self.clock, self.other = clock, FakeRuntime(salt=5)

    def forward(self, batch):
        self.clock.now += 0.1
        return super().forward(batch)

    def logits(self, text):
        return super().logits(text) + 0.8 * self.other.logits(text)


def stair_seconds(rows: int) -> float:
    return 1 + 0.001 * (rows - 5)


class SteppedRuntime(FakeRuntime):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, batch):
        self.clock.now += stair_seconds(self.computed_rows([len(rows.token_ids) for rows in batch]))
        return super().forward(batch)

    def computed_rows(self, num_rows) -> int:
        return 5 + 4 * max(0, -(-(sum(num_rows) - 5) // 4))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("num_texts", [1, 4])
def test_where_the_policy_picks_trees_the_text_is_the_targets_as_well(num_texts, temperature):
    def decode_with(max_children: int):
        clock = Clock()
        target = SteppedRuntime(clock)
        profile = [(rows, stair_seconds(rows)) for rows in (5, 9, 33)]
        costs = StepCosts(profile, target.computed_rows, {"model": 0.1})
        parts = Parts(
            target=target, drafter=ModelDrafter(UnsureRuntime(clock), 1000, VOCAB_SIZE), verifier=CoupledVerifier(),
            policy=AutoPolicy(costs, ("model",), branching=("model",)), tokenizer=None, clock=clock,
        )  # fmt: skip
        engine = Engine(parts, EngineConfig(prefill_chunk=BLOCK_SIZE, max_cache_tokens=8192, draft_deadline=1e9))
        target.pool = engine.pool
        asked = [
            request(index, [1, 2, index + 3], depth="auto", seed=index, max_tokens=250, temperature=temperature)
            for index in range(num_texts)
        ]
        return run(engine, [dataclasses.replace(each, max_children=max_children) for each in asked]), clock.now

    trees, seconds = decode_with(4)
    chains, chain_seconds = decode_with(1)
    num_branching, num_steps = (
        sum(getattr(each.stats, name) for each in trees) for name in ("num_branching", "num_steps")
    )
    assert num_branching > (0.2 * num_steps if num_texts == 1 else 0)  # of several texts, chains fill the stairs
    assert not any(each.stats.num_branching for each in chains)
    assert seconds <= 1.02 * chain_seconds
    for tree, chain in zip(trees, chains, strict=True):
        assert tree.output_token_ids == chain.output_token_ids == plain_text(FakeRuntime(), tree.request)
