"""What the sequential test bets on: ways in which an engine's tokens may differ from the target's.

A bet is a distribution in place of the target's, or a direction to lean in: either gives every token a payoff, and a
bet is fair because under the target's own distribution every payoff is 1 on average. Knows one batch of rows; keeps no
account of what was won.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

POWERS: Final = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)
HEADS: Final = (20, 50)
SHARES: Final = (0.02, 0.1, 0.5)
# What an alternative that rules tokens out still leaves to the target, so that one of those does not ruin it.
_LEFT: Final = 0.05
_MOST_SURPRISE: Final = 4.0
_MOST_LOG_RATIO: Final = 3.0
# How much of what was lately is forgotten with each token, and what counts as often.
_FORGOTTEN: Final = 1 / 64
_OFTEN: Final = 4.0

FEATURES: Final = (
    "surprise", "the likeliest token", "tokens beyond the 20 likeliest",
    "what the sampling parameters change", "tokens written lately",
    "the draft's preference", "the draft's likeliest token", "what the draft prefers", "what the two share",
    "tokens rejected lately",
)  # fmt: skip
NUM_BLIND: Final = 5
NUM_FEATURES: Final = len(FEATURES)


@dataclass(frozen=True, slots=True)
class Rows:
    """Distributions of some tokens, and what the bets need of them.

    Attributes:
        target: [rows, vocab] probabilities, each row's sum 1.
        target_logs: their logarithms; -inf for 0.
        draft: [rows, vocab], or None where nobody knows what a drafter would have said.
        model: [rows, vocab], of the target model before penalties, temperature and truncation; None where they change
            nothing, or nobody knows it.
    """

    target: Floats
    target_logs: Floats
    draft: Floats | None = None
    model: Floats | None = None

    @classmethod
    def of(cls, target_log_probs: Floats, draft_log_probs: Floats | None, model_log_probs: Floats | None) -> Rows:
        """Normalised again: a factor is fair only for probabilities that sum to 1."""
        target_logs = _normalised(target_log_probs)
        draft, model = (
            None if log_probs is None else np.exp(_normalised(log_probs))
            for log_probs in (draft_log_probs, model_log_probs)
        )
        return cls(np.exp(target_logs), target_logs, draft, model)

    def ratios(self, other: Floats) -> Floats:
        """[rows, vocab] other over target; 0 where the target's is 0."""
        return np.divide(other, self.target, out=np.zeros_like(self.target), where=self.target > 0)


def alternative_names() -> tuple[str, ...]:
    """Of `alternatives`, in its order."""
    return (
        *(f"temperature {1 / power:.2f} times the right one" for power in POWERS),
        *(f"only the {size} likeliest tokens" for size in HEADS),
        *(f"the likeliest token, {share:.0%} more often" for share in SHARES),
        *(f"the likeliest token, {share:.0%} less often" for share in SHARES[:2]),
        *(f"{share:.0%} drawn without the sampling parameters" for share in (*SHARES, 1 - _LEFT)),
        *(f"{share:.0%} drawn from the draft model" for share in SHARES),
        *(f"{share:.0%} the draft's likeliest token" for share in SHARES),
        *(f"{share:.0%} drawn from the residual" for share in SHARES[:2]),
        "the residual replaced by the target",
    )


def alternatives(rows: Rows, token_ids: Ids) -> Floats:
    """[rows, alternatives] probability of each token by each alternative over that by the target.

    What is not known is not bet on: those columns are 1.
    """
    aware = [np.ones(len(token_ids))] * (3 * len(SHARES)) if rows.draft is None else _drafted(rows, token_ids)
    return np.stack(
        [
            *_powers(rows, token_ids),
            *_heads(rows, token_ids),
            *_likeliest(rows, token_ids),
            *_unprocessed(rows, token_ids),
            *aware,
        ],
        axis=1,
    )


class Lately:
    """Which tokens were written, and which were probably drafted in vain, the last ones counting most.

    It knows only tokens before the one that is bet on, so that what is made of it is fair.
    """

    def __init__(self) -> None:
        self._written = np.zeros(0)
        self._rejected = np.zeros(0)

    def follow(self, rows: Rows, token_ids: Ids) -> tuple[Floats, Floats]:
        """[rows, vocab] before each of these tokens: how often each was written, and rejected."""
        if len(self._written) != rows.target.shape[1]:
            self._written, self._rejected = np.zeros((2, rows.target.shape[1]))
        emitted = np.zeros_like(rows.target)
        emitted[np.arange(len(token_ids)), token_ids] = 1.0
        written = _remembered(self._written, emitted)
        rejected = _remembered(self._rejected, _rejections(rows, token_ids))
        self._written, self._rejected = written[-1], rejected[-1]
        return written[:-1], rejected[:-1]


def _remembered(before: Floats, events: Floats) -> Floats:
    """[events + 1, vocab] sums of what came before each event and after the last, the last counting most."""
    ages = np.arange(len(events) + 1)[:, None] - np.arange(len(events) + 1)[None, :]
    weights = np.where(ages >= 0, (1 - _FORGOTTEN) ** np.maximum(ages, 0), 0.0)
    return weights @ np.concatenate([before[None], events])


def _rejections(rows: Rows, token_ids: Ids) -> Floats:
    """[rows, vocab] how probably each token was drafted and rejected, of a sound engine that emitted these."""
    if rows.draft is None:
        return np.zeros_like(rows.target)
    surplus = np.maximum(rows.draft - rows.target, 0.0)
    total = surplus.sum(axis=1)
    missing = np.maximum(1 - _at(rows.draft, token_ids) / _at(rows.target, token_ids), 0.0)
    share = np.divide(missing, total, out=np.zeros_like(total), where=total > 0)
    return surplus * share[:, None]


def features(rows: Rows, written: Floats, rejected: Floats) -> Floats:
    """[rows, vocab, features]: what tokens have in common that the bets may lean to; 0 is what is not known.

    Args:
        rows: of the tokens that are bet on.
        written, rejected: [rows, vocab], how often each token was, before it.
    """
    shape = (*rows.target.shape, NUM_FEATURES)
    result = np.zeros(shape)
    surprise = np.where(rows.target > 0, -rows.target_logs, 0.0)
    entropy = (rows.target * surprise).sum(axis=1, keepdims=True)
    result[..., 0] = np.clip(surprise - entropy, -_MOST_SURPRISE, _MOST_SURPRISE)
    index = np.arange(len(rows.target))
    result[index, rows.target.argmax(axis=1), 1] = 1.0
    result[..., 2] = rows.target < _kth_largest(rows.target, HEADS[0])
    if rows.model is not None:
        result[..., 3] = _log_ratios(rows.ratios(rows.model))
    result[..., 4] = np.minimum(written, _OFTEN)
    if rows.draft is not None:
        ratios = rows.ratios(rows.draft)
        result[..., 5] = _log_ratios(ratios)
        result[index, rows.draft.argmax(axis=1), 6] = 1.0
        result[..., 7] = ratios > 1
        result[..., 8] = np.minimum(ratios, 1)
    result[..., 9] = np.minimum(rejected, _OFTEN)  # an engine may tell of it, whoever drafted
    return result


def _log_ratios(ratios: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.clip(np.log(ratios), -_MOST_LOG_RATIO, _MOST_LOG_RATIO)


def _powers(rows: Rows, token_ids: Ids) -> list[Floats]:
    """Another temperature: the target's probabilities to a power, normalised."""
    emitted = _at(rows.target_logs, token_ids)
    return [np.exp((power - 1) * emitted) / np.exp(power * rows.target_logs).sum(axis=1) for power in POWERS]


def _heads(rows: Rows, token_ids: Ids) -> list[Floats]:
    """Only the likeliest tokens, but for a little."""
    found: list[Floats] = []
    for size in HEADS:
        is_head = rows.target >= _kth_largest(rows.target, size)
        mass = np.where(is_head, rows.target, 0.0).sum(axis=1)
        found.append(_LEFT + (1 - _LEFT) * _at(is_head, token_ids) / mass)
    return found


def _likeliest(rows: Rows, token_ids: Ids) -> list[Floats]:
    best = rows.target.argmax(axis=1)
    mass = _at(rows.target, best)
    is_best = token_ids == best
    others = np.divide(~is_best, 1 - mass, out=np.ones_like(mass), where=mass < 1)
    return [
        *((1 - share) + share * is_best / mass for share in SHARES),
        *((1 - share) + share * others for share in SHARES[:2]),
    ]


def _unprocessed(rows: Rows, token_ids: Ids) -> list[Floats]:
    """Penalties, biases, temperature or truncation left out, of all tokens or of some."""
    drawn = np.ones(len(token_ids)) if rows.model is None else _drawn_from(rows, rows.model, token_ids)
    return [(1 - share) + share * drawn for share in (*SHARES, 1 - _LEFT)]


def _drawn_from(rows: Rows, other: Floats, token_ids: Ids) -> Floats:
    """[rows] ratios of another distribution, as far as it shares tokens with the target; 1 where it shares none."""
    ratio = _at(other, token_ids) / _at(rows.target, token_ids)
    possible = np.where(rows.target > 0, other, 0.0).sum(axis=1)
    return np.divide(ratio, possible, out=np.ones_like(ratio), where=possible > 0)


def _drafted(rows: Rows, token_ids: Ids) -> list[Floats]:
    """What a draft model could have to do with it. Where it shares no token with the target, bets stay put."""
    assert rows.draft is not None
    ratio = _at(rows.draft, token_ids) / _at(rows.target, token_ids)
    drawn = _drawn_from(rows, rows.draft, token_ids)
    best = rows.draft.argmax(axis=1)
    mass = _at(rows.target, best)
    greedy = np.divide(token_ids == best, mass, out=np.ones_like(mass), where=mass > 0)
    shared = np.minimum(rows.target, rows.draft).sum(axis=1)
    left = np.maximum(rows.target - rows.draft, 0.0).sum(axis=1)
    residual = np.divide(np.maximum(1 - ratio, 0.0), left, out=np.ones_like(ratio), where=left > 0)
    return [
        *((1 - share) + share * drawn for share in SHARES),
        *((1 - share) + share * greedy for share in SHARES),
        *((1 - share) + share * residual for share in SHARES[:2]),
        np.minimum(ratio, 1.0) + (1 - shared),
    ]


def _normalised(log_probs: Floats) -> Floats:
    log_probs = np.asarray(log_probs, dtype=np.float64)
    shifted = log_probs - log_probs.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _kth_largest(values: Floats, k: int) -> Floats:
    """[rows, 1] each row's, or its least where there are fewer."""
    place = max(values.shape[1] - k, 0)
    return np.partition(values, place, axis=1)[:, place : place + 1]


def _at(values: NDArray[np.generic], token_ids: Ids) -> Floats:
    return values[np.arange(len(token_ids)), token_ids].astype(np.float64)
