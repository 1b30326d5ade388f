"""The figures of docs/quantisation.md are those of the result file."""

from __future__ import annotations

from benchmarks import common, report
from tests.docs.documents import ROOT, read

PAGE = ROOT / "docs/quantisation.md"


def test_the_page_has_the_results_of_the_result_file(tmp_path):
    assert report.put(report.render_quantised(common.RESULTS), read(PAGE)) == read(PAGE), (
        "docs/quantisation.md is not up to date: python -m benchmarks.report"
    )
    assert report.render_quantised(tmp_path).startswith("Results follow from")
