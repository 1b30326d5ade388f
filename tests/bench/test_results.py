"""What is said of a comparison follows from its measurements, and only from texts that are fit and the same."""

from __future__ import annotations

import json

import pytest

from outrider.bench.compare import SIDES
from outrider.bench.provenance import to_json
from outrider.bench.results import num_faults
from outrider.bench.workloads import Loop
from tests.bench.documents import NUM_TOKENS, make_document, make_plan, make_run, make_text, make_written


def rows_of(document):
    return {row["workload"]: row for row in document["rows"]}


def test_a_speedup_is_the_median_over_prompts_and_over_workloads_their_geometric_mean():
    plan = make_plan({"code": "abc", "prose": "d"})
    seconds = {"a": [(4, 2), (8, 4)], "b": [(3, 1)], "c": [(10, 1)], "d": [(27, 1)]}
    runs = [
        make_run(make_text("prose" if name == "d" else "code", name), *pair)
        for name, pairs in seconds.items()
        for pair in pairs
    ]
    rows = rows_of(make_document(plan, runs))
    assert rows["code"]["speedup"]["median"] == pytest.approx(3.0)
    assert rows["code"]["num_prompts"] == 3
    assert rows["prose"]["speedup"] == pytest.approx({"median": 27.0, "low": 27.0, "high": 27.0})
    assert rows["all"]["speedup"]["median"] == pytest.approx(9.0)
    assert rows["all"]["num_prompts"] == 4


def test_prompts_of_one_name_in_two_workloads_are_two():
    plan = make_plan({"code": "a", "prose": "a"})
    runs = [make_run(make_text("code", "a"), 4, 1), make_run(make_text("prose", "a"), 9, 1)]
    assert rows_of(make_document(plan, runs))["all"]["speedup"]["median"] == pytest.approx(6.0)


def test_counts_and_seconds_are_those_of_all_texts_together():
    plan = make_plan({"code": "ab"})
    fast = make_written(4.0, drafted=(10, 5), accepted=(8, 4))
    slow = make_written(8.0, drafted=(10,), accepted=(1,))
    runs = [make_run(make_text("code", "a"), 8.0, fast), make_run(make_text("code", "b"), 8.0, slow)]
    (row,) = make_document(plan, runs)["rows"]
    assert row["workload"] == "code"
    side = row["speculative"]
    assert side["acceptance_length"] == 2 * NUM_TOKENS / (8 + 19)
    assert side["acceptance_rate"] == 13 / 25
    assert side["survival"] == [9 / 20, 4 / 5]
    assert side["agreement"] == 9 / 20
    assert side["accepted_from"] == {"suffix": 13}
    assert side["tokens_per_second"] == 2 * NUM_TOKENS / 12
    assert sum(side["seconds_per_token_by_stage"].values()) == pytest.approx(12 / (2 * NUM_TOKENS))
    assert side["seconds_per_token_by_stage"]["draft"] == pytest.approx(3 / (2 * NUM_TOKENS))
    assert side["seconds_per_further_token"]["median"] == pytest.approx(6 / (NUM_TOKENS - 1))
    assert side["first_token_seconds"] == {"median": 1.0, "p95": 1.0}
    assert row["plain"]["acceptance_rate"] is None
    assert row["plain"]["survival"] == []


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("exactness", "num_expected"), [("bitwise", 1), ("seed", 0)])
def test_a_text_that_differs_is_in_no_ratio_and_a_fault_where_none_may_differ(side, exactness, num_expected):
    plan = make_plan({"code": "ab"})
    other = make_written(1.0, token_ids=[*range(7), 99, *range(8, NUM_TOKENS)], exactness=exactness)
    pair = {"plain": 8.0, "speculative": 8.0, side: other}
    runs = [make_run(make_text("code", "a"), **pair), make_run(make_text("code", "b"), 6.0, 2.0)]
    document = make_document(plan, runs)
    assert document["rows"][0]["speedup"]["median"] == pytest.approx(3.0)
    assert document["rows"][0]["num_prompts"] == 1
    (difference,) = document["differences"]
    assert (difference["prompt"], difference["side"], difference["at_token"]) == ("a", side, 7)
    assert num_faults(document) == num_expected


def test_a_text_of_which_only_the_distribution_was_promised_may_be_another_and_is_measured():
    other = make_written(2.0, token_ids=[*range(7), 99], exactness="distribution")
    document = make_document(make_plan({"code": "a"}), [make_run(make_text("code", "a"), 8.0, other)])
    assert document["rows"][0]["speedup"]["median"] == pytest.approx(4.0)
    assert (document["differences"], num_faults(document)) == ([], 0)


def test_a_text_that_ends_early_differs_from_its_end_on():
    run = make_run(make_text("code", "a"), 8.0, make_written(1.0, token_ids=range(5)))
    assert make_document(make_plan({"code": "a"}), [run])["differences"][0]["at_token"] == 5


def test_rows_are_by_temperature_and_concurrency_and_nothing_measured_is_said():
    plan = make_plan({"code": "a", "prose": "b"}, temperatures=(0.0, 1.0), concurrencies=(1, 4))
    runs = [
        make_run(make_text("code", "a"), 2.0, 1.0),
        make_run(make_text("code", "a", temperature=1.0), 9.0, 3.0, concurrency=4),
    ]
    rows = make_document(plan, runs)["rows"]
    assert len(rows) == 12
    found = {
        (row["workload"], row["temperature"], row["concurrency"]): row["speedup"]["median"]
        for row in rows
        if row["speedup"]
    }
    expected = {("code", 0.0, 1): 2.0, ("all", 0.0, 1): 2.0, ("code", 1.0, 4): 3.0, ("all", 1.0, 4): 3.0}
    assert found == pytest.approx(expected)


def test_throughput_is_by_the_clock_on_the_wall():
    plan = make_plan({"code": "a", "prose": "b"})
    runs = [make_run(make_text("code", "a"), 3.0, 1.0), make_run(make_text("prose", "b"), 5.0, 2.0)]
    throughput = rows_of(make_document(plan, runs))["all"]["throughput"]
    assert throughput == {"plain": 2 * NUM_TOKENS / 10, "speculative": 2 * NUM_TOKENS / 5}


def test_texts_that_prove_nothing_are_listed_with_their_reasons():
    texts = [
        make_text("code", "a", fault="ends after 3 tokens"),
        make_text("code", "b", loop=Loop(30, 2)),
        make_text("code", "c"),
    ]
    document = make_document(make_plan({"code": "abc"}), [], texts)
    assert [(text["prompt"], text["why"]) for text in document["invalid"]] == [("a", "ends after 3 tokens")]
    assert [(text["prompt"], text["start"], text["period"]) for text in document["loops"]] == [("b", 30, 2)]
    assert document["rows"][0]["speedup"] is None
    assert len(document["texts"]) == 3


def test_all_of_it_can_be_written_and_computed_again():
    document = make_document(make_plan({"code": "a"}), [make_run(make_text("code", "a"), 4.0, 1.0)])
    document = json.loads(to_json(document))
    (measurement,) = document["measurements"]
    seconds = {
        side: sum(value for stage, value in measurement[side]["seconds"].items() if stage != "prefill")
        / measurement[side]["num_emitted"]
        for side in SIDES
    }
    assert seconds["plain"] / seconds["speculative"] == pytest.approx(document["rows"][0]["speedup"]["median"])
