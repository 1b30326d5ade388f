"""The suffix automaton: what followed an earlier occurrence of the longest ending that has one; and the drafter's use
of it, of scores and of what earlier requests were answered.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from outrider.draft.suffix import AMBIGUITY, MIN_MATCH_LENGTH, SuffixAutomaton, SuffixDrafter, score_of
from outrider.errors import ParameterError
from outrider.tree import NO_DRAFT
from tests.draft.drafting import budget, start


def automaton_of(tokens) -> SuffixAutomaton:
    automaton = SuffixAutomaton()
    for token in tokens:
        automaton.append(token)
    return automaton


def longest_repeated_ending(tokens: list[int]) -> int:
    """By definition: the length of the longest suffix that also ends earlier."""
    for length in range(len(tokens) - 1, 0, -1):
        ending = tokens[-length:]
        if any(tokens[start : start + length] == ending for start in range(len(tokens) - length)):
            return length
    return 0


def followers(tokens: list[int], ending: list[int]) -> set[int]:
    """By definition: what came after this ending's earlier occurrences."""
    ends = range(len(ending), len(tokens))
    return {tokens[end] for end in ends if tokens[end - len(ending) : end] == ending}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40))
def test_the_match_is_the_longest_earlier_occurrence(tokens):
    automaton = SuffixAutomaton()
    for count, token in enumerate(tokens, start=1):
        automaton.append(token)
        length = longest_repeated_ending(tokens[:count])
        assert automaton.match_length == length
        draft = automaton.continuation(3).tokens
        assert bool(draft) == (length >= MIN_MATCH_LENGTH)
        if draft:
            end = automaton._match_end
            assert end < count
            assert tokens[end - length : end] == tokens[count - length : count]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=40))
def test_a_score_counts_the_match_that_leads_to_a_token_and_falls_where_texts_went_on_in_several_ways(tokens):
    automaton = automaton_of(tokens)
    drafted, scores = automaton.continuation(4)
    for index, score in enumerate(scores):
        length = automaton.match_length + index
        ending = (tokens + list(drafted[:index]))[-length:]
        is_ambiguous = len(followers(tokens, ending)) > 1
        assert score == score_of(length) - AMBIGUITY * is_ambiguous


def test_a_repetition_is_unrolled():
    assert automaton_of((1, 2, 3, 1, 2, 3)).continuation(7).tokens == (1, 2, 3, 1, 2, 3, 1)


def test_the_most_recent_of_several_occurrences_guides():
    assert automaton_of((1, 2, 7, 0, 1, 2, 8, 0, 1, 2)).continuation(1).tokens == (8,)


def test_a_text_that_never_repeats_gives_no_draft():
    assert automaton_of(range(50)).continuation(4).tokens == ()


def test_a_chain_ends_before_the_first_node_that_does_not_pay_for_its_row():
    """A match of 3 and 7 tokens: chances grow along the chain, and survival falls."""
    drafter = SuffixDrafter()
    prompt = [*range(20), 9, 0, 1, 2]
    worth = {"intercept": 0.0, "slope": 0.5}  # chances .73, .76, .79, .80, .82: survival .73, .56, .44, .35, .29
    for node_price, num_nodes in ((0.0, 8), (0.3, 4), (0.5, 2), (0.7, 1), (0.8, 0)):
        draft = drafter.propose([start(0, prompt)], [budget(8, **worth, node_price=node_price)])
        assert draft.trees[0].tokens == tuple(range(3, 3 + num_nodes))
        assert len(draft.scores[0]) == num_nodes
        assert draft.num_steps == 0


def finished(index, output):
    sequence = start(index, [0])
    sequence.token_ids += output
    sequence.finish_reason = "stop"
    return sequence


ANSWER = [11, 12, 13, 14, 15, 16, 17, 18]


def test_outputs_of_earlier_requests_are_drafted_from_only_if_asked():
    for num_remembered, expected in ((0, ()), (100, (15, 16, 17))):
        drafter = SuffixDrafter(num_remembered)
        drafter.release(finished(0, ANSWER))
        draft = drafter.propose([start(1, [5, 11, 12, 13, 14])], [budget(3)])
        assert draft.trees[0].tokens == expected
        assert draft.scores[0] == tuple(score_of(length) for length in (4, 5, 6))[: len(expected)]


def test_what_others_asked_and_what_is_not_finished_is_not_remembered():
    drafter = SuffixDrafter(100)
    drafter.release(start(0, ANSWER))
    unfinished = start(1, [0])
    unfinished.token_ids += ANSWER
    drafter.release(unfinished)
    asked = start(2, ANSWER)
    asked.finish_reason = "cancelled"
    drafter.release(asked)
    assert drafter.propose([start(3, [11, 12, 13, 14])], [budget(3)]).trees[0].tokens == ()


def test_the_texts_own_match_wins_unless_a_remembered_one_is_longer():
    drafter = SuffixDrafter(100)
    drafter.release(finished(0, ANSWER))
    alike = start(1, [12, 13, 14, 99, 12, 13, 14])
    longer = start(2, [12, 13, 14, 99, 11, 12, 13, 14])
    as_long = start(3, [11, 12, 13, 14, 99, 11, 12, 13, 14])
    draft = drafter.propose([alike, longer, as_long], [budget(1)] * 3)
    assert [tree.tokens for tree in draft.trees] == [(99,), (15,), (99,)]


def test_nothing_is_built_for_a_text_without_a_budget_and_release_frees_what_was():
    drafter = SuffixDrafter()
    sequence = start(0, range(1000))
    drafter.propose([sequence], [NO_DRAFT])
    assert drafter.memory() == 0
    drafter.propose([sequence], [budget(1)])
    assert drafter.memory() > 100_000
    drafter.release(sequence)
    assert drafter.memory() == 0


def test_a_negative_memory_is_refused():
    with pytest.raises(ParameterError, match=r"num_remembered is -1, but must be 0 \(remember nothing\) or more"):
        SuffixDrafter(-1)
