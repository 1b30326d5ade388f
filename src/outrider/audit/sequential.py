"""A sequential test of one claim: each token was drawn from the target's distribution, given the text before it.

It is a gambler who bets against the claim, at odds that are fair if it holds (Shafer 2021, "Testing by betting"; Ville
1939). A bet multiplies what it has by a payoff that is 1 on average under the claim, whatever happened before; so what
all bets have together is an e-process, and the probability that it ever reaches 1/alpha is at most alpha. One may look
after every token, stop when one likes, and go on later: the error rate stays what was stated.

Half of the stake is on fixed alternatives, a mixture of likelihood ratios: each says how an engine of one kind of fault
would draw. The other half leans to features: a token's payoff is exp(lean . features), over its mean under the target;
most leans follow what was seen before (one Newton step of its likelihood, held back by a prior), and are settled before
the tokens that they are used on. Knows log-probabilities and tokens: no models, no engine, no noise.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.audit.bets import (
    FEATURES,
    NUM_BLIND,
    NUM_FEATURES,
    Floats,
    Ids,
    Lately,
    Rows,
    alternative_names,
    alternatives,
    features,
)
from outrider.errors import ParameterError

DEFAULT_ALPHA: Final = 1e-3
# Tokens between two adjustments of the leans.
STRIDE: Final = 32
# Numbers of one pass: the rows of a large vocabulary are looked at one by one.
_MAX_CELLS: Final = 1 << 17

# How far a lean is held back, and the part of a Newton step that it takes.
_PRIOR: Final = 50.0
_BOLD_PRIOR: Final = 5.0
_STEP: Final = 0.9
_MOST_LEAN: Final = 2.0


class Lean(NamedTuple):
    """A bet that leans to features: how boldly it adapts, or how far it leans from first to last."""

    name: str
    features: tuple[int, ...]
    prior: float = _BOLD_PRIOR
    steady: float | None = None


_BLIND = tuple(range(NUM_BLIND))
_AWARE = tuple(range(NUM_BLIND, NUM_FEATURES))
# What takes many tokens to show, so that learning how far to lean would cost too much.
_SLOW = tuple(index for index, name in enumerate(FEATURES) if name.endswith("lately"))
LEANS: Final = (
    Lean("features of the target", _BLIND, _PRIOR),
    Lean("features of the draft", _AWARE, _PRIOR),
    Lean("all features", (*_BLIND, *_AWARE), _PRIOR),
    Lean("all features, boldly", (*_BLIND, *_AWARE), _BOLD_PRIOR),
    *(Lean(f"leaning to {name}", (index,)) for index, name in enumerate(FEATURES)),
    *(
        Lean(f"{'more' if lean > 0 else 'fewer'} {FEATURES[index]}", (index,), steady=lean)
        for index in _SLOW
        for lean in (0.25, -0.25)
    ),
)


class SequentialTest:
    """Evidence against the claim, token by token.

    Tokens may come from many texts, one after the other, as long as each was drawn with chance of its own: a text that
    is fed twice, or two that shared their noise, are no new evidence.

    Vocabularies may be coarser than the model's: any outcomes will do, such as the likeliest tokens of a server's
    answer and one outcome for all others.

    Args:
        alpha: the probability that a sound engine is ever accused, at most.

    Attributes:
        num_tokens: fed so far.
        num_tokens_at_alarm: when the evidence first reached 1/alpha; None if it has not.
        log_evidence: natural logarithm of what the bets have together; infinite after a token that the target could
            not have drawn.
        peak: the highest that it has been; exp(-peak) is a p-value at any time.
    """

    def __init__(self, alpha: float = DEFAULT_ALPHA) -> None:
        if not 0 < alpha < 1:
            raise ParameterError(f"alpha is {alpha}, but must be between 0 and 1")
        self.alpha = alpha
        self.num_tokens = 0
        self.num_tokens_at_alarm: int | None = None
        self.log_evidence = 0.0
        self.peak = 0.0
        self.names = (*alternative_names(), *(lean.name for lean in LEANS))
        num_fixed = len(self.names) - len(LEANS)
        self._log_stakes = np.log([0.5 / num_fixed] * num_fixed + [0.5 / len(LEANS)] * len(LEANS))
        self._log_payoffs = np.zeros(len(self.names))
        self._leans = np.zeros((NUM_FEATURES, len(LEANS)))
        for index, lean in enumerate(LEANS):
            self._leans[list(lean.features), index] = lean.steady or 0.0
        self._lately = Lately()
        self._surplus = np.zeros(NUM_FEATURES)
        self._information = np.zeros((NUM_FEATURES, NUM_FEATURES))

    @property
    def is_rejected(self) -> bool:
        """Whether the claim is refuted at this alpha."""
        return self.num_tokens_at_alarm is not None

    @property
    def strongest_bet(self) -> str:
        """What has won the most: a hint at the kind of fault, and no more."""
        return self.names[int((self._log_stakes + self._log_payoffs).argmax())]

    def feed(
        self,
        target_log_probs: NDArray[np.floating[Any]],
        token_ids: NDArray[np.integer[Any]],
        draft_log_probs: NDArray[np.floating[Any]] | None = None,
        model_log_probs: NDArray[np.floating[Any]] | None = None,
        num_rejected: NDArray[Any] | None = None,
    ) -> None:
        """Take in some more tokens.

        Args:
            target_log_probs: [tokens, vocab], of the distribution that each token should have been drawn from: after
                penalties, temperature and truncation, given the text before it; -inf is what could not be drawn.
            token_ids: [tokens], what was emitted.
            draft_log_probs: [tokens, vocab], what the draft model would have said there; it need not be what was
                drafted, but the closer, the sooner a fault that has to do with drafts is found.
            model_log_probs: [tokens, vocab], of the target before penalties, temperature and truncation, where these
                change something.
            num_rejected: [tokens, vocab], how often each token was drafted and rejected before in the same text, from
                an engine that tells; else it is estimated. Only where drafts had noise of their own: what a drafter
                said under the target's noise gives away the target's next tokens, and no bet on those is fair.
        """
        done = 0
        while done < len(token_ids):
            num_rows = min(STRIDE - self.num_tokens % STRIDE, max(1, _MAX_CELLS // target_log_probs.shape[1]))
            part = slice(done, done + num_rows)
            others = [None if each is None else each[part] for each in (draft_log_probs, model_log_probs, num_rejected)]
            self._take(target_log_probs[part], np.asarray(token_ids[part], dtype=np.int64), *others)
            done += num_rows

    def _take(self, target_log_probs: Any, token_ids: Ids, draft: Any, model: Any, num_rejected: Any) -> None:
        """Some tokens between two adjustments."""
        emitted: NDArray[np.floating[Any]] = target_log_probs[np.arange(len(token_ids)), token_ids]
        if impossible := np.flatnonzero(np.isneginf(emitted)).tolist():
            self.num_tokens += impossible[0]
            self._note(np.full(1, math.inf))
            self.num_tokens += len(token_ids) - impossible[0]
            return
        rows = Rows.of(target_log_probs, draft, model)
        written, rejected = self._lately.follow(rows, token_ids)
        leaning = features(rows, written, rejected if num_rejected is None else num_rejected)
        payoffs = np.concatenate([alternatives(rows, token_ids), self._lean(rows, leaning, token_ids)], axis=1)
        with np.errstate(divide="ignore"):
            running = self._log_payoffs + np.cumsum(np.log(payoffs), axis=0)
        self._log_payoffs = running[-1]
        if math.isfinite(self.log_evidence):
            self._note(_log_sum_exp(self._log_stakes + running))
        self.num_tokens += len(token_ids)
        self._learn(rows, leaning, token_ids)
        if self.num_tokens % STRIDE == 0:
            self._adjust()

    def _lean(self, rows: Rows, leaning: Floats, token_ids: Ids) -> Floats:
        """[rows, leans] payoffs of the adaptive bets."""
        weights = np.exp(leaning.reshape(-1, NUM_FEATURES) @ self._leans).reshape(*rows.target.shape, len(LEANS))
        means = np.matmul(rows.target[:, None, :], weights)[:, 0]
        return weights[np.arange(len(token_ids)), token_ids] / means

    def _note(self, log_evidence: Floats) -> None:
        """The evidence after each of the next tokens."""
        threshold = -math.log(self.alpha)
        if self.num_tokens_at_alarm is None and (reached := np.flatnonzero(log_evidence >= threshold)).size:
            self.num_tokens_at_alarm = self.num_tokens + int(reached[0]) + 1
        self.log_evidence = float(log_evidence[-1])
        self.peak = max(self.peak, float(log_evidence.max()))

    def _learn(self, rows: Rows, leaning: Floats, token_ids: Ids) -> None:
        """How far the features were above their means, and how much they vary under the claim."""
        weighted = leaning * rows.target[..., None]
        means = weighted.sum(axis=1)
        self._surplus += (leaning[np.arange(len(token_ids)), token_ids] - means).sum(axis=0)
        squares = weighted.reshape(-1, NUM_FEATURES).T @ leaning.reshape(-1, NUM_FEATURES)
        self._information += squares - means.T @ means

    def _adjust(self) -> None:
        for index, lean in enumerate(LEANS):
            chosen = list(lean.features)
            if lean.steady is not None:
                continue
            if len(chosen) == 1:  # the same without a solver, which would take most of the time
                (place,) = chosen
                alone = _STEP * self._surplus[place] / (self._information[place, place] + lean.prior)
                self._leans[place, index] = min(max(alone, -_MOST_LEAN), _MOST_LEAN)
                continue
            held = self._information[np.ix_(chosen, chosen)] + lean.prior * np.eye(len(chosen))
            step = _STEP * np.linalg.solve(held, self._surplus[chosen])
            self._leans[chosen, index] = np.clip(step, -_MOST_LEAN, _MOST_LEAN)


def _log_sum_exp(values: Floats) -> Floats:
    """[rows] of [rows, bets]."""
    highest = values.max(axis=1)
    return highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
