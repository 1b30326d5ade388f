"""`outrider bench --peers`: the same work for all, each at its best setting; who cannot take part is named."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from outrider.bench.peers import peer as peers
from outrider.bench.peers.peer import Kind
from outrider.cli import bench_peers_show
from tests.bench.test_peers import WORKER

QUICK = ("bench", "--workload", "code,chat", "--prompts", "2", "--max-tokens", "20", "--depth", "3", "--json", "-")


@pytest.fixture
def bench(outrider, monkeypatch, tmp_path):
    """With peers that say what they are told to, by name."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **says):
        kinds = {name: Kind(str(WORKER), 0, 0, {"PEER": json.dumps(each)}) for name, each in says.items()}
        monkeypatch.setattr(peers, "KINDS", kinds)
        pythons = [part for name in says for part in ("--peer-python", f"{name}={sys.executable}")]
        return outrider(*QUICK, "--peers", ",".join(says), *pythons, *arguments)

    return run


def rows_of(outcome, **where):
    assert outcome.exit_code == 0, outcome
    return [row for row in outcome.json["rows"] if where.items() <= row.items()]


def test_all_do_the_same_work_and_it_is_shown_and_saved(bench, tmp_path):
    page, asked = tmp_path / "peers.html", tmp_path / "asked"
    fast = {"rates": {"plain": 10, "draft 4": 40, "draft 8": 20}, "asked": str(asked)}
    slow = {"rates": {"plain": 10, "draft 4": 5}}
    outcome = bench("--temperature", "0,1", "--concurrency", "1,3", "--runs", "2", "--html", page, fast=fast, slow=slow)
    for row in rows_of(outcome, engine="fast"):
        assert row["setting"] == "draft 4"
        assert row["tokens_per_second"] == pytest.approx(40)
        assert row["plain_tokens_per_second"] == pytest.approx(10)
        assert row["num_same_texts"] == (row["num_texts"] if row["temperature"] == 0 else None)
        assert row["plain_ratio"]["low"] <= row["plain_ratio"]["median"] <= row["plain_ratio"]["high"]
        assert (row["further_ratio"] is None) == (row["concurrency"] > 1)
    for row in rows_of(outcome, engine="slow"):
        assert row["setting"] == "plain"
        assert row["tokens_per_second"] == row["plain_tokens_per_second"]
        assert row["num_same_texts"] is None
    for row in rows_of(outcome, engine="outrider"):
        assert row["setting"] == "depth 3"
        assert row["num_same_texts"] == row["num_texts"]
        assert row["ratio"] is None
    assert {row["workload"] for row in rows_of(outcome, concurrency=1)} == {"code", "chat", "all"}
    assert {row["workload"] for row in rows_of(outcome, concurrency=3)} == {"all"}
    assert len(outcome.json["tried"]) == 2 * (2 + 1) * (3 + 2)  # one at a time, each workload by itself
    assert "Outrider beside its peers" in outcome.stderr
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "draft 4" in text
    assert "fast 1.2" in text


def test_ratios_are_of_what_each_said(bench):
    outcome = bench("--temperature", "0", one={"rates": {"plain": 10, "draft 4": 40}})
    (row,) = rows_of(outcome, workload="code", engine="one")
    measured = [each for each in outcome.json["measurements"] if each["texts"][0]["workload"] == "code"]
    ours = [each["written"]["outrider"]["depth 3"]["seconds"] / each["texts"][0]["num_tokens"] for each in measured]
    assert row["num_prompts"] == len(ours) == 2
    assert row["ratio"]["median"] == pytest.approx(sum(1 / 40 / each for each in ours) / 2)


def test_settings_are_chosen_by_prompts_that_are_not_measured(bench, tmp_path):
    asked = tmp_path / "asked"
    outcome = bench("--temperature", "0", one={"rates": {"plain": 10, "draft 4": 40}, "asked": str(asked)})
    assert outcome.exit_code == 0, outcome
    requests = [json.loads(line) for line in asked.read_text().splitlines()][1:]
    texts = [(text, request["setting"]) for request in requests for text in request["texts"]]
    numbers = Counter((str(text["token_ids"]), setting) for text, setting in texts)
    # Two prompts of tuning, of which one was warmed up with; four that were measured, once in each setting.
    assert sorted(numbers.values()) == [1] * 10 + [2] * 2
    assert {text["max_tokens"] for text, _ in texts} <= {*range(16, 21)}


def test_each_workload_has_the_setting_that_is_best_for_it(bench):
    """What looks up the prompt is best where texts repeat it, and worst elsewhere: one setting would do for neither."""
    rates = {"plain": 10, "draft 4": 40, "lookup 4": 20}
    outcome = bench(
        *("--temperature", "0", "--concurrency", "1,2"), one={"rates": rates, "long_rates": {"lookup 4": 80}}
    )
    (code,) = rows_of(outcome, engine="one", workload="code")
    (chat,) = rows_of(outcome, engine="one", workload="chat")
    both, mixed = rows_of(outcome, engine="one", workload="all")
    assert (code["setting"], code["tokens_per_second"]) == ("lookup 4", pytest.approx(80))
    assert (chat["setting"], chat["tokens_per_second"]) == ("draft 4", pytest.approx(40))
    assert (both["setting"], both["concurrency"]) == ("by workload", 1)
    assert 40 < both["tokens_per_second"] < 80
    assert both["num_same_texts"] == both["num_texts"] == 4
    assert mixed["setting"] in {"draft 4", "lookup 4"}


def test_what_is_not_the_peers_own_plain_text_is_counted(bench):
    outcome = bench("--temperature", "0", one={"rates": {"plain": 10, "draft 4": 40}, "differs": ["draft 4"]})
    for row in rows_of(outcome, engine="one"):
        assert row["num_same_texts"] == 0
        assert row["num_texts"] > 0


def test_one_that_cannot_take_part_is_skipped_by_name(bench):
    outcome = bench("--temperature", "0", good={}, bad={"refuses": "no such model"})
    assert outcome.json["skipped"] == [{"name": "bad", "why": "ValueError: no such model"}]
    assert {row["engine"] for row in rows_of(outcome)} == {"outrider", "good"}
    assert "bad is skipped: ValueError: no such model" in outcome.stderr


def test_where_none_can_that_is_a_mistake(bench):
    outcome = bench(bad={"refuses": "no such model"})
    assert outcome.error == "outrider: error: no peer can be measured: bad: ValueError: no such model"


def test_a_setting_that_fails_is_not_the_best_and_is_named(bench):
    outcome = bench("--temperature", "0", one={"fails": {"draft 4": "no such depth"}})
    assert {row["setting"] for row in rows_of(outcome, engine="one")} == {"draft 8"}
    failed = [each for each in outcome.json["tried"] if each["fault"]]
    assert {(each["setting"], each["fault"]) for each in failed} == {("draft 4", "RuntimeError: no such depth")}


def test_without_plain_decoding_there_is_no_figure_but_a_reason(bench):
    outcome = bench("--temperature", "0", one={"fails": {"plain": "cannot"}}, other={})
    for row in rows_of(outcome, engine="one"):
        assert row["num_texts"] == 0
        assert row["fault"] == "RuntimeError: cannot"
    assert "one, T = 0, 1 at once: RuntimeError: cannot" in outcome.stderr
    assert all(row["num_texts"] for row in rows_of(outcome, engine="other"))


@pytest.mark.parametrize("number", [1, 5, 12])
def test_one_that_dies_is_named_and_the_others_go_on(bench, number):
    outcome = bench("--temperature", "0", one={"dies_at": number}, other={})
    assert [each["name"] for each in outcome.json["lost"]] == ["one"]
    assert "out of luck" in outcome.json["lost"][0]["why"]
    for row in rows_of(outcome, engine="one"):
        assert "out of luck" in row["fault"]
    assert all(row["num_texts"] and not row["fault"] for row in rows_of(outcome, engine="other"))
    assert "one ended on the way" in outcome.stderr


def test_ctrl_c_ends_it_and_what_was_measured_is_shown(bench, monkeypatch):
    asked = iter(range(10**9))

    @contextmanager
    def noted():
        yield SimpleNamespace(is_set=lambda: next(asked) > 250)

    monkeypatch.setattr(bench_peers_show, "noted_interrupt", noted)
    outcome = bench("--temperature", "0", "--runs", "40", one={})
    assert outcome.exit_code == 130
    assert outcome.json["is_partial"]


def test_ctrl_c_ends_who_still_waits_for_another_run(bench, interrupt_while_waiting):
    interrupt_while_waiting(bench_peers_show)
    outcome = bench("--temperature", "0", one={})
    assert outcome.exit_code == 130
    assert outcome.stderr.splitlines() == ["waiting for another timed run to end"]
    assert not outcome.stdout


def test_ours_that_differ_though_they_must_not_fail_it(bench, monkeypatch):
    from outrider.bench.peers.engine import OurEngine

    honest = OurEngine.write

    def write(self, texts, temperature, setting):
        written = honest(self, texts, temperature, setting)
        wrong = tuple((*row[:-1], row[-1] ^ 1) for row in written.token_ids)
        return written if setting == "plain" else written._replace(token_ids=wrong)

    monkeypatch.setattr(OurEngine, "write", write)
    outcome = bench("--temperature", "1", one={})
    assert outcome.exit_code == 1
    assert outcome.json["num_differing"] == 4
    assert "DIFFERENT" in outcome.stderr


def test_options_that_do_not_apply_together_are_refused(outrider):
    assert "--peer-python is about a peer" in outrider("bench", "--peer-python", "transformers=python").error
    assert "--peers is about models here" in outrider("bench", "--peers", "all", "--url", "http://localhost").error
    assert "--peers names 'vllm'" in outrider("bench", "--peers", "vllm").error


def test_a_workload_needs_a_prompt_to_choose_settings_by(outrider, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("import os")
    assert "mine.txt has one prompt" in outrider("bench", "--peers", "all", "--workload", path).error


@pytest.mark.slow
def test_transformers_does_the_same_work(outrider, tmp_path, monkeypatch):
    """The real one, from this environment: greedy texts are its own plain ones, and nothing is left out."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    python = f"transformers={sys.executable}"
    outcome = outrider(*QUICK, "--concurrency", "1,2", "--peers", "transformers", "--peer-python", python)
    assert all(row["num_texts"] and not row["fault"] for row in rows_of(outcome, engine="transformers"))
    assert not any(each["fault"] for each in outcome.json["tried"])
    assert len({each["setting"] for each in outcome.json["tried"]}) == 8
    (peer,) = outcome.json["peers"]
    assert peer["dtype"] == outcome.json["engine"]["target"]["dtype"]
