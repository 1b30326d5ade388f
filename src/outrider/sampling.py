"""Logits and sampling parameters to the token that a position's noise chooses. Knows no models and no drafts.

The only place where logits are scaled and truncated: target and drafters choose through the same function, so a draft
guesses under the same parameters and the same noise as the target decides. Everything is one row at a time: a row's
token must not depend on which rows it was computed beside.

Scaled logits stay unnormalised wherever only their order with noise matters (Gumbel-max needs no normaliser).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outrider import noise
from outrider.errors import NumericsError
from outrider.request import Request, SamplingParams, TokenLogProbs

# In units of temperature below the likeliest token, where nothing that float32 can add up is left.
_WIDEST_REACH = 1e3


class History:
    """What penalties and bans look at: the tokens of one text, as it grows."""

    def __init__(self, request: Request) -> None:
        self.is_needed = False

    def follow(self, token_ids: Sequence[int]) -> None:
        """Take in the tokens that the text has gained."""

    def process(self, logits: NDArray[np.float32], path: Sequence[int]) -> NDArray[np.float32]:
        """Logits after the text and a path of drafted tokens, penalised, biased and banned; the same array if not."""
        return logits


def guess(logits: NDArray[np.float32], params: SamplingParams, row: noise.Address) -> tuple[int, float]:
    """`choose`, and how surely: a score for `tree.Worth`, by how far the runner-up was behind."""
    return choose(logits, params, row), 0.0


def token_log_probs(
    raw: NDArray[np.float32], processed: NDArray[np.float32], params: SamplingParams, token_id: int
) -> TokenLogProbs:
    """How likely `token_id` was, by the model's logits and by the processed ones that it was drawn from."""
    raise NotImplementedError


def choose(logits: NDArray[np.float32], params: SamplingParams, row: noise.Address) -> int:
    """The token of one row: argmax of processed log-probabilities plus noise, ties to the smallest id.

    Args:
        logits: [vocab].
        params: temperature and truncations; 0 temperature ignores all others.
        row: of noise; greedy decoding needs none and makes none.

    Raises:
        NumericsError: the logits are not finite.
    """
    best = int(logits.argmax())
    # argmax returns the first NaN if there is one, so this looks at every logit.
    if not np.isfinite(logits[best]):
        raise NumericsError(f"logits are not finite (token {best} got {logits[best]}): are the weights damaged?")
    if params.temperature == 0:
        return best
    key = noise.row_key(row)
    if params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0:
        return noise.argmax(key, logits, params.temperature)
    kept = kept_token_ids(logits, params)
    values = logits[kept].astype(np.float64) / params.temperature + noise.gumbel_at(key, kept)
    return int(kept[values.argmax()])


def log_probs(logits: NDArray[np.float32], params: SamplingParams) -> NDArray[np.float64]:
    """[vocab] normalised log-probabilities that `choose` samples from; -inf for what was truncated."""
    result = np.full(len(logits), -np.inf)
    if params.temperature == 0:
        result[logits.argmax()] = 0.0
        return result
    kept = kept_token_ids(logits, params)
    scaled = logits[kept].astype(np.float64) / params.temperature
    scaled -= scaled.max()
    result[kept] = scaled - np.log(np.exp(scaled).sum())
    return result


def kept_token_ids(logits: NDArray[np.float32], params: SamplingParams) -> NDArray[np.int64]:
    """Ids that survive top-k, then top-p, then min-p, ascending. Ties at a border are kept.

    All three keep the likeliest tokens, so each is a lowest logit and together they are the highest of the three.
    """
    highest = logits.max()
    lowest = -np.inf
    if 0 < params.top_k < len(logits):
        lowest = _kth_largest(logits, params.top_k)
    if params.top_p < 1.0:
        lowest = max(lowest, _top_p_border(logits, params, lowest))
    if params.min_p > 0.0:
        lowest = max(lowest, float(highest) + params.temperature * float(np.log(params.min_p)))
    return np.flatnonzero(logits >= lowest)


def _kth_largest(logits: NDArray[np.float32], k: int) -> float:
    """The k-th largest logit: not below the k-th largest of the groups' maxima, so most logits need no look."""
    maxima = noise.group_maxima(logits)
    candidates = logits
    if k <= len(maxima):
        candidates = logits[logits >= np.partition(maxima, -k)[-k]]
    return float(np.partition(candidates, -k)[-k])


def _top_p_border(logits: NDArray[np.float32], params: SamplingParams, lowest: float) -> float:
    """The logit of the last token needed to reach mass `top_p` among those not below `lowest`."""
    survivors = logits if np.isneginf(lowest) else logits[logits >= lowest]
    highest = float(survivors.max())
    # Single precision is enough for the total (a sum of positive terms) and eight times faster over a vocabulary.
    scale = np.float32(1.0 / params.temperature)
    total = float(np.exp((survivors - np.float32(highest)) * scale).sum(dtype=np.float64))
    reach = 8.0
    while True:
        head = np.sort(survivors[survivors >= highest - reach * params.temperature])[::-1].astype(np.float64)
        mass = np.cumsum(np.exp((head - highest) / params.temperature))
        if mass[-1] >= params.top_p * total:
            return float(head[np.searchsorted(mass, params.top_p * total)])
        if reach > _WIDEST_REACH:  # only rounding of the total can lead here: nothing is left out
            return float(head[-1])
        reach *= 2.0
