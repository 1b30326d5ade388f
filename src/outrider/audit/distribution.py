"""A text into the sequential test: what the target, and perhaps a draft model, would have said at every token.

All that is needed is a prompt's tokens, an output's tokens, the parameters that were asked for, and a target that can
be trusted; who wrote the text, and with which noise, is not. Knows models and requests; no engine.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import sampling
from outrider.audit.forward import TeacherForcing
from outrider.audit.replay import Emitted, Logits, Rounding
from outrider.audit.sequential import STRIDE, SequentialTest
from outrider.request import SamplingParams
from outrider.sampling import History

_PLAIN = SamplingParams(temperature=1.0)


class Witnesses(NamedTuple):
    """Who is asked about a text: its target, and the draft model if there is one, as far as that can say anything."""

    target: TeacherForcing
    draft: TeacherForcing | None = None


class Rejected(NamedTuple):
    """Tokens that were drafted in vain, and how many output tokens there were when that was known."""

    after: int
    token_ids: tuple[int, ...]


class _Row(NamedTuple):
    """Log-probabilities at one token, and how often each had been rejected; None if nobody told."""

    token_id: int
    target: NDArray[np.float64]
    draft: NDArray[np.float64] | None
    model: NDArray[np.float64] | None
    num_rejected: NDArray[np.float64] | None


def feed_text(
    test: SequentialTest,
    text: Emitted,
    witnesses: Witnesses,
    rounding: Rounding,
    rejected: Sequence[Rejected] | None = None,
) -> int:
    """Feed a text's tokens, all drawn at a temperature above 0.

    A token that is truncated in the target's own computation, but as near to the border as rounding reaches, is passed
    over: it says nothing, and would say everything.

    Args:
        test: that goes on.
        text: all of it.
        witnesses: who is asked.
        rounding: what may move the target's logits.
        rejected: in the order of the text, from an engine that tells and whose drafts had noise of their own.

    Returns:
        how many were passed over.
    """
    assert text.request.params.temperature > 0, "a greedy text leaves nothing to chance: replay it"
    num_passed, waiting = 0, list[_Row]()
    for row in _rows(text, witnesses, rounding.bound(text.request.params), rejected):
        if row is None:
            num_passed += 1
            continue
        if waiting and (waiting[0].draft is None) != (row.draft is None):
            _feed(test, waiting)
            waiting.clear()
        waiting.append(row)
        if len(waiting) == STRIDE:
            _feed(test, waiting)
            waiting.clear()
    _feed(test, waiting)
    return num_passed


def _feed(test: SequentialTest, rows: list[_Row]) -> None:
    if rows:
        token_ids = np.array([row.token_id for row in rows])
        target, draft, model, num_rejected = (
            None if getattr(rows[0], name) is None else np.stack([getattr(row, name) for row in rows])
            for name in ("target", "draft", "model", "num_rejected")
        )
        assert target is not None
        test.feed(target, token_ids, draft, model, num_rejected)


def _rows(
    text: Emitted, witnesses: Witnesses, bound: float, rejected: Sequence[Rejected] | None
) -> Iterator[_Row | None]:
    """Log-probabilities token by token; None for one at the border."""
    request = text.request
    params = request.params
    history, written = History(request), list(request.prompt_token_ids)
    target = _logits(witnesses.target, text)
    draft = repeat(None) if witnesses.draft is None else chain(_logits(witnesses.draft, text), repeat(None))
    has_parameters = history.is_needed or dataclasses.replace(params, **_IDLE) != dataclasses.replace(_PLAIN, **_IDLE)
    waiting, num_rejected = deque(rejected or ()), None
    for (token_id, own), drafted in zip(zip(text.token_ids, target, strict=True), draft, strict=False):
        history.follow(written)
        processed = history.process(own, ()) if history.is_needed else own
        log_probs = sampling.log_probs(processed, params)
        if rejected is not None:
            num_rejected = np.zeros(len(own)) if num_rejected is None else num_rejected.copy()
            while waiting and waiting[0].after <= len(written) - len(request.prompt_token_ids):
                np.add.at(num_rejected, list(waiting.popleft().token_ids), 1)
        written.append(token_id)
        if np.isneginf(log_probs[token_id]) and _is_at_border(processed, params, token_id, bound):
            yield None
            continue
        guess = None if drafted is None else _draft_log_probs(drafted, history, params, len(own))
        model = sampling.log_probs(own, _PLAIN) if has_parameters else None
        yield _Row(token_id, log_probs, guess, model, num_rejected)


# What says how a text ends, or which noise it has, and not how likely a token is.
_IDLE = {
    "seed": None, "n": 1, "max_tokens": 1, "min_tokens": 0, "stop": (), "stop_token_ids": (), "ignore_eos": False,
    "log_probs": None,
}  # fmt: skip


def _logits(witness: TeacherForcing, text: Emitted) -> Iterator[Logits]:
    parts = witness.logits(text.request.prompt_token_ids, text.token_ids)
    return (row for part in parts for row in part)


def _draft_log_probs(logits: Logits, history: History, params: SamplingParams, vocab_size: int) -> NDArray[np.float64]:
    """Under the same parameters; a head may be padded differently, and what it lacks it does not say."""
    logits = logits[:vocab_size]
    if history.is_needed:
        logits = history.process(logits, ())
    log_probs = sampling.log_probs(logits, params)
    return np.pad(log_probs, (0, vocab_size - len(log_probs)), constant_values=-np.inf)


def _is_at_border(processed: Logits, params: SamplingParams, token_id: int, bound: float) -> bool:
    border = float(processed[sampling.kept_token_ids(processed, params)].min())
    return border - float(processed[token_id]) <= bound * params.temperature
