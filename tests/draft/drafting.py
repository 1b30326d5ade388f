"""Sequences, budgets and counters for the tests of drafters, and drafters and policies that do as they are told."""

from __future__ import annotations

import random
from collections.abc import Sequence as Sequences

from outrider.draft.base import Draft, Drafter
from outrider.policy.base import Policy
from outrider.request import Request, SamplingParams
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree, Worth


def start(index: int, prompt: Sequences[int], *, prediction: Sequences[int] = (), **params: object) -> Sequence:
    return Sequence.start(
        Request(
            request_id=index,
            prompt_token_ids=tuple(prompt),
            params=SamplingParams(**{"max_tokens": 10_000, **params}),
            seed=7,
            prediction_token_ids=tuple(prediction),
        )
    )


def budget(depth: int, *, gain: float = 0.0, **worth: float) -> DraftBudget:
    return DraftBudget(depth, depth, Worth(**worth), gain)


def constant_worth(chance: float, **prices: float) -> Worth:
    """Every guess is as good as this, whatever its score."""
    import math

    return Worth(intercept=math.log(chance / (1 - chance)), slope=0.0, **prices)


class ToldDrafter(Drafter):
    """Proposes the chain that it was told for each sequence, and notes what it was asked and told."""

    def __init__(self, name: str, chains: dict[int, tuple[int, ...]], score: float | None = None) -> None:
        self.name = name
        self.chains, self.score = chains, score
        self.asked: list[list[int]] = []
        self.budgets: list[DraftBudget] = []
        self.observed: list[int] = []
        self.released: list[int] = []

    def propose(self, sequences, budgets):
        self.asked.append([sequence.request.request_id for sequence in sequences])
        self.budgets += budgets
        chains = [
            self.chains.get(sequence.request.request_id, ())[: budget_.limit]
            for sequence, budget_ in zip(sequences, budgets, strict=True)
        ]
        scores = None if self.score is None else [(self.score,) * len(chain) for chain in chains]
        return Draft([TokenTree.chain(chain) for chain in chains], scores)

    def observe(self, sequence, tree, verdict):
        self.observed.append(sequence.request.request_id)

    def release(self, sequence):
        self.released.append(sequence.request.request_id)

    def memory(self):
        return 10


class RandomPolicy(Policy):
    """Any budgets at all, within what a request may still be given."""

    name = "random"

    def __init__(self, seed: int, num_members: int) -> None:
        self.random = random.Random(seed)
        self.num_members = num_members

    def plan(self, sequences):
        return [self._budget(sequence.num_tokens_left - 1, self.num_members) for sequence in sequences]

    def _budget(self, most: int, num_members: int) -> DraftBudget:
        depth = min(most, self.random.randrange(8))
        worth = Worth(
            intercept=self.random.uniform(-4, 4),
            slope=self.random.uniform(-1, 2),
            mean=self.random.random(),
            node_price=self.random.random() ** 3,
            step_price=self.random.random() ** 2,
        )
        members = tuple(self._budget(most, 0) for _ in range(num_members)) if self.random.random() < 0.8 else ()
        return DraftBudget(depth, depth, worth, self.random.uniform(-1, 4), members)
