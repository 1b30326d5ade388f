"""Plans are valid whatever comes, and what is said about them is true."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings, strategies as st

from outrider.policy.cost import Changes, StepCosts
from outrider.policy.curve import Prices, curve_of, logit
from outrider.policy.marginal import AutoPolicy
from outrider.policy.plan import Base, Candidate, Plan, Settled
from outrider.policy.search import Search, break_even
from outrider.policy.survival import Evidence
from outrider.policy.track import Source
from outrider.request import MAX_DEPTH
from outrider.sequence import DecodeStep, DraftWork
from outrider.tree import ROOT, DraftBudget, TokenTree, Verdict
from tests.policy.simulator import Guesser, World, auto, decode, flat, make_sequence, rungs, staircase, steep

TARGETS = [flat, steep, staircase]


def random_tree(draw: random.Random, limit: int) -> TokenTree:
    tree = TokenTree()
    while len(tree) < limit and draw.random() < 0.8:
        parent = len(tree) - 1 if draw.random() < 0.8 else draw.randrange(ROOT, len(tree))
        tree = TokenTree((*tree.tokens, draw.randrange(9)), (*tree.parents, parent))
    return tree


def random_path(draw: random.Random, tree: TokenTree) -> tuple[int, ...]:
    path: list[int] = []
    while draw.random() < 0.7:
        last = path[-1] if path else ROOT
        children = [node for node, parent in enumerate(tree.parents) if parent == last]
        if not children:
            break
        path.append(draw.choice(children))
    return tuple(path)


def check_budget(budget: DraftBudget, num_left: int, num_sources: int) -> None:
    assert 0 <= budget.limit <= max(0, min(MAX_DEPTH, num_left - 1))
    worth = budget.worth
    assert all(map(math.isfinite, (*worth[:5], *worth.siblings, worth.sibling_price, budget.gain)))
    assert len(budget.members) in (0, num_sources)
    if budget.members:
        assert budget.limit == max(member.limit for member in budget.members)
        for member in budget.members:
            check_budget(member, num_left, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.one_of(st.just("auto"), st.integers(0, MAX_DEPTH)), min_size=1, max_size=6),
    st.sampled_from([("model",), ("suffix", "model"), ("prediction", "suffix", "model")]),
    st.booleans(),
)
def test_budgets_are_within_limits_whatever_drafters_and_clocks_do(seed, asked, sources, profiled):
    draw = random.Random(seed)
    profile = [(1, 0.01), (9, 0.02)] if profiled else []
    costs = StepCosts(profile, rungs, {"model": draw.choice([None, 1e-4, 1.0])}, changes=Changes(0.001))
    policy = AutoPolicy(costs, sources)
    running = [make_sequence(index, draw.randint(1, 40), depth=depth) for index, depth in enumerate(asked)]
    while running:
        chosen = [sequence for sequence in running if draw.random() < 0.9] or running
        budgets = policy.plan(chosen)
        for sequence, budget in zip(chosen, budgets, strict=True):
            check_budget(budget, sequence.num_tokens_left, len(sources))
            if sequence.request.depth != "auto":
                assert budget.limit == min(sequence.request.depth, sequence.num_tokens_left - 1)
        trees = [random_tree(draw, budget.limit) for budget in budgets]
        paths = [random_path(draw, tree) for tree in trees]
        for sequence, path in zip(chosen, paths, strict=True):
            sequence.token_ids += [0] * min(len(path) + 1, sequence.num_tokens_left)
        policy.observe(
            DecodeStep(
                sequences=chosen,
                budgets=budgets,
                trees=trees,
                scores=[draw.choice([None, tuple(draw.gauss(0, 9) for _ in tree.tokens)]) for tree in trees],
                sources=[draw.choice([*sources, "cascade"]) for _ in chosen],
                verdicts=[Verdict(path, 0, is_bonus=False) for path in paths],
                num_rows=[1 + len(tree) for tree in trees] + [1] * (draw.random() < 0.2),
                num_computed_rows=rungs([1 + len(tree) for tree in trees]),
                work=[
                    DraftWork(
                        source,
                        draw.randint(1, 4),
                        draw.randint(0, 8),
                        draw.randint(0, 50),
                        draw.choice([0.0, 1e-5, 0.1, 3.0]),
                    )
                    for source in draw.sample([*sources, "cascade"], draw.randint(0, len(sources)))
                ],
                seconds=draw.choice([0.0, 1e-4, 0.01, 5.0]),
            )
        )
        for sequence in [sequence for sequence in running if not sequence.num_tokens_left]:
            running.remove(sequence)
            policy.release(sequence)
            assert len(sequence.decisions) <= 32
    assert not policy._texts


def test_nothing_is_planned_for_a_text_whose_only_drafter_failed():
    policy, sequence = auto(World([Guesser("model", lambda *_: 0.9)])), make_sequence(0, 50)
    assert policy.plan([sequence])[0].limit > 0
    sequence.draft_fault = "raised"
    assert policy.plan([sequence, make_sequence(1, 50)])[0].limit == 0


def beats_plain(agreement: float, costs: StepCosts, num_sequences: int) -> bool:
    """By definition: some depth, the same for all, makes more tokens a second than plain decoding."""
    fixed, step = costs.draft("model", num_sequences)

    def rate(depth: int) -> float:
        tokens = sum(agreement**power for power in range(depth + 1))
        draft = fixed + step * depth if depth else 0.0
        return num_sequences * tokens / (costs.target(costs.computed_rows([1 + depth] * num_sequences)) + draft)

    return any(rate(depth) > rate(0) for depth in range(1, MAX_DEPTH + 1))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("num_sequences", [1, 4, 16])
@pytest.mark.parametrize("step", [0.001, 0.1, 0.6, 2.0])
def test_break_even_is_the_least_agreement_at_which_some_depth_beats_plain(target, num_sequences, step):
    profile = [(rows, target(rows)) for rows in (2, 5, 9, 13, 17, 25, 33, 49, 65)]
    costs = StepCosts(profile, rungs, {"model": step})
    computed = rungs([1] * num_sequences)
    base = Base([1] * num_sequences, costs.target(computed), computed, {})
    least = break_even(costs, "model", base, range(num_sequences))
    if least is None:
        assert not beats_plain(1.0, costs, num_sequences)
    else:
        assert beats_plain(min(1.0, least + 0.01), costs, num_sequences)
        assert not beats_plain(max(0.0, least - 0.01), costs, num_sequences)


def test_a_plan_on_top_of_another_must_be_better_than_both_together():
    base = Base([1] * 4, 2.0, 4, {})
    settled = base.after(Plan(3, [3] * 4, rate=3.0, seconds=4.0))
    assert (base.rate, settled.rate, settled.num_tokens) == (2.0, 3.0, 12.0)


def test_decisions_say_when_drafting_began_and_stopped_and_why():
    world = World([Guesser("model", lambda index, position: 0.9 if position < 200 else 0.0)], noise=0.05)
    [sequence] = decode(world, auto(world)).sequences
    first, *middle, last = sequence.decisions
    assert first.depth > 0 == last.depth
    assert first.at_token < 10
    assert 200 <= last.at_token <= 260
    assert last.break_even is not None
    assert last.agreement <= last.break_even + 0.05
    assert len(middle) <= 2
    assert {decision.source for decision in sequence.decisions} == {"model"}


def test_a_drafter_that_can_never_pay_is_said_to_have_no_break_even():
    world = World([Guesser("model", lambda *_: 0.9, step=1.5)])
    [sequence] = decode(world, auto(world), num_tokens=100).sequences
    assert [decision.depth for decision in sequence.decisions] == [0]
    assert sequence.decisions[0].break_even is None


def test_probes_and_sources_without_guesses_are_no_decisions():
    never = Guesser("prediction", lambda *_: 0.9, step=1e-5, is_stepless=True, offers=lambda *_: False)
    world = World([never, Guesser("model", lambda *_: 0.0, step=0.1)], noise=0.05)
    [sequence] = decode(world, auto(world)).sequences
    assert "prediction" not in {decision.source for decision in sequence.decisions}
    assert [decision.depth for decision in sequence.decisions][-1] == 0
    assert len(sequence.decisions) <= 2


def test_a_source_that_never_has_a_guess_is_planned_for_all_the_same():
    """After some 700 times in vain, a share that is learned without a limit is no number to divide by."""
    source, evidence = Source("suffix"), Evidence(0)
    for _ in range(2000):
        source.note_offer(evidence, is_made=False)
    assert 0 < source.offered < 0.01
    costs = StepCosts([(1, 1.0), (16, 1.1)])
    candidate = Candidate(0, curve_of(logit(0.9), (0.0,), 0.0, Prices(0.0, 0.0), 8), 4, False, 0.0)
    plan = Search(costs, "suffix", Base([1], 1.0, 1, {}), [candidate], source.offered).best(0, 8, math.inf)
    assert math.isfinite(plan.rate)


def test_guesses_within_the_rows_of_a_cheaper_source_cost_the_target_nothing():
    """A change of rows takes as long as a step, so steps without that source's guesses stay at its rows."""
    costs = StepCosts([(1, 1.0), (16, 2.0)], changes=Changes(1.0))
    base = Base([1], costs.target(1), 1, {})
    candidate = Candidate(0, curve_of(logit(0.14), (0.0,), 0.0, Prices(0.0, 0.0), 8), 8, False, 0.0)

    def cap(base: Base) -> int:
        return Search(costs, "model", base, [candidate]).best(0, 8, math.inf).cap

    suffix = Plan(8, [8], 1.0, 1.0, settled=Settled(9, 0.5))
    assert cap(base) == 0
    assert cap(base.where_silent(suffix, base.seconds, 0.5, 1.0)) == 1


def test_what_is_settled_is_of_a_single_sequence_and_of_whoever_has_most_guesses():
    costs = StepCosts([(1, 1.0), (16, 1.1)])
    candidate = Candidate(0, curve_of(logit(0.9), (0.0,), 0.0, Prices(0.0, 0.0), 8), 4, False, 0.0)

    def settled(num_sequences: int, before: Settled | None = None) -> Settled | None:
        base = Base([1] * num_sequences, 1.0, num_sequences, {}, settled=before)
        return Search(costs, "suffix", base, [candidate], 0.5).best(0, 8, math.inf).settled

    assert settled(1) == Settled(5, 0.5)
    assert settled(4) is None
    assert settled(1, Settled(17, 0.6)) == Settled(17, 0.6)
