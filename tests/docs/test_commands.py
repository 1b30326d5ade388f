"""Commands that the documents name exist, with the options and values that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from outrider.cli.app import app
from tests.architecture.sources import ROOT
from tests.docs.documents import DOCUMENTS, README, blocks, code_spans, name_of, read


def commands(path: Path) -> list[list[str]]:
    """The words of every command line: those in shell blocks, and code in the prose that looks like one."""
    lines = [line for block in blocks(path, "sh") for line in block.content.splitlines() if line]
    lines += [span for span in code_spans(path) if re.match(r"(make|outrider|python -m) \S", span)]
    return [shlex.split(line, comments=True) for line in lines]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))


def check(words: list[str]) -> None:
    match words:
        case ["make", *targets]:
            assert set(targets) <= make_targets()
        case ["outrider" | ".venv/bin/outrider", "--help"]:
            pass
        case ["outrider" | ".venv/bin/outrider", verb, *arguments]:
            get_command(app).commands[verb].make_context(verb, arguments)  # reads options, runs nothing
        case ["python", "-m", module, *_]:
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
        case _:
            pytest.fail(f"no test knows this command: {shlex.join(words)}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_exist(path):
    for words in commands(path):
        check(words)


def test_the_readme_names_the_two_commands():
    assert commands(README)[:2] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize(
    "line",
    ["outrider run --no-such-option", "outrider run --depth many", "outrider fly", "make cake", "python -m gone.x"],
)
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises(Exception, match=r".*"):
        check(shlex.split(line))
