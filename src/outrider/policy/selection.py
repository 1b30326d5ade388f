"""Which drafted nodes are worth a row in the target's forward. Knows numbers only.

What a row costs is a staircase, and what a draft is worth is known only once it is made. So drafts are cut afterwards,
all texts together: of all nodes the surest are kept, as many as fill the stair that is best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence as Sequences


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
