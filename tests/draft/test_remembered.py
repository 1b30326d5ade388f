"""Remembered texts: found again by any run of four tokens, bounded, the oldest forgotten."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from outrider.draft.remembered import GAP, MAX_MATCH_LENGTH, NUM_ENTRY_BYTES, RUN_LENGTH, RememberedTexts

texts = st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=12)


def held(learned: list[list[int]], num_tokens: int) -> list[int]:
    """By definition: the last tokens of all texts, with a gap after each."""
    written = [token for text in learned for token in (*text[-num_tokens:], GAP)]
    return written[-num_tokens:]


def ends_with(text: list[int], ending: list[int]) -> bool:
    return text[len(text) - len(ending) :] == ending


@settings(max_examples=300, deadline=None)
@given(texts, st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 40))
def test_whatever_run_is_held_is_found_and_what_is_found_is_held_and_goes_on_so(learned, text, num_tokens):
    remembered = RememberedTexts(num_tokens)
    for each in learned:
        remembered.learn(each)
    ring = held(learned, num_tokens)
    occurrences = [
        end for end in range(RUN_LENGTH, len(ring) + 1) if ring[end - RUN_LENGTH : end] == text[-RUN_LENGTH:]
    ]
    match = remembered.find(0, text)
    assert (match.length >= RUN_LENGTH) == bool(occurrences)
    assert len(remembered._ends) <= num_tokens
    if occurrences:
        end = match.end - remembered._num_written + len(ring)
        assert end == occurrences[-1]
        assert ends_with(ring[:end], text[-match.length :])
        rest = [*ring[end : end + 5], GAP]
        assert list(remembered.following(match.end, 5)) == rest[: rest.index(GAP)]


def test_a_reader_stays_with_the_text_that_it_follows_though_others_went_on_otherwise_later():
    remembered = RememberedTexts(100)
    remembered.learn([1, 2, 3, 4, 5, 6, 7, 8, 9])
    remembered.learn([3, 4, 5, 6, 0, 0])
    reading = [1, 2, 3, 4]
    assert remembered.find(0, reading) == (4, 4)
    assert remembered.find(0, [*reading, 5, 6]) == (6, 6)
    assert remembered.following(6, 2) == (7, 8)
    assert remembered.find(0, [*reading, 5, 6, 0, 8]) == (0, 0)  # it wrote 8 there too, but that is too little
    remembered.forget_reader(0)
    assert remembered.following(remembered.find(0, [*reading, 5, 6]).end, 2) == (0, 0)


def test_memory_stays_within_its_bound_however_much_is_learned():
    remembered = RememberedTexts(1000)
    for first in range(0, 20_000, 500):
        remembered.learn(list(range(first, first + 500)))
    assert remembered.num_bytes <= 1000 * (4 + NUM_ENTRY_BYTES)
    assert remembered.find(0, list(range(19_900, 19_950))).length == 50
    assert remembered.find(0, list(range(18_900, 18_950))).length == 0


def test_a_long_match_is_counted_up_to_a_limit():
    remembered = RememberedTexts(1000)
    remembered.learn(list(range(500)))
    assert remembered.find(0, list(range(400))) == (MAX_MATCH_LENGTH, 400)
