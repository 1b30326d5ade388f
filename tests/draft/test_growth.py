"""Trees of the likeliest nodes: as good as the best of all trees, and grown in as few draft steps as they are deep."""

from __future__ import annotations

import itertools
import random

import pytest

from outrider.draft.growth import USUAL_INTERCEPT, USUAL_SLOPE, BestFirst
from outrider.tree import ROOT, DraftBudget, TokenTree, Worth
from tests.draft.drafting import constant_worth

CHILDREN = 3
CURVE = Worth(intercept=-0.9, slope=2.0)


def scores_after(path: tuple[int, ...], seed: int) -> list[tuple[int, float]]:
    """The guesses of a made-up model, best first: tokens 0, 1, 2."""
    generator = random.Random(hash((seed, *path)))
    lead = generator.uniform(0, 3)
    return [(0, lead), (1, -lead), (2, -lead - generator.uniform(0, 1))]


def grow(budget: DraftBudget, max_depth: int, seed: int = 0) -> tuple[BestFirst, int]:
    growth, num_steps = BestFirst(budget, max_depth), 0
    while frontier := growth.frontier():
        assert len({len(growth.known.tokens_to(node)) for node in frontier}) == 1
        growth.add(
            [(node, scores_after(growth.known.tokens_to(node), seed)[: budget.max_children]) for node in frontier]
        )
        num_steps += 1
    return growth, num_steps


def best_value(num_nodes: int, max_depth: int, seed: int) -> float:
    """Over every path there is: the likeliest of them are the best tree."""
    found = []
    for depth in range(1, max_depth + 1):
        for path in itertools.product(range(CHILDREN), repeat=depth):
            value = 1.0
            for end, token in enumerate(path):
                value *= CURVE.chance(scores_after(path[:end], seed)[token][1])
            found.append(value)
    return sum(sorted(found, reverse=True)[:num_nodes])


@pytest.mark.parametrize("num_nodes", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(5))
def test_no_tree_of_as_many_nodes_is_expected_to_earn_more(num_nodes, seed):
    growth, num_steps = grow(DraftBudget(4, num_nodes, CURVE, max_children=CHILDREN), 4, seed)
    tree, scores = growth.finish()
    assert tree.is_valid(CHILDREN)
    assert len(tree) == len(scores) == num_nodes
    assert sum(CURVE.survivals(tree, scores)) == pytest.approx(best_value(num_nodes, 4, seed))
    assert max(tree.depths()) <= num_steps <= 4


def test_children_are_different_tokens_and_no_more_than_allowed():
    tree, _ = grow(DraftBudget(6, 20, CURVE, max_children=2), 6)[0].finish()
    for node in range(ROOT, len(tree)):
        children = [tree.tokens[child] for child, parent in enumerate(tree.parents) if parent == node]
        assert children == sorted(set(children))
        assert len(children) <= 2


def test_with_one_child_it_is_a_chain_to_the_limit():
    tree, _ = grow(DraftBudget(5, 5), 5)[0].finish()
    assert tree == TokenTree.chain((0,) * 5)


def test_a_budget_that_does_not_tell_scores_apart_gets_the_usual_curve():
    worth = BestFirst(DraftBudget(4, 4), 4).worth
    assert (worth.intercept, worth.slope) == (USUAL_INTERCEPT, USUAL_SLOPE)
    assert BestFirst(DraftBudget(4, 4, CURVE), 4).worth == CURVE


def test_nodes_that_do_not_pay_are_left_out_and_not_gone_on_from_but_for_the_likeliest():
    free, _ = grow(DraftBudget(6, 12, CURVE, max_children=3), 6)
    priced, _ = grow(DraftBudget(6, 12, CURVE._replace(node_price=0.2), max_children=3), 6)
    tree, scores = priced.finish()
    assert 1 < len(tree) < len(free.finish()[0])
    assert min(CURVE.survivals(tree, scores)) >= 0.2
    dear, num_steps = grow(DraftBudget(6, 12, CURVE._replace(node_price=9, step_price=9), max_children=3), 6)
    assert (len(dear.finish()[0]), num_steps) == (1, 1)


def test_equal_nodes_come_with_their_parents():
    worth = constant_worth(1 - 1e-12)._replace(slope=1e-300)
    tree, _ = grow(DraftBudget(5, 7, worth, max_children=3), 5)[0].finish()
    assert tree.is_valid(CHILDREN)
    assert len(tree) == 7


def test_the_first_nodes_are_the_best_tree_of_their_number():
    """What a policy cuts off a tree once it is made is what is worth least."""
    growth, _ = grow(DraftBudget(4, 12, CURVE, max_children=CHILDREN), 4, seed=3)
    tree, scores = growth.finish()
    found = CURVE.survivals(tree, scores)
    assert found == sorted(found, reverse=True)
    for num_nodes in range(len(tree) + 1):
        assert tree.first(num_nodes).is_valid(CHILDREN)
