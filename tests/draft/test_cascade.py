"""A cascade: who is asked about which text, whose draft is kept, and who hears of it."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.draft.base import Draft
from outrider.draft.cascade import DECENT_SCORE, Cascade
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.errors import ParameterError
from outrider.tree import NO_DRAFT, DraftBudget, TokenTree, Verdict
from tests.draft.drafting import ToldDrafter, constant_worth, start

TEXTS = [start(index, [1, 2, 3]) for index in range(3)]
FIXED = DraftBudget(4, 4)


def priced(*members: DraftBudget, depth: int = 4) -> DraftBudget:
    return DraftBudget(depth, depth, members=members)


def member(chance: float, gain: float = 0.0, *, depth: int = 4, node_price: float = 0.1) -> DraftBudget:
    return DraftBudget(depth, depth, constant_worth(chance, node_price=node_price), gain)


def tokens_of(draft: Draft) -> list[tuple[int, ...]]:
    return [tree.tokens for tree in draft.trees]


def test_at_a_fixed_depth_the_first_who_is_sure_enough_drafts_and_else_the_last():
    sure = ToldDrafter("sure", {0: (5, 6)}, DECENT_SCORE)
    weak = ToldDrafter("weak", {0: (7,), 1: (7,)}, DECENT_SCORE - 0.1)
    last = ToldDrafter("last", {0: (8,), 1: (8,), 2: (8,)}, 0.0)
    draft = Cascade([sure, weak, last]).propose(TEXTS, [FIXED] * 3)
    assert tokens_of(draft) == [(5, 6), (8,), (8,)]
    assert draft.sources == ["sure", "last", "last"]
    assert draft.scores == [(DECENT_SCORE, DECENT_SCORE), (0.0,), (0.0,)]
    assert [each.asked for each in (sure, weak, last)] == [[[0, 1, 2]], [[1, 2]], [[1, 2]]]


def test_at_a_fixed_depth_a_weak_draft_is_better_than_none_and_one_without_scores_is_sure():
    unscored = ToldDrafter("unscored", {0: (5, 6)})
    weak = ToldDrafter("weak", {1: (7,)}, 0.0)
    last = ToldDrafter("last", {}, 0.0)
    draft = Cascade([unscored, weak, last]).propose(TEXTS[:2], [FIXED] * 2)
    assert tokens_of(draft) == [(5, 6), (7,)]
    assert draft.scores == [None, (0.0,)]
    assert last.asked == [[1]]


def test_a_dearer_member_is_asked_only_where_it_is_expected_to_earn_more_than_what_is_made():
    cheap = ToldDrafter("cheap", {0: (5, 6), 1: (5, 6)}, 0.0)  # earns 0.5 - 0.1 and 0.25 - 0.1
    dear = ToldDrafter("dear", {0: (7, 7, 7), 1: (7, 7, 7), 2: (7, 7, 7)}, 0.0)
    budgets = [priced(member(0.5), member(0.9, gain)) for gain in (0.54, 0.56, 0.01)]
    draft = Cascade([cheap, dear]).propose(TEXTS, budgets)
    assert dear.asked == [[1, 2]]
    assert tokens_of(draft) == [(5, 6), (7, 7, 7), (7, 7, 7)]
    assert draft.sources == ["cheap", "dear", "dear"]


def test_if_what_the_dearer_one_makes_is_worth_less_the_cheaper_draft_is_kept():
    cheap = ToldDrafter("cheap", {0: (5, 6)}, 0.0)
    dear = ToldDrafter("dear", {0: (7,)}, 0.0)
    budgets = [priced(member(0.5), member(0.6, gain=2.0))]  # 0.4 + 0.15 against 0.5
    draft = Cascade([cheap, dear]).propose(TEXTS[:1], budgets)
    assert dear.asked == [[0]]
    assert tokens_of(draft) == [(5, 6)]
    assert draft.sources == ["cheap"]


def test_members_are_asked_within_their_own_budgets_and_that_of_the_whole_and_not_without_one():
    first, second = ToldDrafter("first", {}, 0.0), ToldDrafter("second", {}, 0.0)
    cascade = Cascade([first, second])
    own = member(0.5, gain=1.0, depth=9)
    cascade.propose(TEXTS[:2], [priced(NO_DRAFT, own), priced(own._replace(max_depth=1), NO_DRAFT)])
    assert (first.asked, second.asked) == ([[1]], [[0]])
    assert second.budgets == [own._replace(max_depth=4, max_nodes=4)]
    assert first.budgets == [own._replace(max_depth=1, max_nodes=4)]


def test_a_drafter_of_ones_own_without_scores_is_as_good_as_its_mean():
    cheap = ToldDrafter("cheap", {0: (5, 6), 1: (5, 6)})
    dear = ToldDrafter("dear", {}, 0.0)
    unsure, sure = (DraftBudget(4, 4, constant_worth(0.9, mean=mean)) for mean in (0.2, 0.8))
    Cascade([cheap, dear]).propose(TEXTS[:2], [priced(each, member(0.9, gain=1.0)) for each in (unsure, sure)])
    assert dear.asked == [[0]]  # 0.2 + 0.04 against 0.8 + 0.64


def test_steps_and_tokens_caught_up_are_those_of_the_members_that_were_asked():
    class Slow(ToldDrafter):
        def propose(self, sequences, budgets):
            return super().propose(sequences, budgets)._replace(num_steps=7, num_caught_up=30)

    slow, slower = (Slow(name, {1: (1,)}, 0.0) for name in ("slow", "slower"))
    repeats = start(0, [1, 2, 3, 4, 5, 1, 2, 3, 4])
    cascade = Cascade([SuffixDrafter(), slow, slower])
    cheap, dear = cascade.propose([repeats], [FIXED]), cascade.propose([repeats, TEXTS[1]], [FIXED] * 2)
    assert (cheap.sources, cheap.num_steps, cheap.num_caught_up) == (["suffix"], 0, 0)
    assert (dear.sources, dear.num_steps, dear.num_caught_up) == (["suffix", "slower"], 14, 60)
    unsaid = Cascade([ToldDrafter("unsaid", {0: (1, 2, 3)})])
    assert unsaid.propose(TEXTS[:1], [FIXED]).num_steps == 3


def test_a_verdict_is_told_to_whose_draft_it_was():
    first, second = ToldDrafter("first", {0: (5,)}), ToldDrafter("second", {1: (5,)})
    cascade = Cascade([first, second])
    cascade.propose(TEXTS[:2], [FIXED] * 2)
    for sequence in TEXTS[:2]:
        cascade.observe(sequence, TokenTree.chain((5,)), Verdict((0,), 1, is_bonus=True))
    assert (first.observed, second.observed) == ([0], [1])


def test_everybody_forgets_a_finished_text_even_if_one_fails_to():
    first, second = ToldDrafter("first", {}), ToldDrafter("second", {})

    def fail(sequence):
        raise RuntimeError("cannot forget")

    cascade = Cascade([first, second])
    cascade.propose(TEXTS[:1], [FIXED])
    second.release = fail
    with pytest.raises(RuntimeError, match="cannot forget"):
        cascade.release(TEXTS[0])
    assert first.released == [0]
    assert not cascade._drafted


def test_it_is_the_sum_of_its_members():
    first, second = ToldDrafter("first", {}), ToldDrafter("second", {})
    cascade = Cascade([first, second])
    assert cascade.sources == ("first", "second")
    assert cascade.memory() == 20
    assert cascade.describe() == {"name": "cascade", "members": [{"name": "first"}, {"name": "second"}]}


class Drawing(ToldDrafter):
    """Says that all its tokens were drawn from the same distribution."""

    draws_in_order = True

    def propose(self, sequences, budgets):
        draft = super().propose(sequences, budgets)
        return draft._replace(probabilities=[np.full((len(tree), 9), 1 / 9) for tree in draft.trees])


@pytest.mark.parametrize("drawn_gain", [-1.0, 2.0])
def test_what_was_drawn_is_kept_whatever_it_is_worth_and_nobody_is_asked_after_it(drawn_gain):
    cheap = ToldDrafter("cheap", {0: (5, 6), 1: (5, 6)}, 0.0)
    drawing = Drawing("drawing", {0: (7,)}, drawn_gain)
    last = ToldDrafter("last", {0: (8, 8, 8, 8), 1: (8, 8, 8, 8)}, 4.0)
    budgets = [priced(member(0.5), member(0.6, gain=2.0), member(0.9, gain=9.0))] * 2
    draft = Cascade([cheap, drawing, last]).propose(TEXTS[:2], budgets)
    assert draft.sources == ["drawing", "last"]
    assert tokens_of(draft) == [(7,), (8, 8, 8, 8)]
    assert last.asked == [[1]]
    assert [each is None for each in draft.probabilities] == [False, True]


def test_probabilities_of_a_member_that_does_not_draw_do_not_count():
    class Pretending(Drawing):
        draws_in_order = False

    cascade = Cascade([Pretending("pretending", {0: (5,)})])
    assert cascade.propose(TEXTS[:1], [FIXED]).probabilities == [None]
    assert not cascade.draws_in_order
    assert Cascade([NoDrafter(), Drawing("drawing", {})]).draws_in_order


@pytest.mark.parametrize("members", [[], [NoDrafter(), NoDrafter()]])
def test_members_must_be_told_apart(members):
    with pytest.raises(ParameterError, match="must be one or more, each of its own name"):
        Cascade(members)
