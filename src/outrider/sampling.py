"""Logits and sampling parameters to the token that a position's noise chooses. Knows no models and no drafts.

The only place where logits are penalised, scaled and truncated: target and drafters choose through the same functions,
so a draft guesses under the same parameters and the same noise as the target decides. Everything is one row at a time:
a row's token must not depend on which rows it was computed beside, nor on how its text came to be.

    model's logits ── History.process: penalties, biases, bans ── choose: temperature, truncations, noise ── token

Scaled logits stay unnormalised wherever only their order with noise matters (Gumbel-max needs no normaliser).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import noise
from outrider.errors import NumericsError
from outrider.logits import DeviceRow
from outrider.request import Request, SamplingParams, TokenLogProbs

Row = NDArray[np.float32] | DeviceRow

# In units of temperature below the likeliest token, where nothing that float32 can add up is left.
_WIDEST_REACH = 1e3
_LEAST_FINITE = float(np.finfo(np.float32).min)
_MAX_SCORE = 4.0


class History:
    """What penalties and bans look at: the tokens of one text, as it grows.

    What `process` makes of logits is a function of them and of the tokens before them, whether those are the text's
    own or drafted ones. So penalties are computed from total counts, never added up from step to step.

    Args:
        request: whose text.

    Attributes:
        is_needed: false where nothing of the request looks at the text or touches single logits.
    """

    def __init__(self, request: Request) -> None:
        params = request.params
        self._params = params
        self._num_prompt_tokens = len(request.prompt_token_ids)
        self._token_ids: list[int] = []
        self._counts = _Counts()
        self._has_penalties = (
            params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0
        )
        self._biased_ids = _as_ids(params.logit_bias.keys())
        self._biases = np.fromiter(params.logit_bias.values(), np.float64, len(params.logit_bias))
        self._end_token_ids = _as_ids(request.end_token_ids if params.min_tokens > 0 else ())
        self._bans = _Bans(request.bad_token_ids)
        self.is_needed = bool(
            self._has_penalties or params.logit_bias or len(self._end_token_ids) or request.bad_token_ids
        )

    def follow(self, token_ids: Sequence[int]) -> None:
        """Take in the tokens that the text, all of which is given, has gained. A text never loses any."""
        if not self.is_needed:
            return
        for place in range(len(self._token_ids), len(token_ids)):
            self._token_ids.append(token_ids[place])
            if self._has_penalties:
                self._counts.add(token_ids[place], int(place >= self._num_prompt_tokens))

    def process(self, logits: Row, path: Sequence[int]) -> NDArray[np.float32]:
        """Logits after the text and a path of drafted tokens, penalised, biased and banned.

        Args:
            logits: [vocab], of the target or a draft model; tokens that it does not have are passed over.
            path: tokens after the text.

        Returns:
            A new array; -inf is what is banned.
        """
        logits = np.asarray(logits)
        processed = logits.copy()
        if self._has_penalties:
            self._penalise(processed, logits, *self._counts.all())
            if path:
                self._penalise(processed, logits, *self._counts.after(path))
        if len(self._biases):
            is_known = self._biased_ids < len(logits)
            processed[self._biased_ids[is_known]] += self._biases[is_known]
        banned = self._banned(path)
        processed[banned[banned < len(logits)]] = -np.inf
        return processed

    def _penalise(
        self,
        processed: NDArray[np.float32],
        logits: NDArray[np.float32],
        token_ids: NDArray[np.int64],
        num_written: NDArray[np.int64],
    ) -> None:
        """Set the processed logits of tokens of the text that were written so often in the output."""
        params = self._params
        is_known = token_ids < len(logits)
        token_ids, num_written = token_ids[is_known], num_written[is_known]
        values = logits[token_ids].astype(np.float64)
        if params.repetition_penalty != 1:
            values = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        values -= params.frequency_penalty * num_written + params.presence_penalty * (num_written > 0)
        processed[token_ids] = values

    def _banned(self, path: Sequence[int]) -> NDArray[np.int64]:
        num_written = len(self._token_ids) + len(path) - self._num_prompt_tokens
        may_end = num_written >= self._params.min_tokens
        banned = self._bans.after(self._token_ids, path)
        return banned if may_end else np.append(banned, self._end_token_ids)


class _Counts:
    """The different tokens of a text, and how often each was written: tokens that only the prompt holds, 0 times."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._token_ids = np.zeros(64, dtype=np.int64)
        self._num_written = np.zeros(64, dtype=np.int64)

    def add(self, token_id: int, num_written: int) -> None:
        slot = self._slots.setdefault(token_id, len(self._slots))
        if slot == len(self._token_ids):
            self._token_ids = np.append(self._token_ids, np.zeros_like(self._token_ids))
            self._num_written = np.append(self._num_written, np.zeros_like(self._num_written))
        self._token_ids[slot] = token_id
        self._num_written[slot] += num_written

    def all(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and counts."""
        return self._token_ids[: len(self._slots)], self._num_written[: len(self._slots)]

    def after(self, path: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and counts of the path's tokens, if they were written too."""
        counts = Counter(path)
        for token_id in counts:
            if (slot := self._slots.get(token_id)) is not None:
                counts[token_id] += int(self._num_written[slot])
        return _as_ids(counts.keys()), np.fromiter(counts.values(), np.int64, len(counts))


class _Bans:
    """Runs of tokens that must not be completed, by the token before their last."""

    def __init__(self, runs: Sequence[tuple[int, ...]]) -> None:
        self._always = _as_ids([run[0] for run in runs if len(run) == 1])
        self._runs: dict[int, list[tuple[int, ...]]] = {}
        for run in runs:
            if len(run) > 1:
                self._runs.setdefault(run[-2], []).append(run)
        self._reach = max((len(run) - 1 for run in runs), default=0)

    def after(self, text: Sequence[int], path: Sequence[int]) -> NDArray[np.int64]:
        """Tokens that would complete a run."""
        if not self._runs:
            return self._always
        ending = (*text[-self._reach :], *path)
        completing = [run[-1] for run in self._runs.get(ending[-1], ()) if ending[1 - len(run) :] == run[:-1]]
        return np.append(self._always, _as_ids(completing)) if completing else self._always


def guess(logits: Row, params: SamplingParams, row: noise.Address) -> tuple[int, float]:
    """`choose`, and how surely: a score for `tree.Worth`, in the range 0 to 4.

    It grows with the logarithm of how far the runner-up was behind, in logits over temperature with noise, or in plain
    logits where decoding is greedy.
    """
    if params.temperature == 0:
        best, lead = _first_and_lead(logits, needs_lead=True)
        return best, _score(lead)
    logits = _trusted(logits)
    key = noise.row_key(row)
    if not _is_truncated(params):
        best, lead = noise.argmax_and_lead(key, logits, params.temperature)
        return best, _score(lead)
    kept, values = _kept_values(key, logits, params)
    best = int(values.argmax())
    return int(kept[best]), _score(noise.lead(values, best))


class Guess(NamedTuple):
    """A token that may come next, and how surely: a score for `tree.Worth`, in the range -4 to 4."""

    token_id: int
    score: float


def guesses(logits: Row, params: SamplingParams, row: noise.Address, count: int) -> list[Guess]:
    """The first is `guess`; then come those that `choose` would choose if the ones before were banned.

    The first one's score grows with its lead over the runner-up, another's falls with how far it is behind the first,
    so that two which are as good as each other score 0 both. Tokens that may not be chosen are left out.
    """
    logits = _trusted(logits)
    num_places = max(count, 2)
    if params.temperature == 0:
        token_ids, values = np.arange(len(logits)), logits
    elif _is_truncated(params):
        token_ids, values = _kept_values(noise.row_key(row), logits, params)
    else:
        token_ids, values = noise.largest(noise.row_key(row), logits, params.temperature, num_places)
    if num_places < len(values):
        best = np.flatnonzero(values >= _kth_largest(values, num_places))
        token_ids, values = token_ids[best], values[best]
    order = np.argsort(-values, kind="stable")[:num_places]  # equal ones by id
    token_ids, values = token_ids[order], values[order].astype(np.float64)
    token_ids, values = token_ids[values > -np.inf], values[values > -np.inf]
    behind = (values[0] - values).tolist()
    scores = [_score(behind[1]) if len(behind) > 1 else _MAX_SCORE, *(-_score(gap) for gap in behind[1:])]
    return [Guess(*pair) for pair in zip(token_ids.tolist(), scores, strict=True)][:count]


def token_log_probs(raw: Row, processed: Row, params: SamplingParams, token_id: int) -> TokenLogProbs:
    """How likely `token_id` was, by the model's logits and by the processed ones that it was drawn from.

    Args:
        raw: [vocab].
        processed: [vocab], of `History.process`.
        params: temperature and truncations, and how many of the likeliest tokens are wanted.
    """
    model_log_probs = _log_softmax(np.asarray(raw).astype(np.float64))
    drawn_log_probs = log_probs(np.asarray(processed), params)
    num_wanted = params.log_probs or 0
    return TokenLogProbs(
        float(model_log_probs[token_id]),
        float(drawn_log_probs[token_id]),
        _likeliest_of(model_log_probs, num_wanted),
        _likeliest_of(drawn_log_probs, num_wanted),
    )


def choose(logits: Row, params: SamplingParams, row: noise.Address) -> int:
    """The token of one row: argmax of processed log-probabilities plus noise, ties to the smallest id.

    Args:
        logits: [vocab]; -inf is what must not be chosen.
        params: temperature and truncations; 0 temperature ignores all others.
        row: of noise; greedy decoding needs none and makes none.

    Raises:
        NumericsError: a logit is NaN or infinite, or all are -inf.
    """
    if params.temperature == 0:
        return _first_and_lead(logits)[0]
    logits = _trusted(logits)
    key = noise.row_key(row)
    if not _is_truncated(params):
        return noise.argmax(key, logits, params.temperature)
    kept, values = _kept_values(key, logits, params)
    return int(kept[values.argmax()])


def log_probs(logits: NDArray[np.float32], params: SamplingParams) -> NDArray[np.float64]:
    """[vocab] normalised log-probabilities that `choose` samples from; -inf for what was truncated."""
    if params.temperature > 0 and not _is_truncated(params):
        return _log_softmax(logits.astype(np.float64) / params.temperature)
    result = np.full(len(logits), -np.inf)
    if params.temperature == 0:
        result[logits.argmax()] = 0.0
        return result
    kept = kept_token_ids(logits, params)
    result[kept] = _log_softmax(logits[kept].astype(np.float64) / params.temperature)
    return result


def probabilities(logits: Row, params: SamplingParams) -> NDArray[np.float64]:
    """[vocab] probabilities that `choose` samples by; they add up to 1.

    Raises:
        NumericsError: as `choose` does.
    """
    return np.exp(log_probs(_trusted(logits), params))


def draw(probabilities: NDArray[np.float64], row: noise.Address) -> int:
    """A token by these probabilities [vocab], or any weights in proportion to them, and one row of noise."""
    possible = np.flatnonzero(probabilities)
    values = np.log(probabilities[possible]) + noise.gumbel_at(noise.row_key(row), possible)
    return int(possible[values.argmax()])


def sureness(logits: Row, params: SamplingParams) -> float:
    """A score for `tree.Worth` that is known before anything is drawn: as that of `guess`, but without noise."""
    _, lead = _first_and_lead(logits, needs_lead=True)
    return _score(lead / params.temperature if params.temperature else lead)


def kept_token_ids(logits: NDArray[np.float32], params: SamplingParams) -> NDArray[np.int64]:
    """Ids that survive top-k, then top-p, then min-p, ascending; never one of logit -inf. Ties at a border are kept.

    All three keep the likeliest tokens, so each is a lowest logit and together they are the highest of the three.
    """
    highest = logits.max()
    lowest = _LEAST_FINITE
    if 0 < params.top_k < len(logits):
        lowest = max(lowest, _kth_largest(logits, params.top_k))
    if params.top_p < 1.0:
        lowest = max(lowest, _top_p_border(logits, params, lowest))
    if params.min_p > 0.0:
        lowest = max(lowest, float(highest) + params.temperature * float(np.log(params.min_p)))
    return np.flatnonzero(logits >= lowest)


def _as_ids(token_ids: Collection[int]) -> NDArray[np.int64]:
    return np.fromiter(token_ids, np.int64, len(token_ids))


def _likeliest(logits: NDArray[np.float32]) -> int:
    """The largest logit's id, of logits that can be trusted."""
    best = int(logits.argmax())
    # argmax returns the first NaN if there is one, so this looks at every logit.
    if np.isfinite(logits[best]):
        return best
    if np.isneginf(logits[best]):
        raise NumericsError(f"none of {len(logits)} tokens may be chosen, all logits are -inf: ban fewer tokens")
    raise NumericsError(f"logits are not finite (token {best} got {logits[best]}): are the weights damaged?")


def _trusted(logits: Row) -> NDArray[np.float32]:
    row = np.asarray(logits)
    _likeliest(row)
    return row


def _first_and_lead(logits: Row, *, needs_lead: bool = False) -> tuple[int, float]:
    """`_likeliest`, and its lead if that is needed; of a device's row both come without the row."""
    if isinstance(logits, DeviceRow) and (found := logits.likeliest()):
        return found
    row = np.asarray(logits)
    best = _likeliest(row)
    return best, noise.lead(row, best) if needs_lead else 0.0


def _is_truncated(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def _kept_values(
    key: int, logits: NDArray[np.float32], params: SamplingParams
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids that survive truncation, and their scaled logits with noise."""
    kept = kept_token_ids(logits, params)
    return kept, logits[kept].astype(np.float64) / params.temperature + noise.gumbel_at(key, kept)


def _score(lead: float) -> float:
    return min(math.log1p(lead), _MAX_SCORE)


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max()
    return shifted - np.log(np.exp(shifted).sum())


def _likeliest_of(log_probs: NDArray[np.float64], num_wanted: int) -> tuple[tuple[int, float], ...]:
    """Ids and log-probabilities, likeliest first, equal ones by id; what has no probability is left out."""
    if num_wanted == 0:
        return ()
    lowest = _kth_largest(log_probs, num_wanted) if num_wanted < len(log_probs) else -np.inf
    token_ids = np.flatnonzero((log_probs >= lowest) & (log_probs > -np.inf))
    token_ids = token_ids[np.argsort(-log_probs[token_ids], kind="stable")][:num_wanted]
    return tuple(zip(token_ids.tolist(), log_probs[token_ids].tolist(), strict=True))


def _kth_largest(values: NDArray[np.floating[Any]], k: int) -> float:
    """Not below the k-th largest of the groups' maxima, so most values need no look."""
    maxima = noise.group_maxima(values)
    candidates = values
    if k <= len(maxima):
        candidates = values[values >= np.partition(maxima, -k)[-k]]
    return float(np.partition(candidates, -k)[-k])


def _top_p_border(logits: NDArray[np.float32], params: SamplingParams, lowest: float) -> float:
    """The logit of the last token needed to reach mass `top_p` among those not below `lowest`."""
    survivors = logits if lowest == _LEAST_FINITE else logits[logits >= lowest]
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
