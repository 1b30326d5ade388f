"""Importing is cheap: what is heavy is imported when it is used. (Who may import whom is in pyproject.toml.)"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "openvino", "numpy", "tokenizers", "safetensors", "jinja2"}


def imported_by(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["outrider", "outrider.cli"])
def test_importing_the_front_doors_imports_nothing_heavy(module):
    assert not imported_by(f"import {module}") & HEAVY


def test_help_imports_nothing_heavy():
    statement = (
        "import outrider.cli\nsys.argv = ['outrider', '--help']\ntry: outrider.cli.main()\nexcept SystemExit: pass"
    )
    assert not imported_by(statement) & HEAVY


@pytest.mark.parametrize("module", ["outrider.engine.engine", "outrider.demo", "outrider.runtime.openvino.runtime"])
def test_all_but_the_torch_runtime_does_without_torch(module):
    assert not imported_by(f"import {module}") & {"torch", "transformers"}
