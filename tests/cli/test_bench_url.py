"""`outrider bench --url`: any server of OpenAI's API is measured; a mistake is one line, and no key is written."""

from __future__ import annotations

import json
import re
import socket
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from outrider.cli import bench_url_show
from tests.bench.openai_server import serving, vllm_metrics, words

QUICK = ("--workload", "code,chat", "--prompts", "2", "--max-tokens", "20", "--timeout", "30")


@pytest.fixture
def bench(outrider, monkeypatch):
    monkeypatch.delenv("OUTRIDER_API_KEY", raising=False)
    monkeypatch.delenv("OUTRIDER_AGAINST_API_KEY", raising=False)

    def run(state, *arguments):
        return outrider("bench", "--url", state.url, *QUICK, *arguments)

    return run


def test_a_server_is_measured_shown_and_saved(bench, tmp_path):
    saved, page = tmp_path / "bench.json", tmp_path / "bench.html"
    with serving(first_delay=0.01) as state:
        outcome = bench(state, "--concurrency", "1,4", "--runs", "2", "--json", saved, "--html", page)
    assert outcome.exit_code == 0, outcome
    document = json.loads(saved.read_text())
    assert len(document["rows"]) == 12
    assert not document["is_partial"]
    assert not document["invalid"]
    assert len(document["measurements"]) == 2 * 2 * (4 + 4)
    for row in document["rows"]:
        side = row["server"]
        assert row["num_prompts"] == (4 if row["workload"] == "all" else 2)
        assert side["first_token_seconds"]["low"] >= 0.01
        assert side["first_token_seconds"]["median"] < side["last_token_seconds"]["median"]
        assert side["seconds_per_further_token"]["median"] >= 0.001
        assert side["drafts"] is None
        assert ("throughput" in row) == (row["workload"] == "all")
    (server,) = document["servers"]
    assert server["model"] == "tiny"
    assert server["asked_at"] == "/completions"
    assert server["counts"] == "tokens"
    assert state.most_running == 4
    assert {body["temperature"] for body in state.bodies} == {0.0, 1.0}
    assert "A server's speed" in outcome.stdout
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "all" in text
    assert "it shows no\ncounters of drafts" in text


def test_its_own_counters_are_read_and_are_of_the_measured_texts_alone(bench):
    with serving(metrics=vllm_metrics()) as state:
        state.num_tokens = 4_000  # of others, before
        outcome = bench(state, "--temperature", "0", "--concurrency", "1,2", "--json", "-")
    assert outcome.exit_code == 0, outcome
    rows = {(row["workload"], row["concurrency"]): row["server"]["drafts"] for row in outcome.json["rows"]}
    for key in [("all", 1), ("all", 2), ("code", 1), ("chat", 1)]:
        drafts = rows[key]
        assert drafts["source"] == "counters"
        assert (drafts["acceptance_length"], drafts["acceptance_rate"]) == (4.0, 0.75)
        assert drafts["survival"] == [1.0, 1.0, 1.0]
        assert not drafts["has_others"]
    assert rows["all", 1]["num_emitted"] == 4 * 20
    assert rows["code", 2] is None  # a group of two may have been of two workloads
    assert "4.00" in outcome.stderr
    assert "75 %" in outcome.stderr


def test_what_others_ask_meanwhile_is_said(bench):
    with serving(metrics=vllm_metrics(num_extra=10)) as state:
        outcome = bench(state, "--temperature", "0", "--json", "-")
    assert all(row["server"]["drafts"]["has_others"] for row in outcome.json["rows"])
    assert "Others asked a server meanwhile" in outcome.stderr


def test_counts_in_the_answers_are_preferred(bench):
    timings = {"draft_n": 40, "draft_n_accepted": 10, "predicted_n": 20}
    with serving(timings=timings, metrics=vllm_metrics()) as state:
        outcome = bench(state, "--temperature", "0", "--json", "-")
    for row in outcome.json["rows"]:
        assert row["server"]["drafts"]["source"] == "answers"
        assert row["server"]["drafts"]["acceptance_rate"] == 0.25
        assert row["server"]["drafts"]["num_drafted"] == 40 * row["num_prompts"]


def test_two_servers_take_turns_and_the_ratio_is_paired(bench, tmp_path):
    page = tmp_path / "bench.html"
    with serving(piece_delay=0.002) as state, serving(piece_delay=0.02) as slow:
        outcome = bench(state, "--against-url", slow.url, "--temperature", "0", "--json", "-", "--out", page)
    assert outcome.exit_code == 0, outcome
    document = outcome.json
    assert document["ratio_per"] == "token"
    for row in document["rows"]:
        assert row["ratio"]["low"] > 1  # it sleeps ten times as long
        assert row["num_same_texts"] == row["num_texts"] == row["num_prompts"]
    assert len(state.bodies) == len(slow.bodies)
    assert [server["role"] for server in document["servers"]] == ["server", "against"]
    assert "Two servers against each other" in page.read_text()
    assert f"{document['rows'][-1]['ratio']['median']:.2f}" in outcome.stderr


def test_where_one_counts_no_tokens_two_are_compared_by_characters(bench):
    with serving(has_usage=False) as state, serving(tokens_per_piece=3) as other:
        outcome = bench(state, "--against-url", other.url, "--temperature", "0", "--json", "-")
    assert outcome.json["ratio_per"] == "character"
    assert [server["counts"] for server in outcome.json["servers"]] == ["pieces", "tokens"]
    assert "pieces, since it counts no tokens" in outcome.stderr


def test_a_server_without_completions_is_asked_as_a_chat(bench):
    with serving(has_completions=False) as state:
        outcome = bench(state, "--temperature", "0", "--json", "-")
    assert outcome.json["servers"][0]["asked_at"] == "/chat/completions"
    assert state.bodies[-1]["messages"][0]["role"] == "user"


def test_what_a_server_refuses_is_not_sent(bench):
    with serving(refused=("stream_options", "seed")) as state:
        outcome = bench(state, "--temperature", "0", "--json", "-")
    assert outcome.exit_code == 0, outcome
    assert outcome.json["servers"][0]["not_sent"] == ["stream_options", "seed"]
    assert outcome.json["servers"][0]["counts"] == "pieces"


def test_messages_of_a_file_are_sent_as_they_are(bench, outrider, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n{"prompt": "import os"}\n')
    with serving() as state:
        outcome = bench(state, "--workload", path, "--temperature", "0", "--chat", "--json", "-")
    assert outcome.exit_code == 0, outcome
    contents = {body["messages"][0]["content"] for body in state.bodies}
    assert {"Hello", "import os"} <= contents
    assert "only bench --url sends" in outrider("bench", "--workload", path).error


def test_loops_and_short_texts_are_named_and_in_no_figure(bench):
    def pieces(body):
        if "import threading" in body["prompt"]:
            return [" 0,"] * body["max_tokens"]  # a loop from its beginning
        if "import gzip" in body["prompt"]:
            return [*words(40), *[" 0,"] * 60][: body["max_tokens"]]  # a loop later
        return words(3)

    with serving(pieces=pieces) as state:
        outcome = bench(state, "--max-tokens", "100", "--temperature", "0", "--json", "-")
    assert outcome.exit_code == 0, outcome
    assert {text["why"].partition(" from")[0] for text in outcome.json["invalid"]} == {
        "repeats 3 words",
        "ends after 3 tokens",
    }
    assert {text["prompt"] for text in outcome.json["loops"]} == {"cache", "logparser"}
    rows = {row["workload"]: row["num_prompts"] for row in outcome.json["rows"]}
    assert rows == {"code": 1, "chat": 0, "all": 1}
    (measured,) = outcome.json["measurements"]
    assert measured["prompt"] == "logparser"
    assert 16 <= measured["server"]["num_tokens"] < 100
    assert "ends after 3 tokens" in outcome.stderr


def test_without_a_text_that_is_fit_there_is_no_figure(bench, tmp_path):
    page = tmp_path / "bench.html"
    with serving(pieces=lambda body: words(3)) as state:
        outcome = bench(state, "--temperature", "0", "--html", page)
    assert outcome.exit_code == 0, outcome
    assert "No figure" in outcome.stdout
    assert "nothing measured" in page.read_text()


def test_a_server_that_fails_later_costs_only_what_was_to_come(bench, tmp_path):
    saved, page = tmp_path / "bench.json", tmp_path / "bench.html"

    def fail_later(handler, body):
        if len(handler.state.bodies) < 12:
            return False
        handler.answer(500, {"error": {"message": "out of memory"}})
        return True

    with serving(handle=fail_later) as state:
        outcome = bench(state, "--temperature", "0", "--runs", "9", "--json", saved, "--html", page)
    assert outcome.exit_code == 2
    assert "answers 500 to /v1/completions: out of memory" in outcome.stderr.splitlines()[-1]
    assert "A server failed: this is what was measured" in outcome.stdout
    document = json.loads(saved.read_text())
    assert document["is_partial"]
    assert 0 < len(document["measurements"]) < 36
    assert "out of memory" in page.read_text()


def test_an_interrupted_measurement_is_shown_as_far_as_it_came(bench, monkeypatch, tmp_path):
    saved = tmp_path / "bench.json"
    with serving() as state:

        @contextmanager
        def noted():
            yield SimpleNamespace(is_set=lambda: len(state.bodies) >= 14)

        monkeypatch.setattr(bench_url_show, "noted_interrupt", noted)
        outcome = bench(state, "--temperature", "0", "--runs", "9", "--json", saved)
    assert outcome.exit_code == 130
    assert "Interrupted: this is what was measured" in outcome.stdout
    document = json.loads(saved.read_text())
    assert document["is_partial"]
    assert 0 < len(document["measurements"]) < 36


def test_interrupted_before_it_began_it_says_nothing(bench, monkeypatch):
    @contextmanager
    def noted():
        yield SimpleNamespace(is_set=lambda: True)

    monkeypatch.setattr(bench_url_show, "noted_interrupt", noted)
    with serving() as state:
        outcome = bench(state)
    assert (outcome.exit_code, outcome.stdout) == (130, "")


def test_a_key_is_sent_and_written_nowhere(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("OUTRIDER_API_KEY", "sk-secret")
    saved, page = tmp_path / "bench.json", tmp_path / "bench.html"
    with serving(key="sk-secret") as state, serving() as other:
        foreign = other.url.replace("127.0.0.1", "localhost")
        outcome = bench(state, "--against-url", foreign, "--temperature", "0", "--json", saved, "--html", page)
    assert outcome.exit_code == 0, outcome
    assert set(state.keys) == {"Bearer sk-secret"}
    assert set(other.keys) == {None}  # another host is another's
    for text in (outcome.stdout, outcome.stderr, saved.read_text(), page.read_text()):
        assert "sk-secret" not in text


def test_a_key_that_a_server_quotes_is_not_shown(bench, monkeypatch):
    monkeypatch.setenv("OUTRIDER_API_KEY", "sk-wrong")
    with serving(key="sk-right") as state:
        error = bench(state).error
    assert "401" in error
    assert "OUTRIDER_API_KEY" in error
    assert "sk-wrong" not in error


def test_the_page_takes_nothing_for_markup(bench, tmp_path):
    page = tmp_path / "bench.html"
    with serving(models={"data": [{"id": "<script>alert(1)</script>"}]}) as state:
        bench(state, "--temperature", "0", "--html", page)
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()


def test_explain_says_what_the_file_is(bench, outrider, tmp_path):
    saved = tmp_path / "bench.json"
    with serving() as state:
        bench(state, "--temperature", "0", "--json", saved)
    assert "the result of `outrider bench --url`" in outrider("explain", saved).error


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"models": {"data": [{"id": "a"}, {"id": "b"}]}}, "lists 2 models (a, b): say which one with --model"),
        ({"models": {"data": 5}}, "lists 0 models (none)"),
        ({"models": "<html>"}, "answers /v1/models with no JSON"),
        ({"refused": ("max_tokens",)}, "answers 400 to /v1/completions: Unexpected keys in the request: max_tokens"),
        ({"refused": ("prompt", "messages")}, "Unexpected keys in the request: prompt"),
        ({"has_completions": False, "refused": ("messages",)}, "answers 400 to /v1/chat/completions"),
    ],
)
def test_a_server_that_cannot_be_measured_is_one_line(bench, behaviour, message):
    with serving(**behaviour) as state:
        assert message in bench(state).error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "host:8000"], "--url is 'host:8000', but must be an address such as"),
        (["--url", "http://u:secret@host"], "--url has more than a host and a path"),
        (["--url", "http://no-such-host.invalid"], "there is no host 'no-such-host.invalid'"),
        (["--url", "http://h", "--against-url", "h"], "--against-url is 'h'"),
        (["--url", "http://h", "--target", "d"], "--target is about models here, but --url measures a server"),
        (["--url", "http://h", "--depth", "3"], "--depth is about models here"),
        (["--url", "http://h", "--verify", "block"], "--verify is about models here"),
        (["--url", "http://h", "--timeout", "0"], "--timeout is 0"),
        (["--url", "http://h", "--timeout", "nan"], "--timeout is nan"),
        (["--url", "http://h", "--html", "no/where/x.html"], "cannot write"),
        (["--url", "http://h", "--workload", "prosa"], "workload 'prosa' is none of"),
        (["--model", "x"], "--model is about a server: name it with --url"),
        (["--against-url", "http://h"], "--against-url is about a server"),
        (["--chat"], "--chat is about a server"),
        (["--timeout", "3"], "--timeout is about a server"),
    ],
)
def test_a_mistake_is_one_line(bench, outrider, arguments, message):
    assert message in outrider("bench", *arguments).error


def test_nobody_listens(bench, outrider):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = outrider("bench", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}").error
    assert re.search("nothing listens at http://127.0.0.1:[0-9]+: start the server", error)


def test_a_key_that_is_none_is_not_shown(bench, outrider, monkeypatch):
    monkeypatch.setenv("OUTRIDER_API_KEY", "sk\nsecret")
    error = outrider("bench", "--url", "http://h").error
    assert "OUTRIDER_API_KEY holds characters that no key has" in error
    assert "secret" not in error
