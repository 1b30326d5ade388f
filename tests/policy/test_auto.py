"""The policy is as fast as the best fixed depth, never pays for a bad drafter, and follows a text that changes."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from outrider.policy.fixed import FixedPolicy
from tests.policy.simulator import (
    Guesser,
    Outcome,
    Simulation,
    World,
    auto,
    decode,
    decode_stream,
    flat,
    make_sequence,
    rungs,
    staircase,
    steep,
    sum_of_rows,
)

TARGETS = {"flat": (flat, sum_of_rows), "steep": (steep, sum_of_rows), "staircase": (staircase, rungs)}
DEPTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)


def make_world(agreement, step, shape, *, seed=0, noise=0.1, **kwargs) -> World:
    chance = agreement if callable(agreement) else lambda index, position: agreement
    target, computed_rows = TARGETS[shape]
    guesser = Guesser("model", chance, step=step, per_token=step / 20, **kwargs)
    return World([guesser], target, computed_rows, noise, seed=seed)


def plain_rate(world: World, num_sequences: int) -> float:
    return num_sequences / world.target(world.computed_rows([1] * num_sequences))


def share_of_best_fixed(worlds: list[World], num_sequences: int, num_tokens: int) -> float:
    """Tokens per second over those of the fixed depth that is best for all these texts, in hindsight."""

    def rate(outcomes: list[Outcome]) -> float:
        return sum(outcome.num_tokens for outcome in outcomes) / sum(outcome.seconds for outcome in outcomes)

    def run(policies) -> float:
        return rate(
            [
                decode_stream(world, policy, at_once=num_sequences, num_tokens=num_tokens)
                for world, policy in zip(worlds, policies, strict=True)
            ]
        )

    best = max(run([FixedPolicy(depth)] * len(worlds)) for depth in DEPTHS)
    return run([auto(world) for world in worlds]) / best


ADVERSARIES = [
    # agreement, seconds of a draft step in plain steps, how many times that is more than was thought
    (0.0, 0.05, 1), (0.0, 0.3, 1), (0.0, 1.5, 1), (0.04, 0.1, 1), (0.04, 0.6, 1),
    (0.8, 1.5, 10), (0.0, 1.0, 10), (0.0, 0.5, 10),
]  # fmt: skip


@pytest.mark.parametrize("num_sequences", [1, 4, 16])
@pytest.mark.parametrize("shape", ["flat", "steep"])
def test_a_bad_drafter_costs_at_most_two_percent_of_512_tokens(shape, num_sequences):
    adversaries = ADVERSARIES if num_sequences < 16 else ADVERSARIES[1::3]
    shares = []
    for agreement, step, factor in adversaries:
        world = make_world(agreement, step, shape, noise=0.2)
        outcome = decode(world, auto(world, priors={"model": step / factor}), num_sequences=num_sequences)
        shares.append(outcome.rate / plain_rate(world, num_sequences))
    assert min(shares) >= 0.98
    assert sum(shares) / len(shares) >= 0.985


def test_a_drafter_of_unknown_cost_on_a_target_without_profile_is_found_out_as_well():
    world = make_world(0.0, 1.0, "flat", noise=0.1)
    outcome = decode(world, auto(world, profiled=False, priors={"model": None}))
    assert outcome.rate / plain_rate(world, 1) >= 0.98


def test_a_drafter_whose_scores_lie_is_found_out_as_well():
    world = make_world(0.02, 0.1, "steep", is_scored=True, blur=3.0)
    assert decode(world, auto(world)).rate / plain_rate(world, 1) >= 0.98


BATCHES = [
    # sequences, tokens of each, draft steps' seconds by agreement, seeds
    (1, 512, ((0.4, 0.02), (0.6, 0.1), (0.8, 0.3), (0.9, 0.1), (0.98, 0.1)), 2),
    (4, 256, ((0.4, 0.02), (0.7, 0.1), (0.9, 0.3)), 1),
    (16, 128, ((0.6, 0.02), (0.9, 0.1)), 1),
]


@pytest.mark.parametrize("shape", TARGETS)
@pytest.mark.parametrize(("num_sequences", "num_tokens", "pairs", "num_seeds"), BATCHES)
def test_it_comes_close_to_the_best_fixed_depth_in_hindsight(num_sequences, num_tokens, pairs, num_seeds, shape):
    shares = []
    for agreement, step in pairs:
        worlds = [make_world(agreement, step, shape, seed=seed) for seed in range(num_seeds)]
        shares.append(share_of_best_fixed(worlds, num_sequences, num_tokens))
    assert min(shares) >= 0.9  # of few texts the best depth in hindsight is a lucky one
    assert math.prod(shares) ** (1 / len(shares)) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("is_scored", [False, True])
@pytest.mark.parametrize("num_sequences", [1, 4, 16])
def test_it_comes_close_to_the_best_fixed_depth_everywhere(num_sequences, is_scored):
    shares = [
        share_of_best_fixed(
            [
                make_world(agreement, step, shape, seed=seed, is_scored=is_scored, spread=1.5 * is_scored)
                for seed in range(3 if num_sequences < 16 else 1)
            ],
            num_sequences,
            512,
        )
        for agreement in (0.4, 0.6, 0.8, 0.9, 0.98)
        for step in (0.02, 0.1, 0.3)
        for shape in TARGETS
    ]
    assert min(shares) >= 0.85
    assert math.prod(shares) ** (1 / len(shares)) >= 0.97


def test_it_beats_every_fixed_depth_where_scores_tell():
    worlds = [make_world(0.8, 0.1, "flat", seed=seed, is_scored=True, spread=3.0) for seed in range(2)]
    assert share_of_best_fixed(worlds, 1, 512) >= 1.05


def test_it_beats_every_fixed_depth_where_texts_differ():
    world = make_world(lambda index, position: (0.95, 0.1)[index % 2], 0.1, "steep")
    assert share_of_best_fixed([world], 4, 384) >= 1.03


def planned_depths(outcome: Outcome) -> list[tuple[int, int]]:
    """Tokens of the only text, and the depth planned there."""
    return [(lengths[0], depths[0]) for lengths, depths in zip(outcome.lengths, outcome.depths, strict=True)]


def test_it_goes_down_to_small_drafts_within_24_tokens_of_a_text_turning_bad_and_soon_stops():
    world = make_world(lambda index, position: 0.9 if position < 200 else 0.02, 0.1, "flat")
    planned = planned_depths(decode(world, auto(world)))
    assert max(depth for length, depth in planned if length in range(224, 300)) <= 2
    assert sum(depth > 0 for length, depth in planned if length >= 200) <= 60
    assert sum(depth for length, depth in planned if length >= 200) * 0.1 <= 12  # plain steps


def test_it_drafts_again_within_150_tokens_of_a_text_turning_good():
    world = make_world(lambda index, position: 0.02 if position < 200 else 0.95, 0.1, "flat")
    outcome = decode(world, auto(world))
    drafted = [depth > 1 for length, depth in planned_depths(outcome) if length >= 350]
    assert sum(drafted) >= 0.9 * len(drafted)


def test_a_slow_spell_changes_no_decision():
    def run(slowness) -> tuple[list[list[int]], list]:
        world = make_world(0.8, 0.1, "staircase", noise=0.0)
        world.slowness = slowness
        outcome = decode(world, auto(world), num_tokens=1500)
        return outcome.depths, outcome.sequences[0].decisions

    depths, decisions = run(lambda step: 1.0)
    slow_depths, slow_decisions = run(lambda step: 1.5 if 100 <= step < 300 else 1.0)
    assert [decision[:3] for decision in slow_decisions] == [decision[:3] for decision in decisions]
    different = sum(one != other for one, other in zip(depths, slow_depths, strict=False))
    assert different <= 0.1 * len(depths)


def make_cascade(agreement: float, seed: int = 0) -> World:
    """A suffix drafter that is good where the text repeats itself, and sure of it there, before a model."""

    def repeats(index: int, position: int) -> bool:
        return (position // 64 + index) % 2 == 0

    suffix = Guesser(
        "suffix",
        lambda index, position: 0.95 if repeats(index, position) else 0.2,
        step=2e-4,
        is_scored=True,
        is_stepless=True,
        offers=lambda index, position: repeats(index, position) or position % 5 < 2,
    )
    model = Guesser("model", lambda index, position: agreement, step=0.1, per_token=0.005, is_scored=True, spread=1.0)
    return World([suffix, model], flat, sum_of_rows, 0.1, seed=seed)


@pytest.mark.parametrize("num_sequences", [1, 4])
def test_a_cascade_is_faster_than_either_of_its_members(num_sequences):
    world = make_cascade(0.75)
    both, *alone = [
        decode_stream(part, auto(part), at_once=num_sequences, num_tokens=256).rate
        for part in (world, *(World([guesser], flat, sum_of_rows, 0.1) for guesser in world.guessers))
    ]
    assert both >= 1.05 * max(alone)


def together_over_alone(suffix: Guesser, model: Guesser) -> float:
    """Speed of texts that both draft for, one at a time, over those that only the first does."""
    both, alone = (
        decode_stream(world, auto(world), at_once=1, num_tokens=512).rate
        for world in (World(part, flat, sum_of_rows) for part in ([suffix, model], [suffix]))
    )
    return both / alone


def test_where_a_cheaper_source_is_silent_a_dearer_one_need_not_be_as_good_as_that_is_elsewhere():
    """Three quarters of a text repeat themselves. Where they do not, a model adds half a token for 0.3 steps."""

    def repeats(index: int, position: int) -> bool:
        return position // 64 % 4 != 0

    suffix = Guesser("suffix", lambda *_: 0.97, step=2e-4, is_scored=True, is_stepless=True, offers=repeats)
    model = Guesser("model", lambda *_: 0.5, step=0.3, is_scored=True)
    assert together_over_alone(suffix, model) >= 1.04


def test_where_silent_places_come_at_random_a_dearer_source_costs_little():
    """The next place is as likely as any other to have a cheaper guess: the model should be left out."""
    suffix = Guesser(
        "suffix", lambda *_: 0.9, step=2e-4, is_scored=True, is_stepless=True,
        offers=lambda index, position: random.Random(f"{index} {position}").random() < 0.6,
    )  # fmt: skip
    model = Guesser("model", lambda *_: 0.5, step=0.3, is_scored=True)
    assert together_over_alone(suffix, model) >= 0.97


def test_a_cascade_does_not_pay_for_a_member_that_is_bad():
    world = make_cascade(0.0)
    suffix = World(world.guessers[:1], flat, sum_of_rows, 0.1)
    both, alone = (decode_stream(part, auto(part), at_once=1).rate for part in (world, suffix))
    assert both >= 0.97 * alone


def test_a_cheaper_sources_better_guesses_say_nothing_of_how_often_a_dearer_one_has_any():
    suffix = Guesser("suffix", lambda *_: 0.9, step=2e-4, is_scored=True, is_stepless=True)
    model = Guesser("model", lambda *_: 0.9, step=0.02, is_scored=True)
    world = World([suffix, model], noise=0.05)
    policy = auto(world)
    decode_stream(world, policy, at_once=4, num_tokens=512)
    first, second = policy._sources
    assert first.num_asked > 200
    assert first.offered == pytest.approx(1.0)
    assert second.offered == pytest.approx(1.0)  # where it is left to draft, it does


def test_a_text_of_another_character_gets_its_chance():
    """Seven texts teach that the drafter is bad; the eighth, which comes later, finds it good."""
    world = make_world(lambda index, position: 0.95 if index == 7 else 0.02, 0.05, "flat")
    sequences = [make_sequence(index, 300) for index in range(8)]
    outcome = Simulation(world, auto(world), sequences, start=[0] * 7 + [60]).run()
    assert sum(len(lengths) == 8 for lengths in outcome.lengths) <= 200  # of 300 tokens
    assert sum(depths[0] > 0 for depths in outcome.depths) <= 120  # of 300, the first text is left alone


@pytest.mark.parametrize("num_sequences", [1, 8])
def test_drafts_earn_what_thinking_about_them_takes_or_are_not_made(num_sequences):
    world = make_world(0.4, 0.02, "flat")
    world.thinking_seconds = 0.5
    assert decode(world, auto(world), num_sequences=num_sequences).rate >= 0.97 * plain_rate(world, num_sequences)
    world.thinking_seconds = 0.0
    assert decode(world, auto(world), num_sequences=num_sequences).rate >= 1.1 * plain_rate(world, num_sequences)


def test_a_source_that_no_plan_asks_keeps_nobody_planning():
    """Of two sources one is soon known to be bad; the other is so slow that it is never tried."""
    bad = Guesser("suffix", lambda *_: 0.0, step=0.05, is_scored=True)
    world = World([bad, Guesser("model", lambda *_: 0.5, step=50.0)], noise=0.05)
    policy = auto(world)
    planner, num_plans = policy._planner, []
    plan = planner.plan
    planner.plan = lambda *arguments: num_plans.append(1) or plan(*arguments)  # type: ignore[method-assign]
    outcome = decode(world, policy, num_sequences=8)
    assert len(num_plans) < 0.1 * outcome.num_steps


def test_rows_that_change_dearly_change_seldom():
    def num_changes(change_seconds: float) -> int:
        world = make_world(0.7, 0.05, "staircase", is_scored=True, spread=2.0)
        world.change_seconds = change_seconds
        rows = [rungs([1 + depth[0]]) for depth in decode(world, auto(world)).depths]
        return sum(before != after for before, after in itertools.pairwise(rows))

    assert num_changes(0.5) <= num_changes(0.0)


def in_forwards_of_33_rows(rows: int) -> float:
    num_forwards = math.ceil(rows / 33)
    return num_forwards * flat(rows / num_forwards)


def test_where_many_rows_take_several_forwards_drafts_are_shorter():
    def world(target) -> World:
        return World([Guesser("model", lambda index, position: 0.8, step=0.05)], target, noise=0.05)

    def decoded(target, policy) -> Outcome:
        return decode_stream(world(target), policy, at_once=16, num_tokens=256)

    def mean_depth(outcome: Outcome) -> float:
        return sum(map(sum, outcome.depths)) / sum(map(len, outcome.depths))

    in_one = decoded(flat, auto(world(flat)))
    tiled = in_forwards_of_33_rows
    in_several = decoded(tiled, auto(world(tiled), forward=flat, max_rows=33))
    assert mean_depth(in_several) < 0.5 * mean_depth(in_one)
    assert in_several.rate >= 0.95 * max(decoded(tiled, FixedPolicy(depth)).rate for depth in DEPTHS)
