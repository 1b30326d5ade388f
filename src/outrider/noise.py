"""Rows of Gumbel noise, a pure function of (seed, stream, purpose, position, path, token id). Knows no logits' meaning.

The target's token at a position is the argmax of its scaled logits plus the position's row, and drafters see the same
row. Version 1 of the noise; a later version gets another key, so that a seed's text stays its text.

A row is made of exponential races in groups of 64 neighbouring ids. With E ~ Exp(1) independent for every id,
Gumbel noise is G = -log E, and the first arrival of a group is Exp(64), each member being first with probability 1/64:

    E(first of group) = -log(u_group) / 64        E(any other) = E(first of its group) - log(u_id)

The second line is the memorylessness of the exponential law, so a row is exactly 64-fold independent noise. But the
largest G of a group costs one hash, not 64: that is what makes `argmax` over 152,000 tokens cheap without being
approximate (Maddison, Tarlow, Minka 2014, "A* Sampling", with groups for the tree).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Purpose = Literal["target", "proposal", "coin", "residual"]
_PURPOSES: Final[dict[Purpose, int]] = {"target": 1, "proposal": 2, "coin": 3, "residual": 4}

_VERSION: Final = 1
_GROUP_BITS: Final = 6
_GROUP_SIZE: Final = 1 << _GROUP_BITS

# splitmix64 (Steele, Lea, Flood 2014): the golden-ratio increment and its finaliser's constants.
_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_GOLDEN_U64 = np.uint64(_GOLDEN)
_MULTIPLIERS_U64 = tuple(np.uint64(multiplier) for multiplier in _MULTIPLIERS)
_SHIFTS_U64 = (np.uint64(30), np.uint64(27), np.uint64(31))
# Up to this size a row that is made once and looked at twice costs less than two searches.
_WHOLE_ROW_SIZE: Final = 8192
_MEMBERS: Final = np.arange(_GROUP_SIZE, dtype=np.int64)


class Address(NamedTuple):
    """Which row.

    "target" is the noise by which the target chooses. The other three are for verification by ratios, which must see
    chance that nobody else saw: a proposal's, the coins that keep or reject it, and the draw that replaces it.

    Attributes:
        seed: of the request.
        stream: index of the sample when a request asks for several.
        position: absolute position of the token that the row helps to choose, the prompt included; for purposes other
            than "target", of the round's root.
        purpose: rows for different purposes are independent.
        path: for purposes other than "target", the node: which child of its parent, from the root down. So branches of
            a tree share no row, nor do rounds, which have different roots.
    """

    seed: int
    stream: int
    position: int
    purpose: Purpose = "target"
    path: tuple[int, ...] = ()


def row_key(address: Address) -> int:
    """The 64-bit key of one row."""
    key = _VERSION
    for part in (address.seed, address.stream, _PURPOSES[address.purpose], address.position, *address.path):
        key = _mix_int(key ^ _mix_int(part + _GOLDEN))
    return key


def uniform(key: int) -> float:
    """One number between 0 and 1, neither included, in place of a row: 52 bits of chance."""
    return float(_uniform(_hash(key, np.zeros(1, dtype=np.int64)))[0])


def gumbel_at(key: int, token_ids: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The row's noise at some ids, in any order and shape."""
    hashes = _hash(key, token_ids >> _GROUP_BITS)
    arrivals, firsts = _first_arrival(hashes), _first_member(hashes)
    is_first = (token_ids & (_GROUP_SIZE - 1)) == firsts
    return -np.log(np.where(is_first, arrivals, arrivals + _wait(key, token_ids)))


def argmax(key: int, logits: NDArray[np.float32], temperature: float) -> int:
    """`argmax(logits / temperature + row)`, ties to the smallest id; of a large vocabulary's row, only what may win.

    Args:
        logits: [vocab], finite or -inf, not all -inf.
        temperature: above 0.
    """
    if len(logits) <= _WHOLE_ROW_SIZE:
        return int(_whole_values(key, logits, temperature).argmax())
    return _search(key, logits, temperature)


def argmax_and_lead(key: int, logits: NDArray[np.float32], temperature: float) -> tuple[int, float]:
    """`argmax`, and how far its value is above the runner-up's."""
    if len(logits) <= _WHOLE_ROW_SIZE:
        values = _whole_values(key, logits, temperature)
        best = int(values.argmax())
        return best, lead(values, best)
    token_ids, values = _contenders(key, logits, temperature, num_places=2)
    best = int(values.argmax())
    return int(token_ids[best]), lead(values, best)


def largest(
    key: int, logits: NDArray[np.float32], temperature: float, num_places: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids, ascending, among which the winners of so many places are, and their values."""
    if len(logits) <= _WHOLE_ROW_SIZE:
        return np.arange(len(logits)), _whole_values(key, logits, temperature)
    return _contenders(key, logits, temperature, num_places)


def lead(values: NDArray[np.floating[Any]], best: int) -> float:
    """How far the value at `best`, the largest, is above all others; infinite where there are none."""
    others = [part.max() for part in (values[:best], values[best + 1 :]) if len(part)]
    return float(values[best] - max(others)) if others else math.inf


def _whole_values(key: int, logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    return logits.astype(np.float64) / temperature + _whole_row(key, len(logits))


def _search(key: int, logits: NDArray[np.float32], temperature: float) -> int:
    """`argmax` by bounds, exact."""
    token_ids, values = _contenders(key, logits, temperature)
    return int(token_ids[values.argmax()])


def _contenders(
    key: int, logits: NDArray[np.float32], temperature: float, num_places: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids, ascending, that hold the winners of so many places, and their values.

    No member of a group exceeds the group's largest logit plus its largest noise. The first arrivals and the likeliest
    token reach some values; only the few groups whose bound is not below the last of so many can hold a winner, and
    are made.
    """
    maxima = group_maxima(logits)
    leaders = _leaders(key, len(maxima))
    reached = _reached(key, leaders, logits, temperature, num_places)
    # np.log is monotone only up to its last bit: the slack keeps a group whose bound rounds just under.
    slack = 1e-9 * max(1.0, abs(reached))
    groups = np.flatnonzero(maxima.astype(np.float64) / temperature + leaders.gumbel >= reached - slack)
    token_ids, gumbel = _members(key, groups, leaders)
    num_real = int(np.searchsorted(token_ids, len(logits)))  # the last group may go beyond the vocabulary
    token_ids = token_ids[:num_real]
    return token_ids, logits[token_ids].astype(np.float64) / temperature + gumbel[:num_real]


def group_maxima(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The largest of each 64 neighbours, the last of which may be fewer."""
    return np.maximum.reduceat(values, np.arange(0, len(values), _GROUP_SIZE))


@lru_cache(maxsize=256)
def _whole_row(key: int, vocab_size: int) -> NDArray[np.float64]:
    """Kept for a while: a draft model and the target look at the same row, and again where a guess was wrong before it.

    Rows of all texts of a step: at most 16 MiB.
    """
    leaders = _leaders(key, -(-vocab_size // _GROUP_SIZE))
    return _members(key, np.arange(len(leaders.token_ids)), leaders)[1][:vocab_size]


def forget() -> None:
    """Keep nothing of rows made before: a text that is timed again would find what only its first time had to make."""
    _whole_row.cache_clear()
    _leaders.cache_clear()


class _Leaders(NamedTuple):
    """The first arrival of every group."""

    token_ids: NDArray[np.int64]  # [groups]
    arrivals: NDArray[np.float64]  # [groups]
    gumbel: NDArray[np.float64]  # [groups]


@lru_cache(maxsize=32)
def _leaders(key: int, num_groups: int) -> _Leaders:
    """Kept for a while, like whole rows."""
    groups = np.arange(num_groups, dtype=np.int64)
    hashes = _hash(key, groups)
    arrivals = _first_arrival(hashes)
    return _Leaders((groups << _GROUP_BITS) + _first_member(hashes), arrivals, -np.log(arrivals))


def _members(key: int, groups: NDArray[np.int64], leaders: _Leaders) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and noise of all members of some ascending groups."""
    token_ids = (groups[:, None] << _GROUP_BITS) + _MEMBERS  # [groups, 64]
    first_arrivals = leaders.arrivals[groups]
    arrivals = first_arrivals[:, None] + _wait(key, token_ids)
    arrivals[np.arange(len(groups)), leaders.token_ids[groups] & (_GROUP_SIZE - 1)] = first_arrivals
    return token_ids.ravel(), -np.log(arrivals.ravel())


def _reached(key: int, leaders: _Leaders, logits: NDArray[np.float32], temperature: float, num_places: int) -> float:
    """What at least so many tokens reach, as far as first arrivals and the likeliest token can tell."""
    values = logits.take(leaders.token_ids, mode="clip").astype(np.float64) / temperature + leaders.gumbel
    if leaders.token_ids[-1] >= len(logits):
        values[-1] = -np.inf  # a member that the vocabulary does not have
    likeliest = int(logits.argmax())
    if leaders.token_ids[likeliest >> _GROUP_BITS] != likeliest:
        gumbel = float(gumbel_at(key, np.array([likeliest]))[0])
        values = np.append(values, float(logits[likeliest]) / temperature + gumbel)
    if num_places == 1:
        return float(values.max())
    return float(np.partition(values, -num_places)[-num_places]) if num_places <= len(values) else -math.inf


def _first_arrival(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.log(_uniform(hashes)) * (-1.0 / _GROUP_SIZE)


def _first_member(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Which member of each group is first: the low bits, which `_uniform` leaves unused."""
    return (hashes & np.uint64(_GROUP_SIZE - 1)).astype(np.int64)


def _wait(key: int, token_ids: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """How long after its group's first arrival each id would arrive."""
    return -np.log(_uniform(_hash(_mix_int(key), token_ids)))


def _uniform(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The upper 52 bits as the midpoint of a cell of (0, 1): never 0 and never 1."""
    values = (hashes >> np.uint64(12)).astype(np.float64)
    values += 0.5
    values *= 2.0**-52
    return values


def _hash(key: int, counters: NDArray[Any]) -> NDArray[np.uint64]:
    """splitmix64's outputs number `counters` after the state `key`, in place: these arrays should stay in the cache."""
    state = counters.astype(np.uint64)
    state += np.uint64(1)
    state *= _GOLDEN_U64
    state += np.uint64(key)
    for shift, multiplier in zip(_SHIFTS_U64, _MULTIPLIERS_U64, strict=False):
        state ^= state >> shift
        state *= multiplier
    state ^= state >> _SHIFTS_U64[-1]
    return state


def _mix_int(value: int) -> int:
    value &= _MASK
    value = (value ^ (value >> 30)) * _MULTIPLIERS[0] & _MASK
    value = (value ^ (value >> 27)) * _MULTIPLIERS[1] & _MASK
    return value ^ (value >> 31)
