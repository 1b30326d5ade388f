"""The tables of docs/performance.md are those of the result file, and floors count what a step cannot do without."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import common, floors, limits, report, report_floors
from outrider import bundled_pair
from outrider.model.config import read_config
from outrider.runtime.base import RuntimeOptions
from tests.docs.documents import ROOT, read

PAGE = ROOT / "docs/performance.md"
MACHINE = {
    "reading": [
        {"num_threads": 2, "num_bytes": size * limits.MIB, "bytes_per_second": rate}
        for size, rate in ((2, 40e9), (4, 20e9))
    ],
    "multiplying": [{"num_threads": 2, "dtype": "float32", "operations_per_second": 1e11}],
}


def test_the_page_has_the_results_of_the_result_file():
    assert report.put(report.render_floors(common.RESULTS), read(PAGE)) == read(PAGE), (
        "docs/performance.md is not up to date: python -m benchmarks.report"
    )


def test_every_distance_is_that_of_its_measurement_and_its_floor():
    document = json.loads((common.RESULTS / report.FLOORS_FILE).read_text())
    machine = document["parts"]["machine"]["machine"]
    for part in document["parts"].values():
        for model in part.get("models", ()):
            for row in model["rows"]:
                work = floors.Work(row["weight_bytes"], row["cache_bytes"], row["operations"])
                num_threads = model["target"]["num_threads"]
                assert row["floor"] == floors.floor_of(machine, work, model["multiplied_in"], num_threads)
                assert row["over_floor"] == pytest.approx(row["ms"] / row["floor"]["ms"])


def test_a_step_reads_every_matrix_once_and_every_key_of_its_texts():
    config = read_config(bundled_pair().draft)
    alone, several = (floors.work_of(config, "float32", floors.Step(number, 1, 100)) for number in (1, 3))
    num_values = sum(each.size for each in _matrices(config))
    assert alone.weight_bytes == several.weight_bytes == 2 * num_values
    # two layers, one head of 64 keys and one of values, 4 bytes each
    assert alone.cache_bytes == 2 * 2 * 64 * 4 * 100
    assert several.cache_bytes == 3 * alone.cache_bytes
    # two heads of queries see 101 keys
    assert alone.operations == 2 * num_values + 4 * 2 * 2 * 64 * 101
    assert several.operations == 3 * alone.operations
    untied = floors.work_of(replace(config, tie_word_embeddings=False), "float32", floors.Step(1, 1, 100))
    assert untied == alone  # an embedding that is not the head is looked up, not read


def _matrices(config):
    weights = floors.random_weights(config)
    return [weights[name].array for name in weights.names if weights[name].array.ndim == 2]


def test_an_int8_model_has_the_tensors_of_a_quantised_one():
    small = replace(floors.DRAFT, hidden_size=64, intermediate_size=96, num_layers=1, num_heads=2, num_kv_heads=1)
    model = floors.Model("small", is_target=False, shape=small, vocab_size=128, is_quantised=True)
    config, original = (floors.config_of(each) for each in (model, model._replace(is_quantised=False)))
    floors.random_weights(config).check(config)
    whole, half = (floors.work_of(each, "float32", floors.Step(1, 1, 100)).weight_bytes for each in (original, config))
    assert whole == 2 * half


def test_the_floor_is_the_longer_of_reading_and_multiplying():
    reads = floors.floor_of(MACHINE, floors.Work(2 * limits.MIB, limits.MIB, 1), "float32", 2)
    assert reads["ms"] == reads["reading_ms"] == pytest.approx(1000 * 3 * limits.MIB / 30e9)
    multiplies = floors.floor_of(MACHINE, floors.Work(1, 1, 10**9), "float32", 2)
    assert multiplies["ms"] == multiplies["multiplying_ms"] == pytest.approx(10)


def test_a_model_of_random_weights_is_timed(monkeypatch):
    monkeypatch.setattr(floors, "CONTEXTS", (40, 70))
    monkeypatch.setattr(floors, "MAX_SECONDS", 0.0)
    small = replace(floors.DRAFT, hidden_size=64, intermediate_size=96, num_layers=1, num_heads=2, num_kv_heads=1)
    model = floors.Model("small", is_target=False, shape=small, vocab_size=128)
    threads = floors.load(model).options.num_threads
    machine = {kind: [row | {"num_threads": threads} for row in rows] for kind, rows in MACHINE.items()}
    monkeypatch.setattr(floors, "load", _load_float32)
    found = floors.measure_model(model, machine)
    cases = [(row["num_past"], row["num_sequences"]) for row in found["rows"][::4]]
    assert cases == [(40, 1), (40, 8), (70, 1), (70, 8)]
    assert all(row["over_floor"] > 0 for row in found["rows"])
    monkeypatch.setattr(floors, "free_bytes", lambda: 1)
    found = floors.measure_model(model, machine)
    assert (found["rows"], len(found["left_out"])) == ([], 4)
    assert len([*report_floors.left_out([found])]) == 4


def _load_float32(model):
    config = floors.config_of(model)
    options = RuntimeOptions(dtype="float32", bitwise=False)
    return floors.OpenVinoRuntime(config, floors.random_weights(config), options)


def test_rates_are_measured():
    assert limits.read_rate(limits.MIB, 1) > 1e8
    assert limits.product_rate(limits.ov.Core(), "float32", 1) > 1e8
    assert np.isclose(limits.rate_of_reading(MACHINE, 3 * limits.MIB, 2), 30e9)


def test_where_we_stand_beside_peers_is_said_of_the_parts_that_were_measured():
    def found(workload, temperature, ratio):
        values = {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
        return {
            "workload": workload, "temperature": temperature, "best_peer": "other", "setting": "draft 4",
            "ratio": values,
        }  # fmt: skip

    pair = [found("code", 0.0, 1.0), found("all", 0.0, 1.5), found("all", 1.0, 2.0)]
    edit = [found("edit", 0.0, 3.0), found("repeat", 0.0, 4.0), found("all", 0.0, 3.5)]
    peers = {"0.8": {"findings": pair}, "0.95": {"findings": pair}, "edit": {"findings": edit}}
    stands = report_floors.beside_peers(peers, ())
    assert stands[report_floors.GREEDY] == (
        "0.95: 1.50x [1.40, 1.60] over other, draft 4; 0.8: 1.50x [1.40, 1.60] over other, draft 4"
    )
    assert stands[report_floors.SAMPLED].startswith("0.95: 2.00x [1.90, 2.10] over other")
    assert stands[report_floors.EDIT] == (
        "edit: 3.00x [2.90, 3.10] over other, draft 4; repeat: 4.00x [3.90, 4.10] over other, draft 4"
    )
    assert stands[report_floors.CROWD] == stands[report_floors.PLAIN] == report_floors.NOT_MEASURED
    assert {*report_floors.BESIDE_PEERS} < {what for what, *_ in report_floors.GOALS}


def test_the_goals_say_what_an_int8_target_gains():
    texts = [
        {"what": f"int8 over original, {how}", "ratio": {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1}}
        for how, ratio in (("plain", 1.5), ("speculative", 1.2))
    ]
    stand = report_floors.int8(texts)
    assert stand == "1.20x [1.10, 1.30]; plain 1.50x [1.40, 1.60]"
    said = [*report_floors.goals({report_floors.INT8: stand})]
    assert said[-3] == report_floors.line(report_floors.INT8, "1.2x", "1.4x", stand)
    assert said[-1].endswith("| not measured |")


def test_a_peer_whose_sampled_texts_were_refuted_is_named_and_the_next_one_stands_beside_it():
    low, high = ({"median": value, "low": value - 0.1, "high": value + 0.1} for value in (0.8, 1.1))
    finding = {"workload": "all", "temperature": 1.0, "best_peer": "fast", "setting": "draft 8", "ratio": low}
    finding["ratios"] = {"fast": low, "sound": high}
    stand = report_floors.beside_best({"0.8": {"findings": [finding]}}, ("0.8",), 1.0, {"fast"})
    assert stand == "0.80x [0.70, 0.90] over fast, draft 8, which is not exact; 1.10x [1.00, 1.20] over sound"
    rows = [
        {"peer": "fast", "setting": "draft 8", "is_refuted": True, "num_tokens": 96, "num_tokens_at_alarm": 6},
        {"peer": "fast", "setting": "plain", "is_refuted": False, "num_tokens": 3456, "num_tokens_at_alarm": None},
    ]
    said = report_floors.bets({"rows": rows}, rows[:1])
    assert "fast draft 8 (after 6 tokens)" in said
    assert said.endswith("Not refuted: fast plain (3456 tokens).")


def test_the_realised_speedup_is_that_of_a_whole_step_over_that_of_its_forwards():
    def row(depth, ms, target, draft):
        stages = {"target": target, "draft": draft}
        return {"pair": "a pair", "temperature": 0.0, "depth": depth, "ms": ms, "stages_ms": stages}

    rows = [row(0, 2.0, 1.8, 0.0), row(4, 4.0, 2.0, 1.5)]
    assert report_floors.realised(rows) == "a pair, depth 4, T = 0: 0.97 (0.92 if verifying were free)"
    assert report_floors.realised(rows[:1]) == report_floors.NOT_MEASURED
