"""What `import outrider` offers is little, and each name shows how it is used."""

from __future__ import annotations

import doctest

import pytest

import outrider

MAX_PUBLIC_NAMES = 12

NAMES = [name for name in outrider.__all__ if not name.startswith("__")]


def test_public_names_are_few():
    assert len(NAMES) <= MAX_PUBLIC_NAMES


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_explained_by_an_example_that_runs(name):
    value = getattr(outrider, name)
    assert value.__doc__
    examples = doctest.DocTestFinder().find(value, name, globs={each: getattr(outrider, each) for each in NAMES})
    # An exception is caught by its name: there is nothing more to show.
    is_exception = isinstance(value, type) and issubclass(value, Exception)
    assert is_exception or any(each.examples for each in examples), "no >>> example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for each in examples:
        runner.run(each)
    assert runner.summarize().failed == 0
