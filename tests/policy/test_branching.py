"""Trees are drafted where they pay, and only there; what they earn and cost is learned."""

from __future__ import annotations

import pytest

from outrider.policy.survival import Siblings
from outrider.policy.track import Place, places_along, within
from outrider.tree import DraftBudget, TokenTree, Worth
from tests.policy.simulator import Guesser, Outcome, World, auto, decode, rungs, staircase, sum_of_rows


def make_world(agreement, step, siblings, *, seed=0, **kwargs) -> World:
    guesser = Guesser("model", lambda index, position: agreement, step=step, siblings=siblings)
    return World([guesser], staircase, rungs, 0.1, seed=seed, **kwargs)


def compare(worlds: list[World], **kwargs) -> tuple[float, list[Outcome]]:
    """Tokens per second with trees allowed over those of chains."""
    chains, trees = ([decode(world, auto(world), max_children=count, **kwargs) for world in worlds] for count in (1, 4))
    rates = [
        sum(each.num_tokens for each in outcomes) / sum(each.seconds for each in outcomes)
        for outcomes in (trees, chains)
    ]
    return rates[0] / rates[1], trees


def branching_share(outcomes: list[Outcome]) -> float:
    flags = [flag for outcome in outcomes for flag in outcome.branchings]
    return sum(flags) / len(flags)


@pytest.mark.parametrize("num_sequences", [1, 4])
def test_siblings_that_are_often_right_fill_the_stair(num_sequences):
    worlds = [make_world(0.4, 0.15, (0.5, 0.3, 0.2), seed=seed) for seed in range(3)]
    ratio, trees = compare(worlds, num_sequences=num_sequences)
    assert ratio >= (1.05 if num_sequences == 1 else 1.0)
    assert branching_share(trees) >= (0.7 if num_sequences == 1 else 0.0)


def test_a_drafter_whose_first_guesses_do_not_pay_may_pay_with_others_beside_them():
    worlds = [make_world(0.35, 0.4, (0.5, 0.4, 0.3), seed=seed) for seed in range(3)]
    ratio, trees = compare(worlds, num_tokens=1000)
    assert ratio >= 1.05
    assert branching_share(trees) >= 0.5


@pytest.mark.parametrize("agreement", [0.4, 0.8])
def test_siblings_that_are_never_right_are_given_up_at_next_to_no_cost(agreement):
    worlds = [make_world(agreement, 0.1, (1e-9,) * 3, seed=seed, branch_seconds=0.02) for seed in range(4)]
    ratio, trees = compare(worlds)
    assert ratio >= 0.99
    assert branching_share(trees) <= 0.15


def test_branches_that_the_target_computes_dearly_are_given_up():
    worlds = [make_world(0.5, 0.1, (0.4, 0.3, 0.2), seed=seed, branch_seconds=0.3) for seed in range(4)]
    ratio, trees = compare(worlds)
    assert ratio >= 0.985
    assert branching_share(trees) <= 0.15


@pytest.mark.parametrize(("agreement", "step"), [(0.0, 0.05), (0.0, 0.3), (0.04, 0.1), (0.04, 0.6), (0.8, 1.5)])
def test_a_bad_drafter_that_makes_trees_costs_at_most_two_percent(agreement, step):
    world = make_world(agreement, step, (0.02, 0.02, 0.02), branch_seconds=0.05)
    outcome = decode(world, auto(world), max_children=4)
    assert outcome.rate >= 0.98 / staircase(5)


def test_a_request_that_forbids_trees_gets_chains():
    world = make_world(0.4, 0.15, (0.5, 0.3, 0.2))
    assert not any(decode(world, auto(world), max_children=1).branchings)


def test_a_source_that_makes_chains_only_is_not_asked_for_trees():
    ratio, trees = compare([make_world(0.4, 0.15, ())])
    assert ratio == 1.0
    assert branching_share(trees) == 0


def test_rows_without_stairs_are_not_filled_up_in_vain():
    worlds = [make_world(0.8, 0.02, (0.3, 0.1, 0.1), seed=seed) for seed in range(2)]
    for world in worlds:
        world.target, world.computed_rows = (lambda rows: 1 + 0.12 * (rows - 1)), sum_of_rows
    assert compare(worlds)[0] >= 0.99


def test_what_verification_went_through_is_seen_place_by_place():
    tree = TokenTree((5, 6, 7, 8, 9), (-1, -1, 0, 0, 2))
    assert places_along(tree, (0, 3)) == [Place(0, 0, 1), Place(2, 1, 1)]
    assert places_along(tree, (0, 2)) == [Place(0, 0, 1), Place(2, 0, 1), Place(4, None, 0)]
    assert places_along(tree, ()) == [Place(0, None, 1)]


def test_what_siblings_earn_is_learned_by_rank():
    siblings = Siblings()
    for _ in range(100):
        siblings.observe(1, 2)
        siblings.observe(2, 2)
        siblings.observe(None, 2)
    second, third, fourth = siblings.chances(3, is_hopeful=False)
    assert second == pytest.approx(1 / 3, abs=0.05)
    assert third == pytest.approx(1 / 2, abs=0.05)
    assert fourth == 0


def test_siblings_share_what_the_first_leaves():
    worth = Worth(mean=0.6, siblings=(0.5, 0.5))
    tree = TokenTree((1, 2, 3, 4), (-1, -1, -1, 0))
    assert worth.survivals(tree, None) == pytest.approx([0.6, 0.2, 0.1, 0.36])
    assert Worth(0.0, 0.0, 0.5, siblings=(0.9,)).chances([1.0, -1.0]) == pytest.approx([0.5, 0.45])


def test_a_comb_near_the_end_of_its_text_keeps_its_siblings():
    assert within(DraftBudget(4, 8, max_children=3, is_comb=True), 1)[:2] == (1, 8)
    assert within(DraftBudget(4, 8, max_children=3, is_comb=True), 0)[:2] == (0, 0)
