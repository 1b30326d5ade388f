"""What drafters would have guessed where nobody asked them: it is what they would have drafted there, and told once."""

from __future__ import annotations

import time

import pytest

from outrider.draft.base import Draft
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.faults import Guard, GuardedDrafter
from outrider.sequence import MAX_TOLD, Hindsight
from outrider.tree import DraftBudget, TokenTree
from tests.draft.drafting import ToldDrafter, budget, start
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime

LOOK = DraftBudget(0, 0, looks_back=True)
PROMPT = [1, 5, 2, 7, 1, 5, 2]


def make_model(**options) -> ModelDrafter:
    return ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, **options)


def text_with(output: list[int], temperature: float = 0.0):
    sequence = start(0, PROMPT, temperature=temperature)
    sequence.token_ids += output
    return sequence


def drafted_at(make, output: list[int], place: int, temperature: float) -> tuple[bool | None, float | None]:
    """Whether a fresh drafter's first guess at a place is the text's token, and its score; None: it has no guess."""
    draft = make().propose([text_with(output[:place], temperature)], [budget(1)])
    if not len(draft.trees[0]):
        return None, None
    return draft.trees[0].tokens[0] == output[place], draft.scores[0][0]


def would_be_right(length: int, temperature: float) -> list[int]:
    """An output of which a model guesses about every second token."""
    output: list[int] = []
    for place in range(length):
        draft = make_model().propose([text_with(output, temperature)], [budget(1)])
        output.append((draft.trees[0].tokens[0] + place % 2) % VOCAB_SIZE)
    return output


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("length", [1, 9, MAX_TOLD + 7])
def test_a_draft_model_tells_what_it_would_have_drafted_of_the_last_tokens(temperature, length):
    output = would_be_right(length, temperature)
    draft = make_model().propose([text_with(output, temperature)], [LOOK])
    (told,) = draft.hindsight
    expected = [drafted_at(make_model, output, place, temperature) for place in range(length)][-MAX_TOLD:]
    assert (told.source, told.request_id) == ("model", 0)
    assert told.outcomes == tuple(outcome for outcome, _ in expected)
    assert told.scores == pytest.approx([score for _, score in expected])
    assert length == 1 or {True, False} == set(told.outcomes)
    assert (len(draft.trees[0]), draft.num_steps, draft.num_caught_up) == (0, 0, len(PROMPT) + length - 1)


def test_a_suffix_drafter_tells_of_places_without_a_guess_too():
    output = [7, 1, 5, 9, 4, 4, 4]
    (told,) = SuffixDrafter().propose([text_with(output)], [LOOK]).hindsight
    expected = [drafted_at(SuffixDrafter, output, place, 0.0) for place in range(len(output))]
    assert told.outcomes == tuple(outcome for outcome, _ in expected)
    assert {True, False, None} == set(told.outcomes)
    assert told.scores == tuple(score for _, score in expected if score is not None)


@pytest.mark.parametrize("make", [make_model, SuffixDrafter])
def test_each_place_is_told_once_and_none_that_a_draft_was_made_for(make):
    drafter, sequence = make(), text_with([7, 1, 5])
    assert len(drafter.propose([sequence], [LOOK]).hindsight[0].outcomes) == 3
    assert not drafter.propose([sequence], [LOOK]).hindsight
    (tree,) = drafter.propose([sequence], [budget(2)]).trees
    sequence.token_ids += [*tree.tokens, 4]  # all of them accepted, and a token that nobody had a guess for
    found = drafter.propose([sequence], [LOOK]).hindsight
    assert sum(len(told.outcomes) for told in found) <= 1
    sequence.token_ids += [6, 6, 6]
    found = drafter.propose([sequence], [LOOK]).hindsight
    assert len(found[0].outcomes) == 3


def test_a_long_text_is_looked_back_on_once_it_was_read():
    drafter, sequence = make_model(), text_with([3, 4, 5])
    drafts = [drafter.propose([sequence], [LOOK._replace(max_catch_up=4)]) for _ in range(2)]
    assert [draft.num_caught_up for draft in drafts] == [4, 5]
    assert [len(draft.hindsight) for draft in drafts] == [0, 1]
    drafter.check()


def test_who_draws_does_not_look_back():
    assert not make_model(draws=True).looks_back
    draft = make_model(draws=True).propose([text_with([3, 4, 5])], [LOOK])
    assert not draft.hindsight
    assert not len(draft.trees[0])


def test_with_remembered_texts_a_suffix_drafter_does_not_look_back():
    drafter = SuffixDrafter(num_remembered=100)
    assert not drafter.looks_back
    assert not drafter.propose([text_with([3, 4, 5])], [LOOK]).hindsight


def test_of_a_cascade_one_looks_back_while_another_drafts():
    drafter = Cascade([SuffixDrafter(), make_model()])
    members = (budget(2), LOOK)
    draft = drafter.propose([text_with([7, 1])], [DraftBudget(2, 2, members=members, looks_back=True)])
    assert draft.sources == ["suffix"]
    assert len(draft.trees[0]) == 2
    assert {told.source for told in draft.hindsight} == {"suffix", "model"}


@pytest.mark.parametrize(
    "told",
    [
        Hindsight("told", 1, (True,), None),
        Hindsight("told", 0, (True, None), (1.0, 1.0)),
        Hindsight("told", 0, (True,), (float("nan"),)),
    ],
)
def test_what_makes_no_sense_is_a_fault(told):
    class Odd(ToldDrafter):
        def propose(self, sequences, budgets):
            return Draft([TokenTree()] * len(sequences), hindsight=(told,))

    guard = Guard(VOCAB_SIZE, time.perf_counter, 10.0)
    sequence = text_with([3])
    draft = GuardedDrafter(Odd("told", {}), guard).propose([sequence], [LOOK])
    assert not draft.hindsight
    assert guard.faults["malformed"] == 1
    assert sequence.draft_fault
