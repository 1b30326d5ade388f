"""llama.cpp's worker starts a server for each way to decode, asks with token ids, and says why one did not start."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

import pytest

from outrider.bench.peers.peer import WORKERS
from tests.architecture.sources import ROOT

TEXT = {"token_ids": [3, 4], "max_tokens": 5, "seed": 1}


@pytest.fixture
def llama(tmp_path, monkeypatch):
    """The worker's engine, and what its servers noted."""
    monkeypatch.syspath_prepend(str(WORKERS))
    worker = importlib.import_module("llama_cpp_worker")
    monkeypatch.setattr(worker, "converted", lambda checkpoint, *_: Path(checkpoint))
    monkeypatch.setattr(worker.sys, "prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/llama-server"
    program.write_text(f"#!{sys.executable}\n{(ROOT / 'tests/bench/llama_server.py').read_text()}")
    program.chmod(0o755)
    engine = worker.LlamaCpp(target="T", draft="D", dtype="float32", threads=3, folder=str(tmp_path))
    yield engine, lambda: [json.loads(line) for line in (tmp_path / "bin/notes").read_text().splitlines()]
    for server in engine.servers.values():
        server.close()


def started(notes):
    return [" ".join(note["started"]) for note in notes if "started" in note]


def test_it_says_its_version_its_precision_and_how_it_can_decode(llama):
    facts = llama[0].describe()
    assert facts["version"] == "7 (build 1, commit abc)"
    assert {"plain", "draft 2", "draft 16", "draft until 0.6", "lookup 10"} <= {*facts["settings"]}
    assert "weights, keys and values f32" in facts["notes"]


def test_texts_are_asked_for_by_token_ids_and_never_end(llama):
    engine, notes = llama
    answer = engine.write([TEXT], 0, "plain")
    assert (answer["token_ids"], answer["first_seconds"]) == ([[0, 1, 2, 3, 4]], 0.0015)
    assert answer["seconds"] > 0
    answer = engine.write([TEXT, {**TEXT, "max_tokens": 2}], 1.0, "lookup 4")
    assert (answer["token_ids"], answer["first_seconds"]) == ([[0, 1, 2, 3, 4], [0, 1]], None)
    greedy, *sampled = [note for note in notes() if "prompt" in note]
    assert (greedy["prompt"], greedy["samplers"], greedy["top_k"]) == ([3, 4], ["top_k"], 1)
    for request in sampled:
        assert (request["temperature"], request["samplers"]) == (1.0, ["temperature"])
        assert (request["ignore_eos"], request["cache_prompt"]) == (True, False)


def test_there_is_a_server_for_each_setting_and_number_of_texts(llama):
    engine, notes = llama
    for _ in range(2):
        engine.write([TEXT], 0, "plain")
        engine.write([TEXT] * 3, 0, "plain")
        engine.write([TEXT], 0, "lookup 10")
    plain, three, lookup = started(notes())
    assert "--parallel 1 --threads 3 --cache-type-k f32" in plain
    assert "--ctx-size 1536 --parallel 3" in three
    assert "--spec-type ngram-simple --spec-ngram-simple-size-n 3 --spec-ngram-simple-size-m 10" in lookup
    assert "--spec" not in plain + three


def test_a_longer_text_gets_a_server_that_it_fits(llama):
    engine, notes = llama
    first = notes()[0]["pid"]
    engine.write([{**TEXT, "token_ids": [3] * 700}], 0, "plain")
    assert [line.split("--ctx-size ")[1].split()[0] for line in started(notes())] == ["512", "1024"]
    assert has_ended(first)


def test_servers_are_not_without_number(llama, monkeypatch):
    engine, notes = llama
    monkeypatch.setattr(sys.modules["llama_cpp_worker"], "MAX_SERVERS", 2)
    for num_texts in (1, 2, 1, 3):
        engine.write([TEXT] * num_texts, 0, "plain")
    assert [key[1] for key in engine.servers] == [1, 3]  # who was not asked for longest has ended
    assert has_ended([note["pid"] for note in notes() if "started" in note][1])


def test_what_goes_wrong_is_said(llama):
    engine, _ = llama
    with pytest.raises(RuntimeError, match="llama-server ended with code 1: no such draft"):
        engine.write([TEXT], 0, "draft 4")
    with pytest.raises(RuntimeError, match=r"llama-server answered 400: .*too long"):
        engine.write([{**TEXT, "max_tokens": 1001}], 0, "plain")
    assert engine.write([TEXT], 0, "plain")["seconds"] > 0


@pytest.mark.usefixtures("llama")
def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    worker = sys.modules["llama_cpp_worker"]
    monkeypatch.setattr(worker, "START_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="llama-server did not start within 0 s"):
        worker.Server([sys.executable, "-c", "import time; time.sleep(60)"], 512)
    assert time.monotonic() - began < 30


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
