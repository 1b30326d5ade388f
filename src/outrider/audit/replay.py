"""Each token of a text chosen again: the target's logits, teacher-forced, the request's parameters, the noise row.

With coupled verification, and wherever decoding is greedy, a text leaves nothing to chance once its seed is known. So
the token that logits and noise choose must be the emitted one, and every token is evidence. Where it is not, rounding
may have decided between two that are as good as tied: the margin says how far apart they are, and it is held against
how far rounding was seen to move this model's logits. Knows logits and requests; no engine and no drafter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.request import FinishReason, Request, SamplingParams, TokenLogProbs
from outrider.sampling import History

Logits = NDArray[np.float32]
Kind = Literal["near-tie", "wrong acceptance", "wrong log-probability", "wrong end"]

# Single precision: what sums of scaled logits and noise may differ by although all logits are nearly the same.
LEAST_BOUND = 1e-4
# The largest of a row's differences, in their standard deviations: over a large vocabulary chance makes it 4 to 5.
MAX_DEVIATIONS = 8
_PLAIN = SamplingParams(temperature=1.0)


class Emitted(NamedTuple):
    """A text as its engine gave it out.

    Attributes:
        request: with everything settled: its seed, its end tokens.
        token_ids: of the output.
        log_probs: as reported; empty where they were not asked for.
        finish_reason: as reported; None where it is not known.
    """

    request: Request
    token_ids: tuple[int, ...]
    log_probs: tuple[TokenLogProbs, ...] = ()
    finish_reason: FinishReason | None = None


class Difference(NamedTuple):
    """Something about a text that is not as it must be.

    Attributes:
        at: number of the output token, from 0.
        emitted: that token.
        chosen: the token that logits and noise choose there; None where that is not the question.
        margin: by how much, in logits over temperature with noise, it is chosen; plain logits where decoding is greedy.
            For log-probabilities, how far the reported one is off.
        bound: what rounding explains.
    """

    kind: Kind
    at: int
    emitted: int
    chosen: int | None
    margin: float
    bound: float

    @property
    def is_fault(self) -> bool:
        return self.kind != "near-tie"


class Rounding:
    """How far apart two forwards of one model were, in its logits: what a row of other company may move by.

    It is seen in the very engine that is audited, which may be at fault: so there is a limit to what it explains.

    Args:
        tolerance: how far rounding may move a row, relative to the spread of its logits (`runtime.numerics`).

    Attributes:
        largest: over all logits seen, what is added to a whole row left out.
        limit: of what counts as rounding.
    """

    def __init__(self, tolerance: float = math.inf) -> None:
        self.largest = 0.0
        self.limit = math.inf
        self._tolerance = tolerance
        self._spread = 0.0

    @property
    def is_excessive(self) -> bool:
        """Whether more was seen than rounding explains."""
        return self.largest > self.limit

    def see(self, some: Iterable[Logits], others: Iterable[Logits]) -> None:
        """Take in logits of the same rows, computed in two ways."""
        one, other = (np.concatenate([*parts]).astype(np.float64) for parts in (some, others))
        moved = one - other
        moved -= np.median(moved, axis=1, keepdims=True)
        self.largest = max(self.largest, float(np.abs(moved).max(initial=0.0)))
        self._spread = max(self._spread, float(one.std(axis=1).max(initial=0.0)))
        if self._spread:
            self.limit = MAX_DEVIATIONS * self._tolerance * self._spread

    def bound(self, params: SamplingParams) -> float:
        """Of a margin between two tokens: each may have moved by as much, and a penalty may have multiplied that."""
        penalty = max(params.repetition_penalty, 1 / params.repetition_penalty)
        return max(2 * min(self.largest, self.limit) * penalty / (params.temperature or 1.0), LEAST_BOUND)


def replay(
    text: Emitted, logits: Iterable[Logits], rounding: Rounding, *, is_bitwise: bool = False
) -> list[Difference]:
    """What is wrong with a text whose noise is known.

    Args:
        text: all of it.
        logits: [some tokens, vocab] of the target, teacher-forced, from the first output token on.
        rounding: what may move them.
        is_bitwise: whether these are the very bits that the text was chosen by: then nothing is a near-tie.
    """
    request = text.request
    bound = 0.0 if is_bitwise else rounding.bound(request.params)
    history = History(request)
    written = list(request.prompt_token_ids)
    differences = wrong_end(text)
    rows = (row for part in logits for row in part)
    for at, (row, token_id) in enumerate(zip(rows, text.token_ids, strict=True)):
        history.follow(written)
        processed = history.process(row, ()) if history.is_needed else row
        address = noise.Address(request.seed, request.stream, len(written))
        chosen = sampling.choose(processed, request.params, address)
        if chosen != token_id:
            size = margin(processed, request.params, address, chosen=chosen, emitted=token_id)
            kind: Kind = "wrong acceptance" if is_bitwise or size > bound else "near-tie"
            differences.append(Difference(kind, at, token_id, chosen, size, bound))
        if text.log_probs:
            wanted = sampling.token_log_probs(row, processed, request.params, token_id)
            differences += _wrong_log_prob(text, at, wanted, rounding)
        written.append(token_id)
    return differences


def margin(processed: Logits, params: SamplingParams, address: noise.Address, *, chosen: int, emitted: int) -> float:
    """By how much logits would have to move for another token to be emitted than the one they choose.

    Where tokens are truncated there are two ways: one overtakes the other, or the border of what is kept passes over
    one of the two.
    """
    if params.temperature == 0:
        return float(processed[chosen]) - float(processed[emitted])
    pair = np.array([chosen, emitted])
    untruncated = _untruncated(params)
    values = sampling.log_probs(processed, untruncated)[pair] + noise.gumbel_at(noise.row_key(address), pair)
    lead = float(values[0] - values[1])
    border = float(processed[sampling.kept_token_ids(processed, params)].min())
    above, below = ((float(processed[token_id]) - border) / params.temperature for token_id in (chosen, emitted))
    is_truncated = untruncated != params
    return max(min(lead, above) if is_truncated else lead, -below if is_truncated else 0.0)


def wrong_end(text: Emitted) -> list[Difference]:
    """Text after an end token, too much or too little of it, or an end for another reason than the one reported."""
    request, token_ids = text.request, text.token_ids
    ends = [at for at, token_id in enumerate(token_ids) if token_id in request.end_token_ids]
    places = [at for at in ends if at < len(token_ids) - 1 or at + 1 < request.params.min_tokens]
    if len(token_ids) > request.params.max_tokens:
        places.append(request.params.max_tokens)
    last = len(token_ids) - 1
    has_ended = {"stop": bool(request.params.stop) or last in ends, "length": last + 1 == request.params.max_tokens}
    if text.finish_reason in has_ended and not has_ended[text.finish_reason]:
        places.append(last)
    return [Difference("wrong end", at, token_ids[at], None, math.inf, 0.0) for at in dict.fromkeys(places)]


def _wrong_log_prob(text: Emitted, at: int, wanted: TokenLogProbs, rounding: Rounding) -> Sequence[Difference]:
    params, reported = text.request.params, text.log_probs[at]
    bound = max(rounding.bound(params), rounding.bound(_PLAIN))
    off = abs(reported.raw - wanted.raw)
    # What is left after truncation sums to 1, so a token more or less at the border moves all others.
    may_jump = rounding.largest > 0 and _untruncated(params) != params
    # A token that could not be drawn is another than the chosen one, which is said already.
    if math.isfinite(wanted.processed) and not may_jump:
        off = max(off, abs(reported.processed - wanted.processed))
    return () if off <= bound else (Difference("wrong log-probability", at, text.token_ids[at], None, off, bound),)


def _untruncated(params: SamplingParams) -> SamplingParams:
    return dataclasses.replace(params, top_k=0, top_p=1.0, min_p=0.0)
