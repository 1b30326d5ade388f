"""The front door: a target, perhaps a drafter, prompts in, texts out."""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Iterable, Iterator, Sequence as Sequences
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outrider.draft.base import Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.prediction import PredictionDrafter
from outrider.engine.config import EngineConfig
from outrider.engine.engine import Engine, Parts
from outrider.engine.load import load
from outrider.engine.requests import Prompt, RequestMaker
from outrider.engine.stream import Delta
from outrider.errors import NumericsError, ParameterError, UsageError
from outrider.policy.marginal import AutoPolicy
from outrider.request import Depth, Exactness, FinishReason, Request, SamplingParams, TokenLogProbs
from outrider.sequence import Decision, Sequence
from outrider.stats import SequenceStats
from outrider.verify.coupled import CoupledVerifier
from outrider.verify.traversal import TraversalVerifier

VERIFIERS = {verifier.name: verifier for verifier in (CoupledVerifier(), TraversalVerifier())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One finished text.

    Attributes:
        request_id: ascending in the order of the prompts.
        prompt_token_ids: what was asked.
        token_ids: the output, its end token included.
        text: the output, without what ended it.
        finish_reason: "stop", "length", "cancelled" or "error".
        seed: of the noise; the same seed gives the same text.
        exactness: what this run promises: "bitwise", or "seed" where rounding may decide a near-tie, or "distribution"
            where drafts were sampled and verified by ratios.
        stats: steps, acceptance and seconds.
        stream: index among the texts of one prompt.
        log_probs: of each token, where asked for.
        decisions: what the policy decided about drafting, and why, oldest first.
        draft_fault: what a drafter did wrong, after which the text went on without it; None if nothing.
        num_preempted: how often its cache was given to others, and computed again.
        error: why the text ended early, where the target's numbers for it could not be trusted; None if it did not.

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
    stream: int = 0
    log_probs: tuple[TokenLogProbs, ...] = ()
    decisions: tuple[Decision, ...] = ()
    draft_fault: str | None = None
    num_preempted: int = 0
    error: str | None = None


class LLM:
    """A target with its drafter, loaded.

    Args:
        target: a folder with a Hugging Face checkpoint, a hub id, or a loaded transformers model (torch runtime).
        draft: None, "suffix", another checkpoint of the same vocabulary, a `Drafter`, or a list of several, cheapest
            first, of which each step uses what is worth most.
        tokenizer: a folder with a tokenizer.json, for a target that brings none.
        config: how to run.

    Attributes:
        ledger: what is taken at most, as declared before anything was; None for a model that was loaded before.

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
        loaded = load(target, draft, self.config, tokenizer)
        self.config, self.ledger = loaded.config, loaded.ledger
        self.target, self.tokenizer, self.drafter = loaded.target.runtime, loaded.target.tokenizer, loaded.drafter
        self.verifier = VERIFIERS[self.config.verify]
        self._requests = RequestMaker(self.target.config, self.tokenizer, self.config.max_children)
        self._unread: dict[int, deque[Delta]] = {}
        self._new_costs = loaded.new_costs
        self.engine, self.policy = self._fresh()

    def generate(
        self,
        prompts: Prompt | Sequences[Prompt],
        params: SamplingParams | Sequences[SamplingParams] | None = None,
        *,
        depth: Depth = "auto",
        predictions: str | Sequences[str | None] | None = None,
    ) -> list[Generation]:
        """Finish all prompts, decoding them together, and return them in order, `n` texts for each.

        A text for which the target computes no numbers ends with finish reason "error"; the others are as without it.

        Args:
            prompts: texts or token ids; one or several.
            params: for all, or one for each.
            depth: tokens to draft a step; 0 is plain decoding, "auto" whatever is fastest.
            predictions: for each prompt a text that its output may resemble, such as a file to be edited, or None.

        Raises:
            ParameterError, ContextError: a prompt or an option is out of range; nothing was generated.
        """
        sequences = self.start(prompts, params, depth=depth, predictions=predictions)
        texts = {sequence.request.request_id: "" for sequence in sequences}
        for delta in self._run(sequences):
            texts[delta.request_id] += delta.text
        return [self.generation(sequence, texts[sequence.request.request_id]) for sequence in sequences]

    def stream(
        self,
        prompts: Prompt | Sequences[Prompt],
        params: SamplingParams | Sequences[SamplingParams] | None = None,
        *,
        depth: Depth = "auto",
        predictions: str | Sequences[str | None] | None = None,
    ) -> Iterator[Delta]:
        """Like `generate`, but yields what each step adds, from the first `next` on.

        Abandoning the iterator cancels what is unfinished. Several may run at once: their sequences share steps.

        Example:
            >>> from outrider import LLM, SamplingParams, bundled_pair
            >>> llm = LLM(bundled_pair().target)
            >>> sum(len(delta.token_ids) for delta in llm.stream("import os", SamplingParams(max_tokens=5)))
            5
        """
        yield from self._run(self.start(prompts, params, depth=depth, predictions=predictions))

    def start(
        self,
        prompts: Prompt | Sequences[Prompt],
        params: SamplingParams | Sequences[SamplingParams] | None = None,
        *,
        depth: Depth = "auto",
        predictions: str | Sequences[str | None] | None = None,
        max_children: int | None = None,
    ) -> list[Sequence]:
        """Queue prompts without running them, for callers that drive `engine.step()` themselves: all, or none.

        Args:
            prompts, params, depth, predictions: as of `generate`.
            max_children: guesses at one place of these texts; None: as the engine is configured.

        Returns:
            `n` sequences for each prompt, prompt after prompt.
        """
        prompt_list = _as_prompt_list(prompts)
        params_list = _one_each(params or SamplingParams(), SamplingParams, len(prompt_list), "params")
        prediction_list = _one_each(predictions, str | None, len(prompt_list), "predictions")
        requests = [
            request
            for parts in zip(prompt_list, params_list, prediction_list, strict=True)
            for request in self._requests.make(*parts, depth)
        ]
        if max_children is not None:
            requests = [replace(request, max_children=max_children) for request in requests]
        sequences: list[Sequence] = []
        try:
            sequences.extend(map(self.engine.add, requests))
        except UsageError:
            for sequence in sequences:
                self.engine.cancel(sequence.request.request_id)
            raise
        return sequences

    def forget(self) -> None:
        """Forget what was learned of costs and agreement, and the prompts that were kept.

        Raises:
            UsageError: texts are being written.
        """
        if not self.engine.is_idle:
            raise UsageError("texts are being written: finish or cancel them before the engine forgets")
        self.engine, self.policy = self._fresh()

    def new_policy(self, drafter: Drafter) -> AutoPolicy:
        """For a drafter of what is loaded here: one that knows what steps cost, and has seen no draft."""
        members = drafter.members if isinstance(drafter, Cascade) else (drafter,)
        branching = [member.name for member in members if member.makes_trees]
        looking_back = [member.name for member in members if member.looks_back]
        return AutoPolicy(self._new_costs(), drafter.sources, _serves, branching, looking_back)

    def _fresh(self) -> tuple[Engine, AutoPolicy]:
        policy = self.new_policy(self.drafter)
        parts = Parts(
            target=self.target,
            drafter=self.drafter,
            verifier=self.verifier,
            policy=policy,
            tokenizer=self.tokenizer,
        )
        return Engine(parts, self.config), policy

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
            exactness=self._exactness(sequence),
            stats=sequence.stats,
            stream=sequence.request.stream,
            log_probs=tuple(sequence.log_probs),
            decisions=tuple(sequence.decisions),
            draft_fault=sequence.draft_fault,
            num_preempted=sequence.num_preempted,
            error=sequence.error,
        )

    def _exactness(self, sequence: Sequence) -> Exactness:
        request = sequence.request
        if self.config.verify == "block" and request.params.temperature > 0 and request.depth != 0:
            return "distribution"
        return self.target.row_class.trees if sequence.stats.num_branching else self.target.exactness

    def memory(self) -> dict[str, int]:
        """Bytes held now, by component."""
        weights, cache = self.target.memory()
        return {"target_weights": weights, "target_cache": cache, "drafter": self.drafter.memory()}

    def describe(self) -> dict[str, Any]:
        """What ran: for a result's provenance."""
        return {
            "target": self.target.describe(),
            "drafter": {**self.drafter.describe(), "faults": dict(self.engine.guard.faults)},
            "verification": self.verifier.name,
            "policy": self.policy.name,
            "exactness": "distribution" if self.config.verify == "block" else self.target.exactness,
            "row_class": self.target.row_class._asdict(),
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


def _as_prompt_list(prompts: Prompt | Sequences[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], numbers.Integral)):
        return [prompts]  # pyright: ignore[reportReturnType]
    return list(prompts)  # pyright: ignore[reportReturnType]


def _one_each(values: Any, kind: Any, count: int, name: str) -> list[Any]:
    """A single value for all, or one for each prompt."""
    each = [values] * count if isinstance(values, kind) else list(values)
    if len(each) != count:
        raise ParameterError(f"{count} prompts but {len(each)} {name}: give one, or one for each")
    return each


def raise_errors(sequences: Iterable[Sequence]) -> None:
    """Raise NumericsError if one of them ended so: for callers that have no use for part of a text."""
    for sequence in sequences:
        if sequence.error is not None:
            raise NumericsError(sequence.error)


def _serves(source: str, request: Request) -> bool:
    return source != PredictionDrafter.name or bool(request.prediction_token_ids)
