"""Whatever is drafted, by whom and for whatever reason: the text is plain decoding's."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings, strategies as st

from outrider.draft.base import Draft, Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.prediction import PredictionDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.config import EngineConfig
from outrider.engine.engine import Engine, Parts
from outrider.policy.fixed import FixedPolicy
from outrider.tree import TokenTree
from outrider.verify.coupled import CoupledVerifier
from tests.draft.drafting import RandomPolicy
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, plain_text, request, run

NUM_TOKENS = 30


class LastAgain(Drafter):
    """As a user would write it: no scores, no steps, no sources."""

    name = "last again"

    def propose(self, sequences, budgets):
        return Draft(
            [
                TokenTree.chain((sequence.root_token,) * budget.limit)
                for sequence, budget in zip(sequences, budgets, strict=True)
            ]
        )


def model(salt: int = 0, max_blocks: int = 1000) -> ModelDrafter:
    return ModelDrafter(FakeRuntime(salt=salt, min_rows=1), max_blocks, VOCAB_SIZE)


MAKE = {
    "suffix": SuffixDrafter,
    "suffix with a memory": lambda: SuffixDrafter(64),
    "prediction": PredictionDrafter,
    "model": model,
    "model that errs": lambda: model(salt=5),
    "model without room": lambda: model(max_blocks=4),
    "one's own": LastAgain,
    "cascade": lambda: Cascade([PredictionDrafter(), SuffixDrafter(64), LastAgain(), model()]),
    "cascade that errs": lambda: Cascade([SuffixDrafter(), PredictionDrafter(), model(salt=5, max_blocks=4)]),
}


def make_requests(seed: int, target: FakeRuntime) -> list:
    """Prompts that repeat themselves, and predictions that are the text with some of it changed."""
    generator = random.Random(seed)
    requests = []
    for index in range(4):
        period = [generator.randrange(VOCAB_SIZE) for _ in range(generator.randrange(1, 9))]
        temperature = generator.choice([0.0, 0.7, 1.3])
        wanted = request(index, period * 5, seed=seed + index % 2, temperature=temperature, max_tokens=NUM_TOKENS)
        text = plain_text(target, wanted)
        at = generator.randrange(NUM_TOKENS)
        text[at : at + generator.randrange(5)] = [generator.randrange(VOCAB_SIZE)] * generator.randrange(5)
        requests.append(dataclasses.replace(wanted, prediction_token_ids=tuple(text)))
    return requests


def check_texts(drafter, policy, seed: int) -> float:
    """Tokens a step, once the texts were found right."""
    target = FakeRuntime()
    parts = Parts(target=target, drafter=drafter, verifier=CoupledVerifier(), policy=policy, tokenizer=None)
    engine = Engine(parts, EngineConfig(prefill_chunk=16, max_cache_tokens=4096, max_sequences=3))
    requests = make_requests(seed, target)
    sequences = run(engine, requests)
    for sequence, wanted in zip(sequences, requests, strict=True):
        assert sequence.draft_fault is None
        assert sequence.output_token_ids == plain_text(target, wanted)
    return NUM_TOKENS * len(sequences) / sum(sequence.stats.num_steps for sequence in sequences)


@pytest.mark.parametrize("name", MAKE)
def test_the_text_is_plain_decodings_at_a_fixed_depth(name):
    length = check_texts(MAKE[name](), FixedPolicy(), seed=3)
    if name in {"prediction", "model", "cascade"}:
        assert length > 2.5


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_the_text_is_plain_decodings_whatever_the_budgets_and_the_worths(name, seed):
    drafter = MAKE[name]()
    num_members = len(drafter.members) if isinstance(drafter, Cascade) else 0
    check_texts(drafter, RandomPolicy(seed, num_members), seed)
