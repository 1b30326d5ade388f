"""The front door: a target, perhaps a drafter, prompts in, texts out."""

from __future__ import annotations

import dataclasses
import numbers
import operator
import secrets
from collections import deque
from collections.abc import Iterator, Sequence as Sequences
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.engine.config import EngineConfig
from outrider.engine.engine import Engine, Parts
from outrider.engine.load import load_pair
from outrider.engine.stream import Delta
from outrider.errors import ContextError, ModelError, ParameterError, UsageError
from outrider.policy.fixed import DEFAULT_DEPTH, FixedPolicy
from outrider.request import MAX_SEED, Exactness, FinishReason, Request, SamplingParams
from outrider.sequence import Sequence
from outrider.stats import SequenceStats
from outrider.verify.coupled import CoupledVerifier

Prompt = str | Sequences[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One finished text.

    Attributes:
        request_id: ascending in the order of the prompts.
        prompt_token_ids: what was asked.
        token_ids: the output, its end token included.
        text: the output, without what ended it.
        finish_reason: "stop", "length" or "cancelled".
        seed: of the noise; the same seed gives the same text.
        exactness: what this run promises: "bitwise", or "seed" where rounding may decide a near-tie.
        stats: steps, acceptance and seconds.

    Example:
        >>> from outrider import LLM, SamplingParams, bundled_pair
        >>> generation = LLM(bundled_pair().target).generate(["import os"], SamplingParams(max_tokens=4))[0]
        >>> len(generation.token_ids), generation.finish_reason
        (4, 'length')
    """

    request_id: int
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    seed: int
    exactness: Exactness
    stats: SequenceStats


class LLM:
    """A target with its drafter, loaded.

    Args:
        target: a folder with a Hugging Face checkpoint, a hub id, or a loaded transformers model (torch runtime).
        draft: None, "suffix", another checkpoint of the same vocabulary, or a `Drafter`.
        tokenizer: a folder with a tokenizer.json, for a target that brings none.
        config: how to run.

    Raises:
        ModelError: a checkpoint cannot be used, or the two do not fit.
        UsageError: an option asks for what is not installed.

    Example:
        >>> from outrider import LLM, SamplingParams, bundled_pair
        >>> pair = bundled_pair()
        >>> llm = LLM(pair.target, draft=pair.draft)
        >>> params = SamplingParams(max_tokens=16, temperature=1.0, seed=7)
        >>> on, off = (llm.generate(["def main("], params, depth=depth)[0] for depth in (4, 0))
        >>> on.text == off.text
        True
    """

    def __init__(
        self,
        target: Any,
        draft: Any = None,
        *,
        tokenizer: str | Path | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        self.config = config or EngineConfig(runtime="openvino" if isinstance(target, (str, Path)) else "torch")
        loaded, self.drafter = load_pair(target, draft, self.config, tokenizer)
        self.target, self.tokenizer = loaded.runtime, loaded.tokenizer
        self.verifier = CoupledVerifier()
        self.engine = Engine(
            Parts(
                target=self.target,
                drafter=self.drafter,
                verifier=self.verifier,
                policy=FixedPolicy(),
                tokenizer=self.tokenizer,
            ),
            self.config,
        )
        self._num_requests = 0
        self._unread: dict[int, deque[Delta]] = {}

    def generate(
        self,
        prompts: Prompt | Sequences[Prompt],
        params: SamplingParams | Sequences[SamplingParams] | None = None,
        *,
        depth: int = DEFAULT_DEPTH,
    ) -> list[Generation]:
        """Finish all prompts, decoding them together, and return them in order.

        Args:
            prompts: texts or token ids; one or several.
            params: for all, or one for each.
            depth: tokens to draft a step; 0 is plain decoding.

        Raises:
            ParameterError, ContextError: a prompt or an option is out of range; nothing was generated.
        """
        sequences = self._add(_as_prompt_list(prompts), params, depth)
        texts = {sequence.request.request_id: "" for sequence in sequences}
        for delta in self._run(sequences):
            texts[delta.request_id] += delta.text
        return [self.generation(sequence, texts[sequence.request.request_id]) for sequence in sequences]

    def stream(
        self,
        prompts: Prompt | Sequences[Prompt],
        params: SamplingParams | Sequences[SamplingParams] | None = None,
        *,
        depth: int = DEFAULT_DEPTH,
    ) -> Iterator[Delta]:
        """Like `generate`, but yields what each step adds, from the first `next` on.

        Abandoning the iterator cancels what is unfinished. Several may run at once: their sequences share steps.

        Example:
            >>> from outrider import LLM, SamplingParams, bundled_pair
            >>> llm = LLM(bundled_pair().target)
            >>> sum(len(delta.token_ids) for delta in llm.stream("import os", SamplingParams(max_tokens=5)))
            5
        """
        yield from self._run(self._add(_as_prompt_list(prompts), params, depth))

    def start(self, prompt: Prompt, params: SamplingParams, *, depth: int = DEFAULT_DEPTH) -> Sequence:
        """Queue one prompt without running it: for callers that drive `engine.step()` themselves."""
        return self._add([prompt], params, depth)[0]

    def generation(self, sequence: Sequence, text: str) -> Generation:
        """The result of a finished sequence."""
        assert sequence.finish_reason is not None
        return Generation(
            request_id=sequence.request.request_id,
            prompt_token_ids=sequence.request.prompt_token_ids,
            token_ids=tuple(sequence.output_token_ids),
            text=text,
            finish_reason=sequence.finish_reason,
            seed=sequence.request.seed,
            # Siblings stand between a row and its ancestors, so a branching tree's rows may round differently.
            exactness="seed" if sequence.stats.num_branching else self.target.exactness,
            stats=sequence.stats,
        )

    def memory(self) -> dict[str, int]:
        """Bytes held now, by component."""
        weights, cache = self.target.memory()
        return {"target_weights": weights, "target_cache": cache, "drafter": self.drafter.memory()}

    def describe(self) -> dict[str, Any]:
        """What ran: for a result's provenance."""
        return {
            "target": self.target.describe(),
            "drafter": self.drafter.describe(),
            "verification": self.verifier.name,
            "exactness": self.target.exactness,
            "prefill_chunk": self.config.prefill_chunk,
        }

    def _run(self, sequences: list[Sequence]) -> Iterator[Delta]:
        """Step until these are finished; what a step adds to others' texts is kept for them."""
        mine = {sequence.request.request_id: deque[Delta]() for sequence in sequences}
        self._unread |= mine
        try:
            while True:
                for unread in mine.values():
                    while unread:
                        yield unread.popleft()
                if all(sequence.finish_reason for sequence in sequences):
                    return
                for delta in self.engine.step():
                    if delta.request_id in self._unread:
                        self._unread[delta.request_id].append(delta)
        finally:
            for request_id in mine:
                del self._unread[request_id]
                self.engine.cancel(request_id)

    def _add(
        self,
        prompts: list[Prompt],
        params: SamplingParams | Sequences[SamplingParams] | None,
        depth: int,
    ) -> list[Sequence]:
        """Queue all prompts or, if one of them cannot be, none."""
        if params is None or isinstance(params, SamplingParams):
            params_list = [params or SamplingParams()] * len(prompts)
        else:
            params_list = list(params)
        if len(params_list) != len(prompts):
            raise ParameterError(f"{len(prompts)} prompts but {len(params_list)} params: give one, or one for each")
        requests = [self._request(*pair, depth) for pair in zip(prompts, params_list, strict=True)]
        sequences: list[Sequence] = []
        try:
            sequences.extend(map(self.engine.add, requests))
        except UsageError:
            for sequence in sequences:
                self.engine.cancel(sequence.request.request_id)
            raise
        return sequences

    def _request(self, prompt: Prompt, params: SamplingParams, depth: int) -> Request:
        token_ids = self._token_ids(prompt)
        num_left = self.target.config.max_context - len(token_ids)
        if num_left < 1:
            raise ContextError(
                f"the prompt has {len(token_ids)} tokens, but the target's context is {self.target.config.max_context} "
                f"tokens and must hold at least one more: shorten the prompt"
            )
        if params.stop and self.tokenizer is None:
            raise ParameterError("stop texts need a tokenizer, and the target has none: use stop_token_ids")
        self._num_requests += 1
        return Request(
            request_id=self._num_requests - 1,
            prompt_token_ids=token_ids,
            params=dataclasses.replace(params, max_tokens=min(params.max_tokens, num_left)),
            seed=secrets.randbelow(MAX_SEED) if params.seed is None else operator.index(params.seed),
            depth=depth,
            end_token_ids=frozenset(params.stop_token_ids) | self._model_end_token_ids(params),
        )

    def _model_end_token_ids(self, params: SamplingParams) -> frozenset[int]:
        return frozenset() if params.ignore_eos else frozenset(self.target.config.eos_token_ids)

    def _token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise ModelError("the target has no tokenizer.json: give the prompt as token ids")
            token_ids = tuple(self.tokenizer.encode(prompt))
        else:
            token_ids = tuple(map(operator.index, prompt))
        if not token_ids:
            raise ParameterError("the prompt is empty: give at least one token")
        vocab_size = self.target.config.vocab_size
        if not all(0 <= token_id < vocab_size for token_id in token_ids):
            raise ParameterError(f"a prompt's token id is outside the vocabulary of {vocab_size}")
        return token_ids


def _as_prompt_list(prompts: Prompt | Sequences[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], numbers.Integral)):
        return [prompts]  # pyright: ignore[reportReturnType]
    return list(prompts)  # pyright: ignore[reportReturnType]
