"""The table of docs/check.md is that of the result files, and the grid behind it measures what it says."""

from __future__ import annotations

import json

import pytest

from benchmarks import common, report
from benchmarks.judged import choices, draw, summarise
from benchmarks.steady import run_steadily
from outrider import LLM, EngineConfig, SamplingParams
from outrider.predict.agreement import KnownText
from tests.cli.tiny import make_tiny
from tests.docs.documents import ROOT, read

PAGE = ROOT / "docs/check.md"


def test_the_page_has_the_results_of_the_result_files():
    assert report.put(report.render_predictions(common.RESULTS), read(PAGE)) == read(PAGE), (
        "docs/check.md is not up to date: python -m benchmarks.report"
    )


def test_the_grid_is_as_wide_as_the_page_says():
    document = json.loads((common.RESULTS / "predictions.json").read_text())
    rows = [row for part in document["parts"].values() for row in part["rows"]]
    assert len(rows) >= 60
    for name, least in {"pair": 6, "depth": 4, "temperature": 3, "num_sequences": 3}.items():
        assert len({row[name] for row in rows}) >= least
    assert all(row["num_prompts"][0] > 5 and row["measured"] > 0 for row in rows)
    assert document["summary"] == summarise(rows)


def row(predicted=1.5, measured=1.4, **changes):
    return {
        "pair": "one", "depth": 2, "temperature": 0.0, "num_sequences": 1, "measured": measured, "measured_again": None,
        "predicted": {"value": predicted, "low": predicted - 0.2, "high": predicted + 0.2},
        "error": predicted / measured - 1, "is_inside": abs(predicted - measured) <= 0.2,
        "error_on_measured_texts": 0.0,
    } | changes  # fmt: skip


def test_shares_are_counted_over_all_and_over_groups():
    found = summarise([row(), row(2.0, 1.0), row(measured_again=1.5, num_sequences=4)])
    assert found["all"]["share_within_10_percent"] == pytest.approx(2 / 3)
    assert found["all"]["share_inside_interval"] == pytest.approx(2 / 3)
    assert found["4 at once"]["num_settings"] == found["4 at once"]["num_repeated"] == 1
    assert found["1 at once"]["repeat_median"] is None


def test_the_choice_is_that_of_the_prediction_and_plain_decoding_is_one():
    settings = {1: (1.1, 1.2), 2: (1.5, 1.3), 4: (1.4, 1.6), 8: (0.9, 0.8)}
    (found,) = choices([row(*values, depth=depth) for depth, values in settings.items()])
    assert (found["chosen"], found["best"]) == (2, 4)
    assert found["share_of_best"] == pytest.approx(1.3 / 1.6)
    (found,) = choices([row(0.9, 0.8, depth=depth) for depth in (1, 2, 4, 8)])
    assert (found["chosen"], found["share_of_best"]) == (0, 1.0)
    assert not choices([row()])


def test_predictions_are_drawn(tmp_path):
    draw([row(), row(2.0, 1.0, pair="two")], tmp_path / "plot.svg")
    assert "within 10 %" in (tmp_path / "plot.svg").read_text()


def test_a_steady_run_counts_only_steps_of_all_texts(tmp_path):
    llm = LLM(make_tiny(tmp_path / "target", scale=2.0), draft="suffix", config=EngineConfig(self_test=False))
    texts = []
    for length in (9, 30, 21):
        params = SamplingParams(temperature=1.0, seed=length, max_tokens=length, ignore_eos=True)
        (plain,) = llm.generate("def read(path):", params, depth=0)
        texts.append(KnownText("one", "c", params, plain.prompt_token_ids, plain.token_ids))
    plain = run_steadily(llm, texts, 2, 0)
    assert plain.tokens_per_step == 1.0
    assert plain.num_tokens == 2 * plain.num_steps
    assert 25 <= plain.num_steps <= 40  # the first two, and the third beside the first again
    assert run_steadily(llm, texts, 2, 3).num_drafted > 0
    assert llm.engine.is_idle
    with pytest.raises(SystemExit, match="changed the text"):
        run_steadily(llm, [texts[0]._replace(token_ids=(*texts[0].token_ids[:-1], -1))], 1, 0)
