"""From what a caller says to requests with nothing left open. Knows the tokenizer and the target's limits."""

from __future__ import annotations

import dataclasses
import operator
import secrets
from collections.abc import Sequence as Sequences

from outrider.errors import ContextError, ModelError, ParameterError
from outrider.model.config import ModelConfig
from outrider.model.tokenizer import Tokenizer
from outrider.request import MAX_SEED, Depth, Request, SamplingParams

Prompt = str | Sequences[int]


class RequestMaker:
    """Numbers requests and resolves what only the target can: tokens, end tokens, room.

    Args:
        config: the target's.
        tokenizer: None if it has none.
        max_children: of all requests.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None, max_children: int = 1) -> None:
        self._config = config
        self._max_children = max_children
        self._tokenizer = tokenizer
        self._num_requests = 0

    def make(self, prompt: Prompt, params: SamplingParams, prediction: str | None, depth: Depth) -> list[Request]:
        """The `n` requests of one prompt.

        Raises:
            ParameterError, ContextError, ModelError: they cannot be made.
        """
        token_ids = self._token_ids(prompt)
        num_left = self._config.max_context - len(token_ids)
        if num_left < 1:
            raise ContextError(
                f"the prompt has {len(token_ids)} tokens, but the target's context is {self._config.max_context} "
                f"tokens and must hold at least one more: shorten the prompt"
            )
        if params.min_tokens > num_left:
            raise ContextError(
                f"min_tokens is {params.min_tokens}, but the target's context of {self._config.max_context} tokens "
                f"leaves {num_left} after the prompt: lower it, or shorten the prompt"
            )
        self._check_token_ids(params)
        first = Request(
            request_id=self._num_requests,
            prompt_token_ids=token_ids,
            params=dataclasses.replace(params, max_tokens=min(params.max_tokens, num_left)),
            seed=secrets.randbelow(MAX_SEED) if params.seed is None else operator.index(params.seed),
            depth=depth,
            max_children=self._max_children,
            end_token_ids=self._end_token_ids(params),
            bad_token_ids=self._bad_token_ids(params),
            prediction_token_ids=self._prediction_token_ids(prediction),
        )
        self._num_requests += params.n
        return [
            dataclasses.replace(first, request_id=first.request_id + stream, stream=stream)
            for stream in range(params.n)
        ]

    def _token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            if self._tokenizer is None:
                raise ModelError("the target has no tokenizer.json: give the prompt as token ids")
            token_ids = tuple(self._tokenizer.encode(prompt))
        else:
            token_ids = tuple(map(operator.index, prompt))
        if not token_ids:
            raise ParameterError("the prompt is empty: give at least one token")
        self._require_in_vocabulary("a prompt's token id", token_ids)
        return token_ids

    def _check_token_ids(self, params: SamplingParams) -> None:
        """What names tokens must name tokens that there are, and what names texts needs a tokenizer."""
        self._require_in_vocabulary("a token id of logit_bias", tuple(params.logit_bias))
        self._require_in_vocabulary("a stop token id", params.stop_token_ids)
        if self._tokenizer is None and (params.stop or params.bad_words):
            name, instead = ("stop texts", "use stop_token_ids") if params.stop else ("bad words", "use logit_bias")
            raise ParameterError(f"{name} need a tokenizer, and the target has none: {instead}")

    def _require_in_vocabulary(self, what: str, token_ids: Sequences[int]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._config.vocab_size:
                raise ParameterError(f"{what} is {token_id}, outside the vocabulary of {self._config.vocab_size}")

    def _end_token_ids(self, params: SamplingParams) -> frozenset[int]:
        own = () if params.ignore_eos else self._config.eos_token_ids
        return frozenset((*own, *params.stop_token_ids))

    def _bad_token_ids(self, params: SamplingParams) -> tuple[tuple[int, ...], ...]:
        """Each word as it is written at the beginning of a text and after a space."""
        if self._tokenizer is None:
            return ()
        runs = {
            tuple(self._tokenizer.encode(spelling, add_special_tokens=False))
            for word in params.bad_words
            for spelling in (word, f" {word}")
        }
        return tuple(sorted(run for run in runs if run))

    def _prediction_token_ids(self, prediction: str | None) -> tuple[int, ...]:
        if prediction is None:
            return ()
        if self._tokenizer is None:
            raise ParameterError("a prediction is text and needs a tokenizer, and the target has none: leave it out")
        return tuple(self._tokenizer.encode(prediction, add_special_tokens=False))
