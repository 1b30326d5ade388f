"""Text to a pipe is exactly the text; a terminal is told nothing but characters."""

from __future__ import annotations

import io
import math
import sys
from types import SimpleNamespace

import pytest

from outrider.cli.output import TextsWriter, TextWriter, log_probs_document, printable
from outrider.request import TokenLogProbs
from tests.cli.conftest import Terminal


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO, "a\x1b[2J\r\n\tb"), (Terminal, "a\ufffd[2J\ufffd\n\tb\n")])
def test_only_a_terminal_is_protected_and_given_a_last_line_end(monkeypatch, stream, shown):
    monkeypatch.setattr(sys, "stdout", stream())
    writer = TextWriter()
    for piece in ("a", "\x1b[2J", "\r\n\tb"):
        writer.write(piece)
    writer.finish()
    assert sys.stdout.getvalue() == shown


def test_a_muted_writer_writes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    writer = TextWriter(is_muted=True)
    writer.write("a")
    writer.finish()
    assert sys.stdout.getvalue() == ""


def test_a_character_that_the_encoding_lacks_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    TextWriter().write("größe")
    assert sys.stdout.buffer.getvalue() == b"gr??e"


def test_in_json_a_token_that_could_not_be_drawn_has_null():
    log_probs = TokenLogProbs(raw=-1.0, processed=-math.inf, top_raw=((5, -0.5), (6, -math.inf)))
    generation = SimpleNamespace(token_ids=(7,), log_probs=(log_probs,))
    assert log_probs_document(generation, None) == [
        {
            "token_id": 7,
            "raw": -1.0,
            "processed": None,
            "top_raw": [{"token_id": 5, "log_prob": -0.5}, {"token_id": 6, "log_prob": None}],
            "top_processed": [],
        }
    ]


def test_of_several_texts_one_is_shown_as_it_comes_and_the_others_wait_for_their_turn(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    writer = TextsWriter(3)
    shown = []
    for stream, piece in [
        (0, "a"),
        (1, "x"),
        (0, "b"),
        (None, "ab"),
        (1, "y\n"),
        (2, "z"),
        (None, "xy\n"),
        (None, "z"),
    ]:
        if stream is None:
            writer.finish(None, SimpleNamespace(text=piece))
        else:
            writer.write(stream, piece)
        shown.append(sys.stdout.getvalue())
    first = "--- text 1 of 3 ---\n"
    assert shown[:3] == [f"{first}a", f"{first}a", f"{first}ab"]
    assert shown[4] == f"{first}ab\n--- text 2 of 3 ---\nxy\n"
    assert shown[-1] == f"{shown[4]}--- text 3 of 3 ---\nz\n"


@pytest.mark.parametrize("text", ["def größe():\n\treturn '→'\n", ""])
def test_ordinary_text_is_printable_as_it_is(text):
    assert printable(text) == text
