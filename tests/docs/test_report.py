"""README's results are those of the result files, and the report reads what the benchmarks really write."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import suppress
from types import SimpleNamespace

import pytest

from benchmarks import (
    adversarial,
    batching,
    checkpoints,
    common,
    drafting,
    exactness_price,
    identity,
    overhead,
    plain,
    report,
    report_rows,
    speculation,
    startup,
    trees,
    trees_auto,
    verification,
)
from outrider.draft.model import ModelDrafter
from outrider.engine import llm as llm_module
from outrider.engine.load import Loaded, LoadedModel, make_drafter
from outrider.policy.cost import StepCosts
from tests.docs.documents import README, read
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime

PROMPTS = [common.Prompt("one", "import os\n"), common.Prompt("two", "def main(\n")]


class Characters:
    """A tokenizer of the fake model: it can do what an `LLM` asks of one."""

    def encode(self, text, *, add_special_tokens=True):
        return [ord(character) % VOCAB_SIZE for character in text]

    def stream(self, prompt_token_ids=()):
        return SimpleNamespace(push=lambda token_id: chr(97 + token_id), finish=lambda: "")


class DescribedRuntime(FakeRuntime):
    def describe(self):
        return {**super().describe(), "dtype": "float32", "num_threads": 1}


class Peer:
    num_threads = 1

    def __init__(self, folder):
        pass

    def generate(self, prompt, max_tokens):
        return {"seconds": 1.0, "token_ids": [0] * max_tokens}

    def close(self):
        pass


def fake_load(target, draft, config, tokenizer=None):
    loaded = LoadedModel(DescribedRuntime(), Characters())
    if draft not in (None, "suffix"):
        draft = ModelDrafter(FakeRuntime(min_rows=1), 100, VOCAB_SIZE)
    return Loaded(loaded, make_drafter(draft, loaded, config), config, None, StepCosts)


@pytest.fixture
def results(monkeypatch, tmp_path):
    """A folder for results, and benchmarks that run on fake models and two prompts."""
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # holds the lock that timed runs wait for
    monkeypatch.setattr(llm_module, "load", fake_load)
    monkeypatch.setattr(identity, "MAX_TOKENS", 6)
    monkeypatch.setattr(plain, "Peer", Peer)
    monkeypatch.setattr(startup, "seconds_to_first_byte", lambda arguments: 0.5)
    monkeypatch.setattr(adversarial, "NUM_TOKENS", 20)
    monkeypatch.setattr(adversarial, "drafters", lambda pair: {"always wrong, free": adversarial.Wrong(VOCAB_SIZE)})
    monkeypatch.setattr(batching, "NUM_PROMPTS", 4)
    monkeypatch.setattr(batching, "CONCURRENCIES", (1, 2))
    monkeypatch.setattr(drafting, "MAX_PROMPTS", 2)
    monkeypatch.setattr(drafting, "cases", lambda agreements: [drafting.Case("bundled", "cascade", "code", 0.0, 1)])
    monkeypatch.setattr(verification, "CASES", verification.CASES[:1])
    for module in (trees, trees_auto):
        monkeypatch.setattr(module, "MAX_TOKENS", 8)
    monkeypatch.setattr(trees_auto, "NAMES", ())
    for module in set(ARGUMENTS) - {startup}:
        monkeypatch.setattr(module, "read_prompts", lambda: PROMPTS, raising=False)
        monkeypatch.setattr(module, "bundled_pair", lambda: SimpleNamespace(target="t", draft="d"), raising=False)
        monkeypatch.setattr(module, "make_checkpoint", lambda *_, **__: "t", raising=False)
    return tmp_path / "results"


ARGUMENTS = {
    adversarial: ["--rounds", "1"],
    batching: ["--rounds", "1", "--max-tokens", "20"],
    drafting: ["--rounds", "1", "--max-tokens", "20"],
    exactness_price: ["--rounds", "1", "--max-tokens", "8"],
    identity: ["--tokens", "1", "--float32-tokens", "0", "--full-price-tokens", "0"],
    overhead: ["--max-tokens", "6"],
    plain: ["--rounds", "1"],
    speculation: ["--rounds", "1", "--max-tokens", "12"],
    startup: [],
    trees: [],
    trees_auto: ["--rounds", "1"],
    verification: ["--rounds", "1", "--max-tokens", "12"],
}


def run(benchmark, monkeypatch):
    monkeypatch.setattr(sys, "argv", [benchmark.__name__, *ARGUMENTS[benchmark]])
    with suppress(SystemExit):  # the one that counts divergences ends with their code
        benchmark.main()


@pytest.mark.parametrize(
    ("benchmark_", "expected"),
    [
        (adversarial, "| bundled target, T = 1, always wrong, free | **"),
        (batching, "| bundled pair, cascade, greedy, 1, 2 texts at once | **"),
        (drafting, "| bundled pair, cascade, greedy: geometric mean of six workloads | **"),
        (exactness_price, "| bundled pair, chains of 4, T = 1 | **"),
        (identity, "| **0** of 12 (72 tokens), level `bitwise` |"),
        (overhead, "random weights, T = 1, draft model, depth 4 |"),
        (plain, "bundled target, greedy | **"),
        (speculation, "| draft model, greedy, depth auto (default) | **"),
        (verification, "| bundled pair, draft model, T = 1, depth 8 | **"),
        (trees, "| bundled pair, greedy, 4, 8, 16 nodes, best of 2 to 4 children | **"),
        (trees_auto, "| bundled pair, greedy | **"),
        (startup, "| 0.50 s (0.50 to 0.50 s in 15 starts) |"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_report_reads_what_a_benchmark_writes(benchmark_, expected, results, monkeypatch, capsys):
    run(benchmark_, monkeypatch)
    found = report.read_results(results)
    assert list(found) == [benchmark_.__name__.partition(".")[2]]
    block = report.render(found)
    assert expected in block
    assert f"(benchmarks/results/{next(iter(found))}.json)" in block
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found.popitem()[1]


def test_every_benchmark_is_reported():
    saving = {path.stem for path in common.FOLDER.glob("*.py") if " save(" in read(path)}
    elsewhere = {report.AUDIT_FILE, report.FLOORS_FILE, report.PEERS_FILE, *report.CHECK_FILES, report.QUANTISED_FILE}
    assert set(report.ROWS) == saving - {name.removesuffix(".json") for name in elsewhere} - {"common"}
    assert set(report.ROWS) == {benchmark.__name__.partition(".")[2] for benchmark in ARGUMENTS}
    assert set(checkpoints.SHAPES) < set(report_rows.TARGETS)


def test_readme_has_the_results_of_the_result_files():
    assert report.put(report.render(report.read_results(common.RESULTS)), read(README)) == read(README), (
        "README.md is not up to date: python -m benchmarks.report"
    )


def document(**changes):
    hardware = {
        "processor": "Abacus 9", "num_cores": 4, "num_usable_cores": 2, "memory_bytes": 8 * 2**30, "system": "Linux",
        "machine": "x86_64", "flags": ["avx2"],
    }  # fmt: skip
    revision = {"commit": "0123456789abcdef", "modified": True}
    provenance = {"hardware": hardware | changes, "versions": {"outrider": "1", "numpy": "2"}, "revision": revision}
    return {"provenance": {**provenance, "time": "2026-01-02T03:04:05+00:00"}, "rows": []}


def test_files_from_one_machine_name_it_once_and_from_two_each_with_its_files():
    same = report.configuration({"plain": document(), "startup": document()})
    assert same[0] == "- Machine: Abacus 9, 2 of 4 cores, 8 GiB, Linux x86_64 (avx2)."
    other = report.configuration({"plain": document(), "startup": document(processor="Z1")})
    assert "Abacus 9, 2 of 4 cores, 8 GiB, Linux x86_64 (avx2) (`plain.json`); Z1" in other[0]


def test_a_result_from_a_changed_tree_says_so():
    assert "- Revision: Outrider 1, 0123456789 with changes, 2026-01-02." in report.configuration({"plain": document()})


def test_the_fastest_depth_is_named_as_the_best_of_all_that_were_tried():
    rows = [
        {
            "drafter": "model",
            "temperature": 1.0,
            "depth": depth,
            "speedup": {"median": median, "low": 1.0, "high": 3.0, "num_pairs": 2},
            "acceptance_length": 2.5,
        }
        for depth, median in ((2, 1.1), (4, 1.2), (6, 1.3), ("auto", 1.4))
    ]
    fastest, default = report_rows.speculation_rows({"rows": rows})
    assert default.setting == "draft model, T = 1, depth auto (default)"
    assert fastest.setting == "draft model, T = 1, depth 6 (fastest of 2, 4, 6)"
    assert fastest.result == "**1.30x** [1.00, 3.00], 2.50 tokens a target forward"


def test_without_result_files_the_readme_says_how_to_get_them(tmp_path):
    assert report.render(report.read_results(tmp_path)) == report.NOTHING_YET


def test_a_text_without_the_markers_is_refused():
    with pytest.raises(SystemExit, match=r"README.md lacks the markers"):
        report.put("block", f"text {report.BEGIN} text")
