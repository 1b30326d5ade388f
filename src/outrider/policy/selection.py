"""Which drafted nodes are worth a row in the target's forward. Knows costs; no sequences.

What a row costs is a staircase, and what a draft is worth is known only once it is made. So drafts are cut afterwards,
all texts together: of all nodes the surest are kept, as many as fill the stair that is best.

A runtime may take long to compute another number of rows than before. Going up is a change, another one back, and steps
between that stay though fewer rows would do; and the draft that looks worth it is the one of many that looks best. So
going up is priced as several changes, and as fewer where one step after the other would have gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence as Sequences
from typing import NamedTuple

from outrider.policy.cost import StepCosts

CHANGES_UP = 2.0  # that going up is priced as at first; measured (docs/log.md)


def surest(
    survivals: Sequences[Sequences[float]], num_rows: int, stair: Callable[[int], int], price: Callable[[int], float]
) -> list[int]:
    """How many of each draft's first nodes to keep.

    Args:
        survivals: of each draft's nodes, never higher than the parent's.
        num_rows: that are computed whatever is kept.
        stair: how many rows are computed where so many are wanted.
        price: in tokens, of computing so many rows.
    """
    nodes = sorted((-survival, draft) for draft, nodes in enumerate(survivals) for survival in nodes)
    best, best_value, value, num_kept = 0, -price(stair(num_rows)), 0.0, 0
    while num_kept < len(nodes):
        last = min(stair(num_rows + num_kept + 1) - num_rows, len(nodes))
        value -= sum(cost for cost, _ in nodes[num_kept:last])
        num_kept = last
        if value - price(stair(num_rows + num_kept)) > best_value:
            best, best_value = num_kept, value - price(stair(num_rows + num_kept))
    counts = [0] * len(survivals)
    for _, draft in nodes[:best]:
        counts[draft] += 1
    return counts


class Stairs(NamedTuple):
    """What a step may compute.

    Attributes:
        of: how many rows are computed where so many are wanted.
        price: in tokens, of computing so many rows, where going up is priced as so many changes.
        held: rows that the last step computed; None: nothing is known of it.
    """

    of: Callable[[int], int]
    price: Callable[[int, float], float]
    held: int | None


def stairs_of(costs: StepCosts, num_sequences: int, rate: float) -> Stairs:
    """A runtime is slow to compute fewer rows than it was prepared for, and may as well stay at these.

    Args:
        rate: tokens a second that time is worth.
    """
    prepared = costs.prepared_rows

    def computed(rows: int) -> int:
        return costs.computed_rows([rows])

    def price(rows: int, changes_up: float) -> float:
        seconds = costs.target(rows, num_sequences)
        if prepared is not None and (change := costs.change(rows)):
            seconds += change if rows < prepared else changes_up * change
            seconds = min(seconds, costs.target(prepared, num_sequences)) if rows < prepared else seconds
        return rate * seconds

    return Stairs(computed, price, costs.last_rows)


class Climber:
    """Keeps the surest nodes, and goes up only for much, or where that would have paid in one step after the other."""

    def __init__(self) -> None:
        self._num_wanting = 0  # drafts in a row that would have gone up for the change alone

    def choose(self, survivals: Sequences[Sequences[float]], num_rows: int, stairs: Stairs) -> list[int]:
        """How many of each draft's first nodes to keep; see `surest`."""
        wanted = surest(survivals, num_rows, stairs.of, lambda rows: stairs.price(rows, 1.0))
        if stairs.held is None or stairs.of(num_rows + sum(wanted)) <= stairs.held:
            self._num_wanting = 0
            return wanted
        self._num_wanting += 1
        changes = max(1.0, CHANGES_UP / max(1, self._num_wanting - 1))
        return surest(survivals, num_rows, stairs.of, lambda rows: stairs.price(rows, changes))
