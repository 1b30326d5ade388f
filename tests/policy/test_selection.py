"""Of nodes that are drafted, the surest are kept, as many as fill the stair that is worth most."""

from __future__ import annotations

import random

import pytest

from outrider.policy.selection import CHANGES_UP, Climber, Stairs, surest
from outrider.tree import TokenTree, Worth

RUNGS = (5, 9, 17, 33)


def stair(rows: int) -> int:
    return next((rung for rung in RUNGS if rung >= rows), rows)


def test_rows_within_a_stair_are_free():
    assert surest([[0.9, 0.02, 0.01]], 1, stair, lambda rows: 0.5 * rows) == [3]


def test_a_stair_is_climbed_only_for_enough():
    nodes = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert surest([nodes], 1, stair, {5: 0.0, 9: 1.1}.__getitem__) == [7]  # 0.5 + 0.4 + 0.3
    assert surest([nodes], 1, stair, {5: 0.0, 9: 1.3}.__getitem__) == [4]


def test_nothing_is_kept_where_nothing_pays():
    assert surest([[0.4], [0.5]], 5, stair, float) == [0, 0]


def test_texts_share_a_stair_by_how_sure_their_nodes_are():
    assert surest([[0.9, 0.8, 0.7], [0.6, 0.1], [0.95]], 3, stair, {5: 0.0, 9: 9.0}.__getitem__) == [1, 0, 1]


def stairs(held: int | None, change: float) -> Stairs:
    """Each row costs a hundredth of a token, and every change of their number so many tokens, up as often as told."""

    def price(rows: int, changes_up: float) -> float:
        return 0.01 * rows + (change * (changes_up if held is not None and rows > held else 1.0)) * (rows != held)

    return Stairs(stair, price, held)


def test_going_up_takes_several_changes_worth_at_first_and_less_where_each_step_would_have_gone():
    nodes = [0.9] * 8  # 3.6 tokens more at nine rows than at five
    assert Climber().choose([nodes], 1, stairs(5, 3.5 / CHANGES_UP)) == [8]
    climber = Climber()
    kept = [climber.choose([nodes], 1, stairs(5, 5.0 / CHANGES_UP))[0] for _ in range(6)]
    assert kept == [4, 4, 8, 8, 8, 8]


def test_a_step_that_would_not_have_gone_up_begins_the_waiting_anew():
    nodes, climber = [0.9] * 8, Climber()
    for _ in range(3):
        assert climber.choose([nodes], 1, stairs(5, 5.0 / CHANGES_UP)) == [4]
        assert climber.choose([nodes], 1, stairs(5, 5.0 / CHANGES_UP)) == [4]
        assert climber.choose([nodes[:2]], 1, stairs(5, 5.0 / CHANGES_UP)) == [2]


def test_where_nothing_is_known_of_the_last_step_nothing_is_gone_up_from():
    assert Climber().choose([[0.9] * 8], 1, stairs(None, 0.1)) == [8]


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_best_of_all_prefixes(seed):
    draw = random.Random(seed)
    drafts = [sorted((draw.random() for _ in range(draw.randint(0, 3))), reverse=True) for _ in range(3)]
    num_rows, slope = draw.randint(1, 6), draw.choice([0.05, 0.2, 0.4])

    def value(counts: list[int]) -> float:
        kept = sum(sum(nodes[:count]) for nodes, count in zip(drafts, counts, strict=True))
        return kept - slope * stair(num_rows + sum(counts))

    every = [
        [first, second, third]
        for first in range(len(drafts[0]) + 1)
        for second in range(len(drafts[1]) + 1)
        for third in range(len(drafts[2]) + 1)
    ]
    found = surest(drafts, num_rows, stair, lambda rows: slope * rows)
    assert value(found) == pytest.approx(max(map(value, every)))


def test_a_survival_is_the_product_along_the_path():
    tree = TokenTree(tokens=(5, 6, 7), parents=(-1, -1, 0))
    assert Worth(mean=0.5).survivals(tree, None) == [0.5, 0.5, 0.25]
