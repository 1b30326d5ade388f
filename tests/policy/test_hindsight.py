"""Looking back: what guesses would have been worth is learned where none was made, and decides who drafts."""

from __future__ import annotations

import pytest

from outrider.policy.account import FIRST_PATIENCE, RENEWED, Account
from outrider.policy.survival import Evidence
from outrider.policy.track import Source
from outrider.sequence import Hindsight
from outrider.tree import TokenTree
from tests.policy.simulator import Guesser, Simulation, World, auto, decode, flat, make_sequence, steep


def plain_rate(world: World, num_sequences: int = 1) -> float:
    return num_sequences / world.target(world.computed_rows([1] * num_sequences))


def test_outcomes_are_learned_from_as_drafted_chains_are():
    looking, drafting = Source("a", looks_back=True), Source("a")
    seen, drafted = Evidence(0), Evidence(0)
    looking.look(seen, 9, Hindsight("a", 0, (True, True, False, None, True, False, False), tuple(range(6))))
    for tree, scores, path in (
        (TokenTree.chain((0, 0, 0)), (0, 1, 2), (0, 1)),
        (TokenTree.chain((0, 0)), (3, 4), (0,)),
        (TokenTree.chain((0,)), (5,), ()),
    ):
        drafting.learn(drafted, 9, tree, scores, path)
    for source, evidence in ((looking, seen), (drafting, drafted)):
        source.survival.update()
        assert (source.survival.num_verified, source.survival.num_accepted) == (6, 3)
        assert (evidence.hits, evidence.slow_hits) == (3, 3)
    assert looking.survival.describe() == drafting.survival.describe()
    assert looking.num_asked == 4
    assert looking.offered < 1.0


def test_an_overdrawn_account_is_renewed_after_a_while_and_each_time_later():
    account, waits = Account(), []
    for _ in range(3):
        while not account.is_overdrawn:
            account.enter(-1.0)
        waits.append(0)
        while not account.renew():
            account.enter(-0.01)  # growth would end the wait by itself
            waits[-1] += 1
        assert account.balance == RENEWED
        assert not account.is_overdrawn
    assert waits[0] == FIRST_PATIENCE - 1
    assert waits[0] < waits[1] < waits[2]
    for _ in range(10):
        account.enter(1.0)
    while not account.is_overdrawn:
        account.enter(-1.0)
    for _ in range(int(FIRST_PATIENCE)):
        account.enter(-0.01)
    assert account.renew()


def test_an_account_that_is_not_overdrawn_is_not_renewed():
    account = Account()
    assert not account.renew()
    assert account.balance > RENEWED


def make_world(chance, *, looks_back: bool = True, step: float = 0.1, **world) -> World:
    guesser = Guesser("g", chance, step=step, per_token=0.005 * step, looks_back=looks_back)
    return World([guesser], **{"target": flat, **world})


@pytest.mark.parametrize("seed", range(4))
def test_a_source_that_nobody_knows_is_looked_back_on_first(seed):
    """At a text's tenth token something is known of it, though it never guessed."""
    world = make_world(lambda *_: 0.8, seed=seed)
    outcome = decode(world, auto(world))
    first = next(index for index, depths in enumerate(outcome.depths) if any(depths))
    assert 8 <= outcome.lengths[first][0] <= 12
    assert outcome.rate > 1.8 * plain_rate(world)


@pytest.mark.parametrize("seed", range(4))
def test_a_source_whose_guesses_are_never_right_is_hardly_ever_asked_for_one(seed):
    world = make_world(lambda *_: 0.0, seed=seed)
    outcome = decode(world, auto(world))
    assert sum(map(any, outcome.depths)) <= 2
    assert outcome.rate > 0.99 * plain_rate(world)


@pytest.mark.parametrize("step", [1.0, 10.0])
@pytest.mark.parametrize("num_sequences", [1, 4])
def test_to_look_back_with_a_slow_source_costs_next_to_nothing(step, num_sequences):
    world = make_world(lambda *_: 0.9, step=step)
    outcome = decode(world, auto(world), num_sequences=num_sequences)
    assert outcome.rate > 0.975 * plain_rate(world, num_sequences)


@pytest.mark.parametrize("seed", range(4))
def test_a_text_that_turns_good_is_drafted_for_soon(seed):
    """Bad for as long as it takes to give up, and then good: looking back tells within some steps."""

    def chance(_, position):
        return 0.9 if position >= 256 else 0.02

    world = make_world(chance, seed=seed, change_seconds=1.0)
    outcome = decode(world, auto(world))
    after = [any(depths) for depths, (length,) in zip(outcome.depths, outcome.lengths, strict=True) if length >= 300]
    assert sum(after) > 0.8 * len(after)
    blind = make_world(chance, seed=seed, looks_back=False, change_seconds=1.0)
    assert outcome.rate > decode(blind, auto(blind)).rate


def test_what_was_looked_back_on_stays_within_a_text():
    """Of two texts, only the one that the source is right about is drafted for."""
    world = make_world(lambda index, _: 0.9 if index else 0.0, target=steep)
    outcome = decode(world, auto(world), num_sequences=2)
    asked = [sum(depths[place] > 0 for depths in outcome.depths if len(depths) == 2) for place in range(2)]
    assert asked[0] <= 12
    assert asked[1] > 60


def test_a_source_that_nobody_knows_reads_a_long_prompt_too():
    """Reading takes four plain steps, more than probes may cost; else nobody would ever know it."""
    world = make_world(lambda *_: 0.85)
    world.guessers[0].per_token = 0.002
    outcome = decode(world, auto(world), num_prompt=2000)
    assert sum(map(any, outcome.depths)) > 50
    assert outcome.rate > 1.3 * plain_rate(world)


def test_a_source_that_nobody_knows_is_known_after_some_short_texts():
    world = make_world(lambda *_: 0.9)
    outcome = Simulation(world, auto(world), [make_sequence(index, 6) for index in range(12)]).run(at_once=1)
    assert sum(map(any, outcome.depths)) >= 6


def test_what_one_text_is_told_of_in_two_pieces_is_all_learned():
    """And a look whose text was read in part only is not over."""

    class Piecewise(Simulation):
        def look_back(self, guesser, sequences, budgets):
            work = super().look_back(guesser, sequences, budgets)
            for told in self.hindsight[:]:
                self.hindsight.remove(told)
                halves = told.outcomes[: len(told.outcomes) // 2], told.outcomes[len(told.outcomes) // 2 :]
                self.hindsight += [told._replace(outcomes=outcomes) for outcomes in halves]
            return work

    world = make_world(lambda *_: 0.0)
    policy = auto(world)
    simulation = Piecewise(world, policy, [make_sequence(0, 64)])
    simulation.run(num_tokens=12)
    (source,) = policy.describe()["sources"].values()
    assert source["num_verified"] >= 7
