"""The text of the bundled pair: what ships with CPython (standard library source and the documentation topics).

Knows files and characters; knows nothing of tokens or models. The corpus is a pure function of the interpreter that
runs it: the same CPython release gives the same text, the same split and the same digest.
"""

from __future__ import annotations

import hashlib
import pydoc_data.topics
import sysconfig
from pathlib import Path
from typing import NamedTuple

HELD_OUT_ONE_IN = 40
# Tables of numbers and machine-made files teach a small model nothing about Python.
SKIPPED_FOLDERS = frozenset(
    {"site-packages", "encodings", "lib2to3", "__pycache__", "pydoc_data", "cjkencodings", "turtledemo"}
)
MAX_FILE_CHARACTERS = 250_000
MAX_LINE_CHARACTERS = 400


class Document(NamedTuple):
    """One text and the name that decides on which side of the split it falls."""

    name: str
    text: str

    @property
    def is_held_out(self) -> bool:
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def read_documents(*, with_tests: bool = True) -> list[Document]:
    """Every usable text of the running interpreter's standard library, in name order."""
    root = Path(sysconfig.get_path("stdlib"))
    documents = [Document(f"topics/{name}", text) for name, text in sorted(pydoc_data.topics.topics.items())]
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if SKIPPED_FOLDERS.intersection(parts) or (not with_tests and {"test", "tests"}.intersection(parts)):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        usable = 200 < len(text) <= MAX_FILE_CHARACTERS and max(map(len, text.splitlines())) <= MAX_LINE_CHARACTERS
        if usable:
            documents.append(Document(path.relative_to(root).as_posix(), text.expandtabs(4)))
    return documents


def digest(documents: list[Document]) -> str:
    """sha256 over names and texts, in order: two machines with the same digest trained on the same text."""
    state = hashlib.sha256()
    for document in documents:
        state.update(document.name.encode() + b"\0" + document.text.encode() + b"\0")
    return state.hexdigest()
