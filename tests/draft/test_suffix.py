"""The suffix automaton: what followed an earlier occurrence of the longest ending that has one."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from outrider.draft.suffix import MIN_MATCH_LENGTH, SuffixAutomaton


def longest_repeated_ending(tokens: list[int]) -> int:
    """By definition: the length of the longest suffix that also ends earlier."""
    for length in range(len(tokens) - 1, 0, -1):
        ending = tokens[-length:]
        if any(tokens[start : start + length] == ending for start in range(len(tokens) - length)):
            return length
    return 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40))
def test_the_match_is_the_longest_earlier_occurrence(tokens):
    automaton = SuffixAutomaton()
    for count, token in enumerate(tokens, start=1):
        automaton.append(token)
        length = longest_repeated_ending(tokens[:count])
        assert automaton._match_length == length
        draft = automaton.continuation(3)
        assert bool(draft) == (length >= MIN_MATCH_LENGTH)
        if draft:
            end = automaton._match_end
            assert end < count
            assert tokens[end - length : end] == tokens[count - length : count]


def test_a_repetition_is_unrolled():
    automaton = SuffixAutomaton()
    for token in (1, 2, 3, 1, 2, 3):
        automaton.append(token)
    assert automaton.continuation(7) == (1, 2, 3, 1, 2, 3, 1)


def test_the_most_recent_of_several_occurrences_guides():
    automaton = SuffixAutomaton()
    for token in (1, 2, 7, 0, 1, 2, 8, 0, 1, 2):
        automaton.append(token)
    assert automaton.continuation(1) == (8,)


def test_a_text_that_never_repeats_gives_no_draft():
    automaton = SuffixAutomaton()
    for token in range(50):
        automaton.append(token)
    assert automaton.continuation(4) == ()
