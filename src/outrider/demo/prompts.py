"""What the demo writes on: beginnings of Python modules, of the kind that the bundled pair has learned."""

from __future__ import annotations

from typing import NamedTuple


class Prompt(NamedTuple):
    """A text to continue, and what to call it."""

    name: str
    text: str


PROMPTS = (
    Prompt(
        "class",
        '''class Counter:
    """Count how often each line occurs in a file."""

    def __init__(self, path):
        self.path = path
        self.lines = {}

    def read(self):
''',
    ),
    Prompt(
        "function",
        '''def parse_header(line, default=None):
    """Parse one header line.

    Return the name and the value as a tuple.
    """
''',
    ),
    Prompt(
        "tests",
        """import unittest


class ListTest(unittest.TestCase):

    def test_append(self):
        items = []
        items.append(1)
        self.assertEqual(items, [1])

    def test_pop(self):
""",
    ),
    Prompt(
        "arguments",
        """import argparse
import sys


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument('-v', '--verbose', action='store_true',
                        help='print more')
""",
    ),
    Prompt(
        "errors",
        '''class ProtocolError(Exception):
    """Raised when the peer does not follow the protocol."""


class TimeoutError(ProtocolError):
''',
    ),
    Prompt(
        "files",
        """import os


def walk_files(top, suffix):
    for dirpath, dirnames, filenames in os.walk(top):
        for name in filenames:
""",
    ),
    Prompt(
        "socket",
        '''    def handle_read(self):
        """Read what the other side has sent so far."""
        try:
            data = self.socket.recv(4096)
        except OSError as exc:
''',
    ),
    Prompt(
        "properties",
        """class Rectangle:

    def __init__(self, width, height):
        self._width = width
        self._height = height

    @property
    def width(self):
        return self._width

    @property
""",
    ),
)
