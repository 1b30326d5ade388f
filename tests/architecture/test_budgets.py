"""Files and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, project_files

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6

FILES = project_files("*.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def num_lines(function: Function) -> int:
    """Lines from `def` on, less the docstring's: those are not to be saved on."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    num_docstring_lines = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return function.end_lineno - function.lineno + 1 - num_docstring_lines


def num_parameters(function: Function) -> int:
    """Parameters less `self`, `cls` and a command's options, which typer tells by `Annotated`."""
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(
        parameter.arg not in {"self", "cls"}
        and not (parameter.annotation and ast.unparse(parameter.annotation).startswith("Annotated["))
        for parameter in parameters
    )


def over_budget(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    faults = []
    if (count := len(source.splitlines())) > MAX_FILE_LINES:
        faults.append(f"{name}: {count} lines, at most {MAX_FILE_LINES}")
    for function in functions(source):
        place = f"{name}:{function.lineno} {function.name}"
        if (count := num_lines(function)) > MAX_FUNCTION_LINES:
            faults.append(f"{place}: {count} lines, at most {MAX_FUNCTION_LINES}")
        if (count := num_parameters(function)) > MAX_PARAMETERS:
            faults.append(f"{place}: {count} parameters, at most {MAX_PARAMETERS}")
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_its_functions_are_within_budget(path):
    assert not over_budget(path)


def test_the_budget_counts_what_it_says():
    body = "    pass\n" * MAX_FUNCTION_LINES
    long_function, wide_method = functions(
        f"def long():\n    '''One.\n\n    Two.'''\n{body}\nclass Wide:\n"
        "    def method(self, a, b, /, c, *, d: int, e, f, g, h: Annotated[int, None]): ..."
    )
    assert num_lines(long_function) == MAX_FUNCTION_LINES + 1
    assert num_parameters(wide_method) == MAX_PARAMETERS + 1
