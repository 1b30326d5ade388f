"""`outrider bench`: what was measured is shown and saved, whole or marked partial; mistakes are one line."""

from __future__ import annotations

import importlib.util
import itertools
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from outrider.cli import bench_show, bench_url_show

QUICK = ("bench", "--workload", "code,chat", "--prompts", "1", "--max-tokens", "20", "--depth", "3")


@pytest.fixture
def bench(outrider, monkeypatch, tiny_pair):
    monkeypatch.setattr("outrider.cli.bench.bundled_pair", lambda: tiny_pair)  # make-pair's
    return outrider


def interrupt_after(monkeypatch, num_steps):
    asked = itertools.count()

    @contextmanager
    def noted():
        yield SimpleNamespace(is_set=lambda: next(asked) >= num_steps)

    monkeypatch.setattr(bench_show, "noted_interrupt", noted)


def test_a_comparison_is_shown_and_saved(bench, tmp_path):
    saved, page = tmp_path / "bench.json", tmp_path / "bench.html"
    outcome = bench(*QUICK, "--concurrency", "1,2", "--json", saved, "--html", page)
    assert outcome.exit_code == 0, outcome
    document = json.loads(saved.read_text())
    assert len(document["rows"]) == 12
    assert {row["workload"] for row in document["rows"]} == {"code", "chat", "all"}
    assert not document["is_partial"]
    assert not document["differences"]
    assert {"provenance", "engine", "memory_bytes", "plan", "measurements"} <= document.keys()
    assert len(document["models"]["drafts"]) == 2
    assert len(document["models"]["target"]["fingerprint"]) == 64
    assert document["plan"]["depth"] == 3
    assert "code" in outcome.stdout
    assert "target weights" in outcome.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")
    for row in document["rows"]:
        if row["speedup"]:
            assert f"{row['speedup']['median']:.2f}" in outcome.stdout


def test_json_on_stdout_is_all_that_is_there(bench):
    outcome = bench(*QUICK, "--temperature", "1", "--json", "-")
    assert outcome.exit_code == 0, outcome
    assert outcome.json["plan"]["temperatures"] == [1.0]
    assert "Speculation against plain decoding" in outcome.stderr


def test_under_block_verification_sampled_texts_may_differ_and_are_measured(bench):
    outcome = bench(*QUICK, "--temperature", "0,1", "--verify", "block", "--json", "-")
    assert outcome.exit_code == 0, outcome
    assert outcome.json["engine"]["verification"] == "block"
    assert not outcome.json["differences"]
    rows = [row for row in outcome.json["rows"] if row["temperature"] == 1]
    assert any(row["speedup"] for row in rows)


def test_a_file_is_a_workload(bench, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "import os"}\n{"prompt": "def f(", "prediction": "def f(x): pass"}\n')
    outcome = bench("bench", "--workload", path, "--max-tokens", "20", "--temperature", "1", "--json", "-")
    assert outcome.exit_code == 0, outcome
    (workload,) = outcome.json["plan"]["workloads"]
    assert (workload["name"], workload["num_prompts"]) == ("mine.jsonl", 2)


def test_without_a_text_that_is_fit_there_is_no_number(bench):
    outcome = bench(*QUICK[:-4], "--max-tokens", "8", "--temperature", "0")
    assert outcome.exit_code == 0, outcome
    assert "ends after 8 tokens" in outcome.stdout
    assert "No speedup" in outcome.stdout
    assert "nothing measured" in outcome.stdout


def test_an_interrupted_comparison_is_shown_as_far_as_it_came(bench, monkeypatch, tmp_path):
    saved = tmp_path / "bench.json"
    interrupt_after(monkeypatch, 200)
    outcome = bench(*QUICK, "--runs", "5", "--json", saved)
    assert outcome.exit_code == 130
    assert "Interrupted" in outcome.stdout
    document = json.loads(saved.read_text())
    assert document["is_partial"]
    assert 0 < len(document["measurements"]) < 20


@pytest.mark.parametrize("others", [[], ["--url", "http://127.0.0.1:9"]], ids=["ours", "url"])
def test_ctrl_c_ends_who_still_waits_for_another_run(bench, interrupt_while_waiting, tmp_path, others):
    for module in (bench_show, bench_url_show):
        interrupt_while_waiting(module)
    saved, page = tmp_path / "bench.json", tmp_path / "bench.html"
    quick = QUICK[:-2] if others else QUICK
    outcome = bench(*quick, *others, "--json", saved, "--html", page)
    assert outcome.exit_code == 130
    assert outcome.stderr.splitlines() == ["waiting for another timed run to end"]
    assert not outcome.stdout
    assert not [*tmp_path.iterdir()]


def test_a_text_that_must_not_differ_and_does_fails_the_command(bench, monkeypatch):
    monkeypatch.setattr(bench_show, "num_faults", lambda document: 1)
    assert bench(*QUICK, "--temperature", "1").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workload", "prosa"], "workload 'prosa' is none of code, prose"),
        (["--workload", "code,code"], "'code' is given twice"),
        (["--workload", "none.jsonl"], "cannot read the workload from none.jsonl"),
        (["--concurrency", "0"], "--concurrency is 0, but must be between 1 and 256"),
        (["--concurrency", "1,1"], "holds a number twice"),
        (["--concurrency", "1,"], "must be numbers such as 1,4,8"),
        (["--concurrency", "1.5"], "must be numbers such as 1,4,8"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--temperature", "hot"], "must be numbers such as 0,0.7,1"),
        (["--depth", "65"], "--depth is '65', but must be auto or a whole number between 0 and 64"),
        (["--depth", "deep"], "--depth is 'deep'"),
        (["--runs", "0"], "--runs"),
        (["--prompts", "0"], "--prompts"),
        (["--max-tokens", "-3"], "--max-tokens"),
        (["--threads", "0"], "--threads"),
        (["--seed", "-1"], "--seed"),
        (["--target", "no/where/at/all"], "no/where/at/all"),
        (["--json", "no/where/bench.json"], "cannot write"),
        (["--html", "no/where/bench.html"], "cannot write"),
        (["--runs", "2", "make-pair"], "--runs stands before make-pair"),
        (["make-pair", "--size", "7b", "--agreement", "0.8", "--out", "x"], "--size"),
        (["make-pair", "--size", "0.5b", "--agreement", "0.2", "--out", "x"], "must be between 0.3 and 0.99"),
        (["make-pair", "--size", "0.5b", "--agreement", "0.8", "--out", "."], "exists already"),
        (["make-pair", "--size", "0.5b", "--out", "x"], "--agreement"),
    ],
)
def test_a_mistake_is_one_line(bench, arguments, message):
    assert message in bench("bench", *arguments).error


def test_a_page_without_matplotlib_is_refused_before_anything_is_measured(bench, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    assert "outrider[report]" in bench(*QUICK, "--html", tmp_path / "bench.html").error


def test_a_pair_is_made_and_said(bench, monkeypatch, tmp_path):
    made = []

    def make_pair(source, out, plan, report):
        made.append((source, out, plan))
        report("searching")
        return {"agreement": {"0.0": 0.81, "1.0": 0.77}, "num_parameters": {"target": 507_000_000}, "damping": 0.5}

    monkeypatch.setattr(bench_show, "make_pair", make_pair)
    arguments = ("--size", "0.5b", "--agreement", "0.8", "--seed", "3", "--out", tmp_path / "pair")
    outcome = bench("bench", "make-pair", *arguments)
    assert outcome.exit_code == 0, outcome
    ((_, out, plan),) = made
    assert (out, plan.agreement, plan.seed, plan.shape.num_layers) == (tmp_path / "pair", 0.8, 3, 40)
    assert "507,000,000" in outcome.stderr
    assert "0.810" in outcome.stderr
    assert "searching" in outcome.stderr
