"""Python in the documents runs, block after block, as a reader would type it."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, README, Block, blocks, name_of

EXAMPLES = [path for path in DOCUMENTS if blocks(path, "python")]


def run(path: Path, block: Block, names: dict) -> None:
    """Run a block in these names; a session must show what the documents say it shows."""
    place = f"{path.name}:{block.line}"
    if ">>>" not in block.content:
        exec(compile(block.content, place, "exec"), names)  # noqa: S102 - our own documents
        return
    session = doctest.DocTestParser().get_doctest(block.content, names, place, str(path), block.line)
    report: list[str] = []
    result = doctest.DocTestRunner().run(session, out=report.append, clear_globs=False)
    assert not result.failed, "".join(report)
    names.update(session.globs)


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_python_in_a_document_runs(path):
    names = {"__name__": "example"}
    for block in blocks(path, "python"):
        run(path, block, names)


def test_the_readme_has_an_example():
    assert README in EXAMPLES


@pytest.mark.parametrize("content", [">>> 1 + 1\n3\n", ">>> undefined\n", "assert 1 + 1 == 3\n"])
def test_an_example_that_does_not_hold_is_found(content):
    with pytest.raises(AssertionError):
        run(README, Block("python", content, 1), {})


def test_later_blocks_know_the_names_of_earlier_ones():
    names: dict = {}
    for content in (">>> one = 1\n", "two = one + 1\n", ">>> one + two\n3\n"):
        run(README, Block("python", content, 1), names)
