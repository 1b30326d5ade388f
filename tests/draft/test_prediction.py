"""A prediction is followed through whatever the output puts in, leaves out, writes otherwise or moves."""

from __future__ import annotations

import random
import re

from hypothesis import example, given, settings, strategies as st

from outrider.draft import prediction
from outrider.draft.prediction import START_LENGTH, PredictionDrafter
from outrider.draft.suffix import score_of
from tests.architecture.sources import ROOT
from tests.draft.drafting import budget, start

DEPTH = 8
FOREIGN = 10_000  # tokens from here on are not of the prediction


def num_steps(expected: list[int], output: list[int]) -> int:
    """Forwards that the output takes if every step keeps the draft's agreeing tokens and adds one."""
    drafter = PredictionDrafter()
    sequence = start(0, [1, 2, 3], prediction=expected)
    count = 0
    while sequence.num_output_tokens < len(output):
        rest = output[sequence.num_output_tokens :]
        guesses = drafter.propose([sequence], [budget(DEPTH)]).trees[0].tokens
        agrees = [guess == token for guess, token in zip(guesses, rest, strict=False)]
        num_accepted = agrees.index(False) if False in agrees else len(agrees)
        sequence.token_ids += rest[: num_accepted + 1]
        count += 1
    return count


def num_ideal_steps(is_kept: list[bool]) -> int:
    """Forwards if the place in the prediction were known at every moment, and only its tokens could be guessed."""
    count = place = 0
    while place < len(is_kept):
        run = is_kept[place : place + DEPTH]
        place += (run.index(False) if False in run else len(run)) + 1
        count += 1
    return count


class Edit:
    """An output in the making: runs of the prediction are kept, others put in, left out or replaced."""

    def __init__(self, expected: list[int]) -> None:
        self.expected, self.place = expected, 0
        self.output: list[int] = []
        self.is_kept: list[bool] = []
        self.num_edits = 0

    def keep(self, count: int) -> None:
        kept = self.expected[self.place : self.place + count]
        self.output += kept
        self.is_kept += [True] * len(kept)
        self.place += count

    def write(self, tokens: list[int]) -> None:
        self.output += tokens
        self.is_kept += [False] * len(tokens)

    def change(self, kind: str, new: list[int], num_left_out: int) -> None:
        self.num_edits += 1
        if kind in {"insert", "replace"}:
            self.write(new)
        if kind == "replace one":
            self.write(new[:1])
            self.place += 1
        if kind in {"delete", "replace"}:
            self.place += num_left_out
        if kind == "go back":
            self.place = max(0, self.place - num_left_out)


KINDS = ("insert", "delete", "replace", "replace one", "go back")
edits = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(KINDS), st.integers(1, 30), st.integers(1, 150)), max_size=12
)


def edited(script) -> Edit:
    """Each token of the prediction is another, and what is put in is foreign."""
    edit = Edit(list(range(600)))
    for index, (num_kept, kind, num_new, num_left_out) in enumerate(script):
        edit.keep(num_kept + 4)
        edit.change(kind, [FOREIGN + 100 * index + place for place in range(num_new)], num_left_out)
    edit.keep(600)
    return edit


@settings(max_examples=100, deadline=None)
@given(edits)
def test_an_edit_costs_at_most_two_steps_beyond_knowing_the_place_where_tokens_are_told_apart(script):
    edit = edited(script)
    assert num_steps(edit.expected, edit.output) <= num_ideal_steps(edit.is_kept) + 2 * edit.num_edits


@settings(max_examples=50, deadline=None)
@given(edits, st.integers(0, 300))
@example([(6, "replace one", 1, 1)] * 2, 22)  # the last token seen is the second one replaced
def test_who_is_asked_late_finds_the_place_of_who_is_asked_at_every_token(script, num_tokens):
    edit = edited(script)
    late = PredictionDrafter()
    sequence = start(0, [1, 2, 3], prediction=edit.expected)
    sequence.token_ids += edit.output[:num_tokens]
    drafts = follow(edit.expected, edit.output[:num_tokens])
    assert late.propose([sequence], [budget(4)]) == drafts[-1]


def words_of(name: str) -> list[int]:
    """A file of this repository as a text of words and marks, most of which come many times."""
    words = re.findall(r"\w+|\s+|.", (ROOT / name).read_text(encoding="utf-8"))
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return [numbers[word] for word in words]


def test_real_text_is_followed_through_edits_nearly_as_if_the_place_were_known():
    num_taken = num_ideal = num_edits = num_tokens = 0
    for seed, name in enumerate(["src/outrider/draft/model.py", "docs/losslessness.md", "src/outrider/sampling.py"]):
        generator = random.Random(seed)
        edit = Edit(words_of(name))
        while edit.place < len(edit.expected):
            edit.keep(int(generator.expovariate(1 / 40)))
            new = [generator.choice(edit.expected) for _ in range(generator.randrange(1, 9))]
            edit.change(generator.choice(KINDS[:4]), new, generator.randrange(1, 9))
        num_taken += num_steps(edit.expected, edit.output)
        num_ideal += num_ideal_steps(edit.is_kept)
        num_edits += edit.num_edits
        num_tokens += len(edit.output)
    assert num_taken <= num_ideal + num_edits
    assert num_taken < num_tokens / 3


def follow(expected, output, depth=4):
    """What is drafted after each token of the output, token by token."""
    drafter = PredictionDrafter()
    sequence = start(0, [1, 2, 3], prediction=expected)
    drafts = [drafter.propose([sequence], [budget(depth)])]
    for token in output:
        sequence.token_ids.append(token)
        drafts.append(drafter.propose([sequence], [budget(depth)]))
    return drafts


def test_the_beginning_is_proposed_before_there_is_any_output():
    (draft,) = follow(range(50, 60), [])
    assert draft.trees[0].tokens == (50, 51, 52, 53)
    assert draft.scores[0][0] == score_of(START_LENGTH)
    assert draft.num_steps == 0


def test_a_beginning_that_is_cut_into_other_tokens_is_survived():
    for first in ([70], [70, 71], [51], [70, 52]):
        drafts = follow(range(50, 80), [*first, 53, 54])
        assert drafts[-1].trees[0].tokens == (55, 56, 57, 58)


def test_after_one_replaced_token_the_text_is_expected_to_go_on_behind_it_less_surely_than_where_it_agrees():
    drafts = follow(range(50, 80), [50, 51, 52, FOREIGN, 54, 55])
    assert [draft.trees[0].tokens[0] for draft in drafts[3:]] == [53, 54, 55, 56]
    firsts = [draft.scores[0][0] for draft in drafts[3:]]
    assert firsts == [score_of(length) for length in (START_LENGTH + 3, 0, 1, 2)]


def test_in_the_middle_of_foreign_text_nothing_is_drafted():
    drafts = follow(range(50, 80), [50, 51, 52, FOREIGN, FOREIGN + 1, FOREIGN + 2])
    assert [len(draft.trees[0]) for draft in drafts[4:]] == [4, 0, 0]


def test_replaced_tokens_are_taken_for_as_many_though_the_next_comes_earlier_too():
    drafts = follow([1, 2, 3, 8, 9, 8, 5, 6], [1, 2, 3, FOREIGN, FOREIGN, 8], depth=1)
    assert drafts[-1].trees[0].tokens == (5,)


def test_of_several_places_that_agree_the_next_one_is_meant():
    paragraphs = [range(100 * index, 100 * index + 30) for index in (1, 2, 3, 4)]
    expected = [token for paragraph in paragraphs for token in (7, 8, 9, *paragraph)]
    drafts = follow(expected, [*expected[:48], 7, 8], depth=2)
    assert drafts[-1].trees[0].tokens == (9, 300)


def test_of_places_that_agree_the_one_that_agrees_longest_is_meant():
    expected = [*range(100, 130), 6, 7, 0, 7, 8, 1, *range(200, 230), 6, 7, 8, 2]
    drafts = follow(expected, [*range(100, 110), 6, 7, 8], depth=1)
    assert [draft.trees[0].tokens for draft in drafts[-2:]] == [(0,), (2,)]


def test_the_prompts_end_helps_to_find_the_place():
    drafter = PredictionDrafter()
    sequence = start(0, [1, 2, 33], prediction=range(80))
    sequence.token_ids.append(34)
    assert drafter.propose([sequence], [budget(2)]).trees[0].tokens == (35, 36)


def test_the_end_of_the_prediction_and_its_absence_are_empty_drafts():
    assert follow([5, 6], [5, 6])[-1].trees[0].tokens == ()
    assert follow([], [5])[-1].trees[0].tokens == ()


def test_a_chain_ends_before_the_first_node_that_does_not_pay_for_its_row():
    sequence = start(0, [1], prediction=range(50, 80))
    for node_price, num_nodes in ((0.0, 6), (0.6, 2), (0.75, 1), (0.9, 0)):
        granted = budget(6, intercept=-0.6, slope=1.0, node_price=node_price)  # survival .80, .68, .59, ...
        assert len(PredictionDrafter().propose([sequence], [granted]).trees[0]) == num_nodes


def test_beyond_what_is_indexed_the_prediction_is_still_followed(monkeypatch):
    monkeypatch.setattr(prediction, "MAX_INDEXED", 10)
    drafts = follow(range(100), [*range(40), FOREIGN, 41, 42, 43])
    assert drafts[-1].trees[0].tokens == (44, 45, 46, 47)


def test_texts_share_the_index_of_one_prediction_but_no_place_and_release_frees_it():
    drafter = PredictionDrafter()
    sequences = [start(index, [1], prediction=range(10 * index, 10 * index + 10)) for index in (0, 1)]
    sequences[1].token_ids += [10, 11]
    draft = drafter.propose(sequences, [budget(2)] * 2)
    assert [tree.tokens for tree in draft.trees] == [(0, 1), (12, 13)]
    again = start(2, [1], prediction=range(10))
    memory = drafter.memory()
    assert drafter.propose([again], [budget(2)]).trees == draft.trees[:1]
    assert drafter.memory() == memory > 0
    for sequence in (*sequences, again):
        drafter.release(sequence)
    assert drafter.memory() == 0
