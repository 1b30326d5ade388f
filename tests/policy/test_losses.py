"""What drafters take is theirs: looks are paid for, and so is what a draft leaves slower."""

from __future__ import annotations

import pytest

from outrider.policy.account import PROBE_ALLOWANCE
from outrider.policy.losses import MAX_FIRST_LOOK, SURPRISE, LookCosts
from outrider.policy.planner import Planner
from tests.policy.simulator import Guesser, Simulation, World, auto, decode, decode_stream, flat, make_sequence


def test_what_a_look_takes_is_learned_for_as_many_texts():
    looks = LookCosts()
    assert looks.seconds("a", 4) == 0.0
    assert looks.believed("a", 4, 0.4, 1.0) == 0.4
    assert looks.seconds("a", 5) == pytest.approx(0.1)
    assert looks.seconds("a", 1) == pytest.approx(0.1)  # as the others, until it was seen
    assert looks.seconds("b", 4) == 0.0
    assert looks.believed("a", 4, 100.0, 1.0) == pytest.approx(SURPRISE * 0.4)


def test_a_first_look_is_believed_up_to_a_limit_and_one_that_took_nothing_tells_nothing():
    looks = LookCosts()
    assert looks.believed("a", 2, -1.0, 1.0) == 0.0
    assert looks.believed("a", 2, 100.0, 1.0) == MAX_FIRST_LOOK < PROBE_ALLOWANCE
    assert looks.seconds("a", 2) == MAX_FIRST_LOOK / 2
    before = looks.seconds("a", 2)
    for _ in range(100):
        looks.doubt("a", 2)
    assert looks.seconds("a", 2) < before / 2


def test_a_first_look_that_took_next_to_nothing_does_not_hide_what_others_take():
    looks = LookCosts()
    looks.believed("a", 1, 1e-9, 1.0)
    for _ in range(20):
        looks.believed("a", 1, 0.5, 1.0)
    assert looks.seconds("a", 1) > 0.25


def test_looks_take_a_small_share_of_the_time_however_long_they_take():
    """A source that computes nothing, but takes long to follow each text."""
    guesser = Guesser("g", lambda *_: 0.02, step=0.0, is_stepless=True, looks_back=True, look_seconds=0.05)
    world = World([guesser], target=flat)
    outcome = decode_stream(world, auto(world), at_once=8, num_tokens=1024)
    assert 0 < outcome.look_seconds < 0.015 * outcome.seconds


@pytest.mark.parametrize("seed", range(3))
def test_what_a_draft_leaves_slower_counts_against_it(seed):
    """The same rows are computed with drafts and without, so that nothing but the draft can have made them slower."""
    worlds = [
        World(
            [Guesser("g", lambda *_: 0.35, step=0.05, after_seconds=after)],
            computed_rows=lambda rows: max(8, sum(rows)), seed=seed, noise=0.05,
        )
        for after in (0.0, 0.8)
    ]  # fmt: skip
    fast, slow = (decode(world, auto(world), num_tokens=1024) for world in worlds)
    assert sum(map(any, fast.depths)) > 0.8 * fast.num_steps
    assert sum(map(any, slow.depths)) < 0.2 * slow.num_steps


def test_drafts_of_a_fixed_depth_beside_a_look_are_not_what_the_policy_loses():
    """A text that is drafted for whatever it takes stands beside one that is looked back on."""
    world = World([Guesser("g", lambda index, _: 0.9 if index else 0.0, step=0.3, looks_back=True)], target=flat)
    policy = auto(world)
    sequences = [make_sequence(0, 400), make_sequence(1, 1600, depth=3)]
    Simulation(world, policy, sequences).run()
    assert not policy.account.is_overdrawn


def test_drafting_goes_on_as_soon_as_the_account_allows_it():
    """Though the text is thought of as before, and nothing else would ask for a plan for long."""
    world = World([Guesser("g", lambda *_: 0.8, looks_back=True)], target=flat)
    policy = auto(world)
    simulation = Simulation(world, policy, [make_sequence(0, 2000)])
    simulation.run(num_tokens=200)
    policy.account.balance, policy.account.is_overdrawn = -0.5, True
    for _ in range(200):
        simulation.step()
        if not policy.account.is_overdrawn:
            break
    for _ in range(4):
        simulation.step()
    assert simulation.outcome.depths[-1][0] > 0


def num_plans(monkeypatch: pytest.MonkeyPatch, *, looks_back: bool) -> int:
    """While eight texts at once give way to others, 56 times, and nobody is drafted for."""
    plans: list[int] = []
    plan = Planner.plan
    monkeypatch.setattr(Planner, "plan", lambda self, *args: plans.append(1) or plan(self, *args))
    world = World([Guesser("g", lambda *_: 0.0, looks_back=looks_back)], target=flat)
    sequences = [make_sequence(index, 60 + index) for index in range(64)]
    Simulation(world, auto(world), sequences).run(at_once=8)
    return len(plans)


def test_who_joins_while_nobody_is_drafted_for_is_looked_at_before_all_is_thought_through(monkeypatch):
    assert 1 <= num_plans(monkeypatch, looks_back=True) < 30


def test_texts_that_end_while_nobody_is_drafted_for_are_no_reason_to_think_until_some_have(monkeypatch):
    """Sixteen, one after the other."""
    plans: list[int] = []
    plan = Planner.plan
    monkeypatch.setattr(Planner, "plan", lambda self, *args: plans.append(1) or plan(self, *args))
    world = World([Guesser("g", lambda *_: 0.0, looks_back=True)], target=flat)
    policy = auto(world)
    Simulation(world, policy, [make_sequence(100, 64)]).run()
    plans.clear()
    Simulation(world, policy, [make_sequence(index, 20 + 2 * index) for index in range(16)]).run()
    assert 1 <= len(plans) <= 12


def test_who_can_be_drafted_for_without_a_look_is_thought_about_at_once(monkeypatch):
    assert num_plans(monkeypatch, looks_back=False) >= 56


def test_a_good_text_among_idle_ones_is_drafted_for_soon():
    world = World([Guesser("g", lambda index, _: 0.9 if index == 20 else 0.0, looks_back=True)], target=flat)
    sequences = [make_sequence(index, 96) for index in range(24)]
    outcome = Simulation(world, auto(world), sequences).run(at_once=2)
    deep = [
        lengths[depths.index(max(depths))]
        for depths, lengths in zip(outcome.depths, outcome.lengths, strict=True)
        if max(depths) >= 3
    ]
    assert len(deep) >= 5  # each of which may add ten tokens
    assert min(deep) <= 24
