"""Text to a pipe is exactly the text; a terminal is told nothing but characters."""

from __future__ import annotations

import io
import sys

import pytest

from outrider.cli.output import TextWriter, printable
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


@pytest.mark.parametrize("text", ["def größe():\n\treturn '→'\n", ""])
def test_ordinary_text_is_printable_as_it_is(text):
    assert printable(text) == text
