"""The page on the method: its figures are those of result files, and `check` points to it."""

from __future__ import annotations

import re

from typer.main import get_command

from outrider.cli.app import app
from tests.architecture.sources import ROOT
from tests.docs.documents import README, prose, read

PAGE = ROOT / "docs/speculative-decoding.md"
RESULTS = re.compile("<!-- results: .*<!-- end of results -->", re.DOTALL)


def test_speedups_in_the_prose_are_in_the_table_of_results():
    """What is not in the prose is printed from a result file, by code that runs."""
    found = RESULTS.search(read(README))
    speedups = re.findall(r"\d\.\d\dx", prose(PAGE))
    assert speedups
    assert set(speedups) <= set(re.findall(r"\d\.\d\dx", found.group()))


def test_no_other_figure_is_in_the_prose():
    text = re.sub(r"\d\.\d\dx|\(.*?\)|`[^`]*`|[Tt]emperature [01]|[Dd]epth [1-4](, [1-4])*", "", prose(PAGE))
    assert not re.findall(r"\d+(?:\.\d+)?", re.sub(r"plus 1|are 1 plus", "", text))


def test_help_of_check_points_to_the_page():
    assert "docs/speculative-decoding.md" in get_command(app).commands["check"].help
    assert PAGE.exists()
