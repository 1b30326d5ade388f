"""One word per role: the identifiers that this package defines keep to docs/glossary.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, project_files

# The other words that the field has for a drafter, and for reserve, commit and release.
BANNED_WORDS = {"speculator", "proposer", "assistant", "trim", "crop", "rollback"}
# Papers use these in opposite senses: target_log_probs, draft_log_probs.
BANNED_NAMES = {"p", "q"}

FILES = project_files("src/*.py")


def defined_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.arg(arg=name)
            ):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words(name: str) -> set[str]:
    """`num_TrimmedRows` -> num, trimmed, rows; singular."""
    return {word.lower().removesuffix("s") for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def is_banned(name: str) -> bool:
    return name in BANNED_NAMES or bool(words(name) & BANNED_WORDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_from_the_glossary(path: Path):
    names = {path.stem, *defined_names(path.read_text(encoding="utf-8"))}
    assert not {name for name in names if is_banned(name)}


@pytest.mark.parametrize("name", ["p", "draftProposer", "num_assistants", "TRIM_TO", "Speculator", "crop"])
def test_banned_names_are_found_however_they_are_written(name):
    assert is_banned(name)
    assert name in defined_names(f"def f({name}): ...")
    assert name in defined_names(f"self.{name}, other = 1, 2")


@pytest.mark.parametrize("name", ["top_p", "propose", "strip", "speculative", "chat_assistance"])
def test_other_names_are_not(name):
    assert not is_banned(name)
