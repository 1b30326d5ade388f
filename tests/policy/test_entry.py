"""What an unknown drafter may take to read a prompt: little until its price is known, not much until it is good.

Steps of the virtual clock; a token takes a twentieth of the time of a draft step to read, and each call a forward.
"""

from __future__ import annotations

import pytest

from outrider.policy.account import RESERVE, Account
from outrider.policy.cost import StepCosts
from outrider.policy.entry import MAX_DEBT, PROVEN, Entry, Reader
from outrider.policy.marginal import AutoPolicy
from outrider.policy.track import Source
from outrider.sequence import DraftWork
from tests.policy.simulator import Guesser, Simulation, World, auto, decode, flat, make_sequence, sum_of_rows

ADVERSARIES = [
    # agreement, seconds of a draft step in plain steps, how many times that is more than was thought (None: no thought)
    (0.0, 0.05, 1), (0.0, 0.1, 1), (0.0, 0.3, 1), (0.04, 0.1, 1), (0.0, 0.5, 10), (0.8, 1.0, 10), (0.8, 3.0, 10),
    (0.8, 1.0, None), (0.0, 0.3, None),
]  # fmt: skip


def make_world(agreement: float, step: float, *, seed: int = 0, noise: float = 0.2) -> World:
    guesser = Guesser("model", lambda index, position: agreement, step=step, per_token=step / 20)
    return World([guesser], flat, sum_of_rows, noise, seed=seed)


def speed(agreement: float, step: float, factor: float | None, num_prompt: int, num_tokens: int) -> float:
    world = make_world(agreement, step)
    policy = auto(world, priors={"model": None if factor is None else step / factor})
    return decode(world, policy, num_tokens=num_tokens, num_prompt=num_prompt).rate


@pytest.mark.parametrize("num_tokens", [512, 1024])
@pytest.mark.parametrize("num_prompt", [100, 500, 2000])
def test_a_bad_drafter_costs_at_most_two_percent_however_long_the_prompt_is(num_prompt, num_tokens):
    assert min(speed(*each, num_prompt, num_tokens) for each in ADVERSARIES) >= 0.98


@pytest.mark.parametrize("num_prompt", [100, 500])
@pytest.mark.parametrize("factor", [1, 3, None])
def test_a_good_drafter_is_made_use_of_all_the_same(num_prompt, factor):
    assert speed(0.8, 0.1, factor, num_prompt, 512) >= 2.2


def test_a_prompt_too_long_for_one_texts_time_is_read_when_several_had_none_of_it():
    world = make_world(0.8, 0.1)
    sequences = [make_sequence(index, 512, num_prompt=2500) for index in range(4)]
    outcome = Simulation(world, auto(world), sequences).run(at_once=1)
    assert outcome.rate >= 1.3
    assert [bool(sequence.decisions and sequence.decisions[0].depth) for sequence in sequences][-1]


def test_the_first_call_is_small_and_a_proven_source_reads_all():
    world = make_world(0.9, 0.1, noise=0.0)
    policy = auto(world, priors={"model": None})
    simulation = Simulation(world, policy, [make_sequence(0, 400, num_prompt=400)])
    limits: list[int | None] = []
    plan = policy.plan

    def noting(sequences):
        budgets = plan(sequences)
        limits.extend(budget.max_catch_up for budget in budgets if budget.limit)
        return budgets

    policy.plan = noting
    simulation.run()
    assert 8 <= limits[0] <= 20  # a plain step's worth, were it ten times as slow as drafters usually are
    assert limits[1] <= 4 * limits[0]
    assert limits[-1] is None


def test_catching_up_is_not_taken_for_having_no_guess():
    world = make_world(0.8, 0.1, noise=0.0)
    policy = auto(world)
    simulation = Simulation(world, policy, [make_sequence(0, 400, num_prompt=400)])
    while not policy._sources[0].survival.num_verified:
        simulation.run(num_tokens=1)  # a step
    assert policy.costs.chunks("model")[0] >= 2
    assert policy._sources[0].offered == 1.0


def test_chunks_tell_what_a_token_and_about_what_a_draft_step_takes():
    costs = StepCosts([(1, 1.0)], sum_of_rows, {"model": 0.1})
    for num_tokens in (20, 80):
        costs.observe_draft(DraftWork("model", 1, 0, num_tokens, 1.0 + 0.05 * num_tokens))
    assert costs.catch_up("model", 100) == pytest.approx(5.0, rel=0.1)
    assert sum(costs.draft("model", 1)) == pytest.approx(1.0, rel=0.1)
    assert costs.num_drafts("model") == 0


def test_a_first_chunk_that_was_slow_for_being_the_first_is_forgotten():
    costs = StepCosts([(1, 1.0)], sum_of_rows, {"model": 0.1})
    for seconds in (5.0, 0.2, 0.2):
        costs.observe_draft(DraftWork("model", 1, 0, 20, seconds))
    assert costs.catch_up("model", 20) <= 0.2
    assert sum(costs.draft("model", 1)) <= 0.2


def test_an_investment_leaves_a_reserve_and_what_is_beyond_that_is_paid_off_before_there_is_more():
    account = Account()
    account.enter(0.0, invested=6.0)
    assert account.balance == RESERVE
    assert not account.is_overdrawn
    debt = account.debt
    account.enter(0.0)
    assert account.balance == RESERVE
    assert account.debt < debt
    account.enter(100.0)
    assert account.debt == 0


def test_a_member_of_a_cascade_reads_in_chunks_too():
    policy = AutoPolicy(
        StepCosts([(1, 1.0), (9, 1.1)], sum_of_rows, {"model": 0.1, "suffix": 1e-4}), ("suffix", "model")
    )
    [budget] = policy.plan([make_sequence(0, 400, num_prompt=400)])
    assert budget.members[1].limit
    assert budget.members[1].max_catch_up <= 64


def test_a_proven_source_reads_on_credit_until_what_it_gained_has_paid():
    costs, account = StepCosts([(1, 1.0), (2, 1.0)], priors={"model": 0.1}), Account()
    entry, source = Entry(costs, account), Source("model")
    source.survival.num_accepted = PROVEN
    long, short = Reader(0, 5.0, 100), Reader(1, 0.01, 100)
    assert entry.affordable(source, [long, short], 1.0) == [0, 1]
    account.enter(0.0, owed=MAX_DEBT + 1)
    assert entry.affordable(source, [long, short], 1.0) == [1]
    account.enter(1.5)
    assert entry.affordable(source, [long, short], 1.0) == [0, 1]


def test_tokens_of_the_step_before_are_not_owed():
    costs = StepCosts([(1, 1.0), (2, 1.0)], priors={"model": 0.1})
    entry, source = Entry(costs, Account()), Source("model")
    source.survival.num_accepted = PROVEN
    costs.observe_target(1, 1.0)
    costs.observe_draft(DraftWork("model", 1, 1, 0, 0.2))
    usual, new = DraftWork("model", 4, 1, 8, 0.2), DraftWork("model", 4, 1, 108, 2.0)
    assert entry.owed([source], [usual], 1.0) == 0
    assert entry.owed([source], [new], 1.0) == pytest.approx(costs.catch_up("model", 100))
    assert entry.owed([source], [new._replace(seconds=0.1)], 1.0) == pytest.approx(0.1 / costs.speed)
    source.survival.num_accepted = 0
    assert entry.owed([source], [new], 1.0) == 0
