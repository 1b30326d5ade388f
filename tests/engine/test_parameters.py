"""Every sampling parameter, with every drafter, alone and beside others: the text and its log-probabilities are those
of plain decoding, written from the parameters' definitions.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest

from outrider import noise, sampling
from outrider.draft.base import Drafter
from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.request import Request, TokenLogProbs
from tests.core.by_definition import processed_by_definition
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, TreeDrafter, make_engine, request, run

TARGET = FakeRuntime()
PROMPTS = ((1,), (2, 3, 2), tuple(range(4, 21)), (5, 6) * 10)
NUM_TOKENS = 30

# A text that repeats itself for want of a penalty, and ends as soon as it may for want of a least length.
CASES: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.8},
    "top-k": {"temperature": 1.2, "top_k": 3},
    "top-p": {"temperature": 1.2, "top_p": 0.6},
    "min-p": {"temperature": 1.2, "min_p": 0.2},
    "repetition penalty": {"repetition_penalty": 1.6},
    "presence penalty": {"presence_penalty": 1.5},
    "frequency penalty": {"frequency_penalty": 0.6},
    "rewards": {"repetition_penalty": 0.8, "presence_penalty": -1.0, "frequency_penalty": -0.2},
    "logit bias": {"logit_bias": {0: 3.0, 7: -100.0, 9: 2.0}},
    "stop tokens": {"stop_token_ids": (8, 11)},
    "min tokens": {"min_tokens": 12, "stop_token_ids": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)},
    "bad words": {"bad_token_ids": ((4,), (17,), (5, 6), (20, 5), (3, 2), (1, 2, 3), (6, 11))},
    "all": {
        "temperature": 1.1, "top_k": 15, "top_p": 0.97, "min_p": 0.005, "repetition_penalty": 1.2,
        "presence_penalty": 0.4, "frequency_penalty": 0.2, "logit_bias": {0: 2.0, 21: -4.0}, "min_tokens": 14,
        "stop_token_ids": (2, 3), "bad_token_ids": ((4,), (5, 6), (1, 2, 3)),
    },
}  # fmt: skip


def make_request(index: int, params: dict[str, Any], *, depth: int = 4) -> Request:
    params = {"max_tokens": NUM_TOKENS, "log_probs": 3, **params}
    bad_token_ids = params.pop("bad_token_ids", ())
    made = request(index, PROMPTS[index], depth=depth, seed=5, **params)
    return dataclasses.replace(made, stream=index, bad_token_ids=bad_token_ids)


def target_token(wanted: Request, text: list[int]) -> int:
    processed = processed_by_definition(TARGET.logits(text), wanted, text)
    return sampling.choose(processed, wanted.params, noise.Address(wanted.seed, wanted.stream, len(text)))


def plain_decoding(wanted: Request) -> tuple[list[int], list[TokenLogProbs]]:
    """The text, and what each of its tokens' log-probabilities are when all tokens before it are given."""
    text, log_probs = list(wanted.prompt_token_ids), []
    while len(log_probs) < wanted.params.max_tokens and not (log_probs and text[-1] in wanted.end_token_ids):
        raw = TARGET.logits(text)
        processed = processed_by_definition(raw, wanted, text)
        text.append(target_token(wanted, text))
        log_probs.append(sampling.token_log_probs(raw, processed, wanted.params, text[-1]))
    return text[len(wanted.prompt_token_ids) :], log_probs


@cache
def expected(case: str, index: int) -> tuple[list[int], list[TokenLogProbs]]:
    return plain_decoding(make_request(index, CASES[case]))


def make_drafter(name: str, requests: list[Request]) -> Drafter:
    if name == "good model":
        return ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE)
    if name == "bad model":
        return ModelDrafter(FakeRuntime(salt=5, min_rows=1), 1000, VOCAB_SIZE)
    if name == "trees":
        by_beginning = {wanted.prompt_token_ids[0]: wanted for wanted in requests}
        return TreeDrafter(0, lambda text: target_token(by_beginning[text[0]], text))
    return {"none": NoDrafter, "suffix": SuffixDrafter}[name]()


@pytest.mark.parametrize("num_sequences", [1, 4])
@pytest.mark.parametrize("name", ["none", "suffix", "good model", "bad model", "trees"])
@pytest.mark.parametrize("case", CASES)
def test_text_and_log_probs_are_those_of_plain_decoding(case, name, num_sequences):
    requests = [make_request(index, CASES[case]) for index in range(num_sequences)]
    sequences = run(make_engine(FakeRuntime(), make_drafter(name, requests)), requests)
    for index, sequence in enumerate(sequences):
        tokens, log_probs = expected(case, index)
        assert sequence.output_token_ids == tokens
        assert sequence.log_probs == log_probs
        assert sequence.draft_fault is None
    if name == "trees" and num_sequences > 1:
        assert sum(sequence.stats.num_accepted for sequence in sequences) >= 10


@pytest.mark.parametrize("case", CASES)
def test_every_case_changes_the_text(case):
    """So that a parameter that is passed over cannot go unseen."""
    common = ("temperature", "stop_token_ids") if len(CASES[case]) > 1 else ()
    without = {name: value for name, value in CASES[case].items() if name in common}
    changed = [plain_decoding(make_request(index, without))[0] != expected(case, index)[0] for index in range(4)]
    assert any(changed)


def test_several_texts_of_one_prompt_differ_by_their_noise_alone_and_log_probs_are_told_only_if_asked_for():
    first = make_request(1, {"temperature": 1.0, "n": 3, "log_probs": None})
    requests = [dataclasses.replace(first, request_id=stream, stream=stream) for stream in range(3)]
    sequences = run(make_engine(FakeRuntime(), make_drafter("good model", requests)), requests)
    assert [sequence.output_token_ids for sequence in sequences] == [plain_decoding(each)[0] for each in requests]
    assert len({tuple(sequence.output_token_ids) for sequence in sequences}) == 3
    assert not any(sequence.log_probs for sequence in sequences)
