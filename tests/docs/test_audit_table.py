"""The table of docs/audit.md is that of the result file, which keeps what is promised of it."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import audit_faults, common, report
from tests.audit.faults import FAULTS, GreedyVerification, NearlyRightTemperature
from tests.docs.documents import ROOT, read

PAGE = ROOT / "docs/audit.md"
RESULT = common.RESULTS / report.AUDIT_FILE


@pytest.fixture(scope="module")
def result():
    return json.loads(RESULT.read_text())


def test_the_page_has_the_results_of_the_result_file():
    assert report.put(report.render_faults(common.RESULTS), read(PAGE)) == read(PAGE), (
        "docs/audit.md is not up to date: python -m benchmarks.report"
    )


def test_every_fault_was_measured_to_the_end(result):
    assert result["is_complete"]
    assert {row["fault"] for row in result["rows"]} == {fault.name for fault in FAULTS}


def test_faults_that_matter_were_found(result):
    promised = [row for row in result["rows"] if row["total_variation"] >= result["promised_total_variation"]]
    assert len(promised) > len(FAULTS) / 2
    assert all(row["num_found"] >= 0.8 * row["num_runs"] for row in promised)


def test_sound_engines_were_hardly_ever_accused(result):
    clean = result["clean"]
    assert (clean["num_runs"], clean["num_tokens"]) == (200, 20_000)
    assert clean["num_alarms"] <= 1


def test_the_benchmark_goes_on_where_it_stopped(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(audit_faults, "FAULTS", (GreedyVerification, NearlyRightTemperature))
    for name, value in {
        "NUM_RUNS": 4,
        "MANY": 2,
        "NUM_TOKENS": 120,
        "NUM_CLEAN_RUNS": 2,
        "NUM_CLEAN_TOKENS": 60,
    }.items():
        monkeypatch.setattr(audit_faults, name, value)
    whole = []
    for seconds in ("0", "1000"):
        monkeypatch.setattr(sys, "argv", ["audit_faults", "--seconds", seconds])
        audit_faults.main()
        whole.append(json.loads((tmp_path / report.AUDIT_FILE).read_text())["is_complete"])
    assert whole == [False, True]
    block = report.render_faults(tmp_path)
    assert "**0** in 2 runs of 60 tokens" in block
    assert "| sampling requests verified greedily |" in block
    assert "| 4 of 4 |" in block
    assert "| 0 of 4 |  |" in block
    assert report.render_faults(tmp_path / "none").startswith("Results follow from")
