"""Is the text as good as plain decoding's? transformers' own forward, in float32, says how likely the target finds it.

The bundled pair computes in bfloat16 where the processor does, so float32 sees near-ties otherwise than it did.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from outrider import LLM, EngineConfig, Generation, RuntimeOptions, SamplingParams, bundled_pair
from outrider.demo.prompts import PROMPTS
from outrider.runtime.torch.transformers import reference_logits

TEXTS = [prompt.text for prompt in PROMPTS[:4]]
MAX_TOKENS = 64
# Nats a token. At level `bitwise` the texts are the same; at `seed` a near-tie may part them.
MARGIN = 0.05
# Of a logit, by which bfloat16 may choose another token than float32 would.
NEAR_TIE = 0.25


@functools.cache
def write(writer: str, temperature: float) -> tuple[Generation, ...]:
    """The target's texts, plain or with a drafter; or the draft model's, as if each of its guesses were accepted."""
    pair = bundled_pair()
    target, draft = {
        "plain": (pair.target, None),
        "suffix": (pair.target, "suffix"),
        "model": (pair.target, pair.draft),
        "draft alone": (pair.draft, None),
    }[writer]
    config = EngineConfig(options=RuntimeOptions(num_threads=1), self_test=False)
    params = [SamplingParams(temperature=temperature, seed=seed, max_tokens=MAX_TOKENS) for seed in range(len(TEXTS))]
    depth = 0 if draft is None else 4  # `auto` may find that drafting does not pay here
    return tuple(LLM(target, draft, config=config).generate(TEXTS, params, depth=depth))


@functools.cache
def judge(prompt: tuple[int, ...], output: tuple[int, ...]) -> np.ndarray:
    """The target's logits where each token of the output was chosen, by transformers."""
    logits = reference_logits(bundled_pair().target, (*prompt, *output), "float32")
    return logits[len(prompt) - 1 : -1]


def log_likelihood(writer: str, temperature: float) -> float:
    """Mean log-probability of a token, in nats."""
    log_probs = []
    for text in write(writer, temperature):
        logits = judge(text.prompt_token_ids, text.token_ids)
        chosen = logits[range(len(logits)), text.token_ids]
        log_probs.append(chosen - np.logaddexp.reduce(logits, axis=-1))
    return float(np.concatenate(log_probs).mean())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("drafter", ["suffix", "model"])
def test_a_speculative_text_is_as_likely_as_a_plain_one(drafter, temperature):
    assert sum(text.stats.num_accepted for text in write(drafter, temperature)) > 0
    assert abs(log_likelihood(drafter, temperature) - log_likelihood("plain", temperature)) <= MARGIN


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_of_unverified_guesses_is_less_likely(temperature):
    assert log_likelihood("draft alone", temperature) < log_likelihood("plain", temperature) - 2 * MARGIN


@pytest.mark.parametrize("drafter", ["suffix", "model"])
def test_greedy_tokens_are_those_that_transformers_finds_likeliest(drafter):
    lags = []
    for text in write(drafter, 0.0):
        logits = judge(text.prompt_token_ids, text.token_ids)
        lags.append(logits.max(axis=-1) - logits[range(len(logits)), text.token_ids])
    lags = np.concatenate(lags)
    assert lags.max() <= NEAR_TIE
    assert (lags == 0).mean() >= 0.97
