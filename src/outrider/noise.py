"""Rows of Gumbel noise, a pure function of (seed, stream, purpose, position, token id). Knows no logits' meaning.

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

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Purpose = Literal["target"]
_PURPOSES: Final[dict[Purpose, int]] = {"target": 1}

_VERSION: Final = 1
_GROUP_BITS: Final = 6
_GROUP_SIZE: Final = 1 << _GROUP_BITS
_NUM_PROBED_GROUPS: Final = 8

# splitmix64 (Steele, Lea, Flood 2014): the golden-ratio increment and its finaliser's constants.
_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_GOLDEN_U64 = np.uint64(_GOLDEN)
_MULTIPLIERS_U64 = tuple(np.uint64(multiplier) for multiplier in _MULTIPLIERS)
_SHIFTS_U64 = (np.uint64(30), np.uint64(27), np.uint64(31))
_MEMBERS: Final = np.arange(_GROUP_SIZE, dtype=np.int64)


def row_key(seed: int, stream: int, position: int, purpose: Purpose = "target") -> int:
    """The 64-bit key of one row.

    Args:
        seed: of the request.
        stream: index of the sample when a request asks for several.
        position: absolute position of the token that the row helps to choose, the prompt included.
        purpose: rows for different purposes are independent.
    """
    key = _VERSION
    for part in (seed, stream, _PURPOSES[purpose], position):
        key = _mix_int(key ^ _mix_int(part + _GOLDEN))
    return key


def gumbel_at(key: int, token_ids: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The row's noise at some ids, in any order and shape."""
    groups = token_ids >> _GROUP_BITS
    hashes = _hash(key, groups)
    return _member_gumbel(key, token_ids, _first_arrival(hashes), _winner(hashes))


def argmax(key: int, logits: NDArray[np.float32], temperature: float) -> int:
    """`argmax(logits / temperature + row)`, ties to the smallest id, without making the whole row.

    No member of a group exceeds the group's largest logit plus its largest noise. The few groups where that bound is
    highest are made first; whatever they reach, only groups whose bound is not below it can hold the winner.

    Args:
        logits: [vocab], finite or -inf.
        temperature: above 0.
    """
    group_max = _group_max(logits)
    hashes = _hash(key, np.arange(len(group_max), dtype=np.int64))
    arrivals = _first_arrival(hashes)
    bounds = group_max / temperature - np.log(arrivals)
    if len(bounds) > _NUM_PROBED_GROUPS:
        probed = np.argpartition(bounds, -_NUM_PROBED_GROUPS)[-_NUM_PROBED_GROUPS:]
        reached = _values(key, probed, logits, temperature, arrivals, hashes)[1].max()
        # np.log is monotone only up to its last bit: the slack keeps a group whose bound rounds just under.
        groups = np.flatnonzero(bounds >= reached - 1e-9)
    else:
        groups = np.arange(len(bounds))
    token_ids, values = _values(key, groups, logits, temperature, arrivals, hashes)
    return int(token_ids[values.argmax()])


def _values(
    key: int,
    groups: NDArray[np.int64],
    logits: NDArray[np.float32],
    temperature: float,
    arrivals: NDArray[np.float64],
    hashes: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids (ascending if `groups` are) and noisy scaled logits of all members of some groups."""
    token_ids = (groups[:, None] << _GROUP_BITS) + _MEMBERS  # [groups, 64]
    noise = _member_gumbel(key, token_ids, arrivals[groups][:, None], _winner(hashes[groups])[:, None])
    token_ids, noise = token_ids.ravel(), noise.ravel()
    exists = token_ids < len(logits)  # the last group may be larger than the vocabulary's end
    token_ids, noise = token_ids[exists], noise[exists]
    return token_ids, logits[token_ids].astype(np.float64) / temperature + noise


def _group_max(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    num_whole = len(logits) >> _GROUP_BITS
    whole = logits[: num_whole << _GROUP_BITS].reshape(num_whole, _GROUP_SIZE).max(axis=1)
    tail = logits[num_whole << _GROUP_BITS :]
    return (np.append(whole, tail.max()) if len(tail) else whole).astype(np.float64)


def _member_gumbel(
    key: int, token_ids: NDArray[Any], arrivals: NDArray[np.float64], winners: NDArray[Any]
) -> NDArray[np.float64]:
    later = arrivals - np.log(_uniform(_hash(_mix_int(key), token_ids)))
    return -np.log(np.where((token_ids & (_GROUP_SIZE - 1)) == winners, arrivals, later))


def _first_arrival(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.log(_uniform(hashes)) * (-1.0 / _GROUP_SIZE)


def _winner(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Which member of each group is first: the low bits, which `_uniform` leaves unused."""
    return (hashes & np.uint64(_GROUP_SIZE - 1)).astype(np.int64)


def _uniform(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The upper 52 bits as the midpoint of a cell of (0, 1): never 0 and never 1."""
    return ((hashes >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _hash(key: int, counters: NDArray[Any]) -> NDArray[np.uint64]:
    state = (counters.astype(np.uint64) + np.uint64(1)) * _GOLDEN_U64 + np.uint64(key)
    state = (state ^ (state >> _SHIFTS_U64[0])) * _MULTIPLIERS_U64[0]
    state = (state ^ (state >> _SHIFTS_U64[1])) * _MULTIPLIERS_U64[1]
    return state ^ (state >> _SHIFTS_U64[2])


def _mix_int(value: int) -> int:
    value &= _MASK
    value = (value ^ (value >> 30)) * _MULTIPLIERS[0] & _MASK
    value = (value ^ (value >> 27)) * _MULTIPLIERS[1] & _MASK
    return value ^ (value >> 31)
