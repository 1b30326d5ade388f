"""What all verbs share: help, version, exit codes."""

from __future__ import annotations

import re

import pytest

import outrider as package
from outrider.engine.config import EngineConfig
from outrider.errors import NumericsError

VERBS = ["run", "demo", "check", "explain", "export", "quantize", "bench", "audit"]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_verbs(outrider, arguments):
    outcome = outrider(*arguments)
    assert outcome.exit_code == 0
    assert re.findall(r"^  (\w+)  ", outcome.stdout.partition("Commands:")[2], re.MULTILINE) == VERBS
    assert not outcome.stderr


def test_version(outrider):
    assert outrider("--version").stdout == f"outrider {package.__version__}\n"


def test_help_says_how_many_texts_are_written_at_once(outrider):
    assert f"Texts written at once, at most. [{EngineConfig().max_sequences}]" in outrider("run", "--help").stdout


def test_numbers_that_cannot_be_trusted_fail_with_one_line(outrider, monkeypatch):
    def fail(*_):
        raise NumericsError("rows\nmoved")

    monkeypatch.setattr("outrider.cli.run.read_prompt", fail)
    assert outrider("run", "x") == (1, "", "outrider: error: rows moved\n")


def test_ctrl_c_while_loading_is_130(outrider, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("outrider.cli.run.read_prompt", interrupt)
    assert outrider("run", "x") == (130, "", "")
