"""Penalties, biases and bans: what their definitions say, of whatever text a row follows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from outrider.request import Request, SamplingParams
from outrider.sampling import History
from tests.core.by_definition import processed_by_definition

VOCAB_SIZE = 12

tokens = st.integers(0, VOCAB_SIZE - 1)
parameters = st.fixed_dictionaries(
    {
        "prompt": st.lists(tokens, min_size=1, max_size=5),
        "end_token_ids": st.sets(tokens, max_size=3),
        "bad_token_ids": st.lists(st.lists(tokens, min_size=1, max_size=3).map(tuple), max_size=4),
        "repetition_penalty": st.sampled_from([1.0, 0.3, 1.3, 10.0]),
        "presence_penalty": st.sampled_from([0.0, 0.7, -2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.1, -1.5]),
        "logit_bias": st.dictionaries(tokens, st.floats(-100, 100), max_size=4),
        "min_tokens": st.integers(0, 9),
    }
)


def make_request(prompt=(1, 2), end_token_ids=(), bad_token_ids=(), **params) -> Request:
    return Request(
        request_id=0,
        prompt_token_ids=tuple(prompt),
        params=SamplingParams(**params),
        seed=0,
        end_token_ids=frozenset(end_token_ids),
        bad_token_ids=tuple(bad_token_ids),
    )


def after(request: Request, text: list[int]) -> History:
    history = History(request)
    history.follow(text)
    return history


def random_logits(seed: int, size: int = VOCAB_SIZE) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 4).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(
    params=parameters,
    pieces=st.lists(st.lists(tokens, max_size=3), max_size=4),
    path=st.lists(tokens, max_size=4),
    seed=st.integers(0, 999),
)
def test_logits_are_processed_by_definition_however_the_text_came(params, pieces, path, seed):
    """Bit for bit: as text in pieces, after a drafted path that is then forgotten, and at once."""
    request = make_request(**params)
    logits = random_logits(seed)
    before = logits.copy()
    history, text = History(request), list(request.prompt_token_ids)
    for piece in pieces:
        history.follow(text)
        history.process(logits, (3, 3, 5))
        text += piece
    history.follow(text)
    processed = history.process(logits, tuple(path))
    np.testing.assert_array_equal(processed, processed_by_definition(logits, request, text + path))
    np.testing.assert_array_equal(processed, after(request, text + path).process(logits, ()))
    assert processed.dtype == np.float32
    np.testing.assert_array_equal(logits, before)
    if not history.is_needed:
        np.testing.assert_array_equal(processed, logits)


def test_a_request_that_asks_for_none_of_it_needs_no_history():
    assert not History(make_request(temperature=1.0, top_p=0.9, min_tokens=5)).is_needed
    assert History(make_request(end_token_ids=[3], min_tokens=5)).is_needed
    assert History(make_request(logit_bias={3: 1.0})).is_needed


def test_a_draft_model_with_fewer_rows_is_processed_as_far_as_it_goes():
    request = make_request(
        [1, 11], [2, 10], [(3,), (9,), (1, 8)], presence_penalty=1.0, logit_bias={0: 1.0, 7: 1.0}, min_tokens=9
    )
    logits = random_logits(0)
    whole, short = (after(request, [1, 11, 9, 1]).process(row, (6, 1)) for row in (logits, logits[:6]))
    np.testing.assert_array_equal(short, whole[:6])


def test_many_different_tokens_are_remembered():
    text = np.random.default_rng(0).integers(0, 5000, 2000).tolist()
    request = make_request(text[:500], frequency_penalty=0.5, repetition_penalty=1.1)
    logits = random_logits(0, 5000)
    expected = processed_by_definition(logits, request, text)
    np.testing.assert_array_equal(after(request, text).process(logits, ()), expected)


@pytest.mark.parametrize("num_written", [0, 1, 4, 9])
def test_the_processed_logits_are_those_of_transformers(num_written):
    import torch
    from transformers.generation import logits_process as theirs

    random = np.random.default_rng(num_written)
    prompt, bad = random.integers(0, VOCAB_SIZE, 6).tolist(), [[3], [4, 5], [6, 7, 8]]
    text = [*prompt, *random.integers(0, VOCAB_SIZE, num_written).tolist()]
    for ending in ([4], [6, 7], [7]):
        whole = [*text, *ending]
        request = make_request(prompt, [1, 2], map(tuple, bad), repetition_penalty=1.7, min_tokens=8)
        logits = random_logits(num_written)
        processors = [
            theirs.RepetitionPenaltyLogitsProcessor(1.7),
            theirs.NoBadWordsLogitsProcessor(bad),
            theirs.MinNewTokensLengthLogitsProcessor(len(prompt), 8, [1, 2], device="cpu"),
        ]
        scores = theirs.LogitsProcessorList(processors)(torch.tensor([whole]), torch.from_numpy(logits[None].copy()))
        np.testing.assert_allclose(after(request, whole).process(logits, ()), scores[0].numpy(), rtol=1e-6)
