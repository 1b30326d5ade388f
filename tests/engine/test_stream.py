"""Text as it grows: however tokens come in, the text is the same and ends at the same place."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from outrider.engine.stream import TextStream
from outrider.model.tokenizer import Tokenizer
from outrider.request import Request, SamplingParams


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One token per byte: every character beyond ASCII takes several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, {})


def make_stream(tokenizer: Tokenizer | None, end_token_ids=(), **params) -> TextStream:
    sampling_params = SamplingParams(**params)
    ends = frozenset((*end_token_ids, *sampling_params.stop_token_ids))
    request = Request(request_id=0, prompt_token_ids=(1,), params=sampling_params, seed=0, depth=0, end_token_ids=ends)
    return TextStream(tokenizer, request)


def push_all(tokenizer: Tokenizer, text: str, **params):
    stream = make_stream(tokenizer, **params)
    pieces = []
    for token_id in tokenizer.encode(text):
        piece, reason = stream.push(token_id)
        pieces.append(piece)
        if reason:
            return pieces, reason
    return pieces, None


def test_a_character_of_several_tokens_comes_whole(tokenizer):
    pieces, _ = push_all(tokenizer, "aé語b")
    assert pieces == ["a", "", "é", "", "", "語", "b"]


def test_a_stop_text_ends_the_output_and_is_not_part_of_it(tokenizer):
    pieces, reason = push_all(tokenizer, "one\n\ntwo", stop=("\n\n",))
    assert ("".join(pieces), reason) == ("one", "stop")


def test_text_that_may_become_a_stop_text_is_held_back_until_it_does_not(tokenizer):
    pieces, reason = push_all(tokenizer, "ab abcd", stop=("abc",))
    assert pieces[:4] == ["", "", "ab ", ""]
    assert ("".join(pieces), reason) == ("ab ", "stop")


def test_the_first_of_several_stop_texts_wins(tokenizer):
    pieces, _ = push_all(tokenizer, "xxENDSTOP", stop=("STOP", "END"))
    assert "".join(pieces) == "xx"


def test_the_length_releases_what_was_held_back(tokenizer):
    pieces, reason = push_all(tokenizer, "abX", stop=("abc",), max_tokens=2)
    assert ("".join(pieces), reason) == ("ab", "length")


def test_an_output_cut_within_a_character_shows_that(tokenizer):
    pieces, reason = push_all(tokenizer, "é", max_tokens=1)
    assert ("".join(pieces), reason) == ("�", "length")


def test_an_unfinished_character_shows_however_the_output_ends(tokenizer):
    first, _ = tokenizer.encode("é")
    stream = make_stream(tokenizer, [250])
    assert [stream.push(first), stream.push(250)] == [("", None), ("\N{REPLACEMENT CHARACTER}", "stop")]


def test_end_tokens_have_no_text(tokenizer):
    (end,) = tokenizer.encode("!")
    stream = make_stream(tokenizer, stop_token_ids=(end,))
    assert stream.push(tokenizer.encode("a")[0]) == ("a", None)
    assert stream.push(end) == ("", "stop")
    stream = make_stream(tokenizer, [end])
    assert stream.push(end) == ("", "stop")


def test_without_a_tokenizer_there_is_no_text_but_there_is_an_end():
    stream = make_stream(None, max_tokens=2, stop_token_ids=(9,))
    assert [stream.push(5), stream.push(6)] == [("", None), ("", "length")]
    assert make_stream(None, [7]).push(7) == ("", "stop")


def test_what_is_held_back_comes_out_when_the_output_is_cut_off_from_outside(tokenizer):
    stream = make_stream(tokenizer, stop=("abc",))
    pieces = [stream.push(token_id)[0] for token_id in tokenizer.encode("xab")]
    assert ("".join(pieces), stream.finish()) == ("x", "ab")


def test_a_stop_text_before_the_least_length_is_text_like_any_other(tokenizer):
    pieces, reason = push_all(tokenizer, "a--b--c", stop=("--",), min_tokens=4)
    assert ("".join(pieces), reason) == ("a--b", "stop")
    pieces, reason = push_all(tokenizer, "a--b--c", stop=("--",), min_tokens=3)
    assert ("".join(pieces), reason) == ("a", "stop")


def test_a_stop_text_counts_by_where_it_is_complete_not_by_where_it_began(tokenizer):
    pieces, reason = push_all(tokenizer, "xaaay", stop=("aa", "aay"), min_tokens=4)
    assert ("".join(pieces), reason) == ("xa", "stop")
    pieces, reason = push_all(tokenizer, "xaaay", stop=("aa", "aay"), min_tokens=5)
    assert ("".join(pieces), reason) == ("xa", "stop")
    pieces, reason = push_all(tokenizer, "xaaay", stop=("aa",), min_tokens=5)
    assert ("".join(pieces), reason) == ("xaaay", None)
