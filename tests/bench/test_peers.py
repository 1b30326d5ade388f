"""A peer computes in a process of its own, only while it is asked; whatever it does instead of answering is said."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from outrider.bench.peers import peer as peers
from outrider.bench.peers.compare import hold_out
from outrider.bench.peers.engine import Asked
from outrider.bench.peers.peer import Kind, Work, load_peer, parse_names, parse_pythons
from outrider.bench.peers.worker import GivenUpError, PeerError, Worker
from outrider.bench.workloads import Prompt, Workload
from outrider.errors import ParameterError, UsageError

WORKER = Path(__file__).with_name("peer_worker.py")
TEXTS = [Asked((1, 2), 5, 3), Asked((1,), 4, 2**40)]


@pytest.fixture
def child():
    """A worker that runs a program."""
    workers = []

    def start(program, **arguments):
        workers.append(Worker([sys.executable, "-c", program], {}, **arguments))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "KINDS", {"fake": Kind(str(WORKER), 1, 0, {})})
    loaded = []

    def start(python=sys.executable, **says):
        monkeypatch.setenv("PEER", json.dumps(says))
        work = Work(
            target=tmp_path,
            draft=None,
            dtype="bfloat16",
            num_threads=2,
            pythons={"fake": Path(python)} if python else {},
        )
        loaded.append(load_peer("fake", work))
        return loaded[-1]

    yield start
    for each in loaded:
        each.close()


ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


class TestWorker:
    def test_lines_are_answered_with_lines(self, child):
        worker = child(ECHO)
        for number in range(3):
            assert worker.ask({"number": number, "text": "x" * 100_000}, 10)["number"] == number

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_it_is_stopped_but_while_it_is_asked(self, child):
        worker = child("import threading, sys\ndef spin():\n  while True: pass\n"
                       "threading.Thread(target=spin, daemon=True).start()\n" + ECHO)  # fmt: skip
        for _ in range(2):
            worker.ask({}, 10)
            stat = Path(f"/proc/{worker._process.pid}/stat")
            deadline = time.monotonic() + 10
            while (state := stat.read_text().rpartition(")")[2].split()[0]) != "T":
                assert time.monotonic() < deadline, state

    @pytest.mark.parametrize(
        ("program", "why"),
        [
            ("import sys; print('no such library', file=sys.stderr); sys.exit(3)", "exit code 3: no such library"),
            ("import os; os.kill(os.getpid(), 9)", "ended by signal 9, as the system does when memory runs out"),
            ("print('hello', flush=True)\nimport sys\nsys.stdin.read()", "answered no JSON object, but 'hello'"),
            ("print('[1]', flush=True)\nimport sys\nsys.stdin.read()", "answered no JSON object"),
            ('print(\'{"error": "too\\\\nbad"}\', flush=True)\nimport sys\nsys.stdin.read()', "too bad"),
        ],
    )
    def test_whatever_else_it_does_is_said_in_one_line(self, child, program, why):
        with pytest.raises(PeerError, match=why) as error:
            child(program).ask({}, 10)
        assert "\n" not in str(error.value)

    def test_one_that_takes_too_long_is_ended(self, child):
        worker = child("import time; time.sleep(60)")
        with pytest.raises(PeerError, match="did not answer within 0 s"):
            worker.ask({}, 0.01)
        assert not worker.is_alive

    def test_one_that_answers_without_end_is_ended(self, child, monkeypatch):
        monkeypatch.setattr("outrider.bench.peers.worker.MAX_ANSWER_BYTES", 1000)
        worker = child("print('x' * 10_000, end='', flush=True)\nimport time; time.sleep(60)")
        with pytest.raises(PeerError, match="within 1000 bytes"):
            worker.ask({}, 10)
        assert not worker.is_alive

    def test_the_user_may_end_it(self, child):
        worker = child("import time; time.sleep(60)", is_wanted=lambda: True)
        with pytest.raises(GivenUpError):
            worker.ask({}, 10)

    def test_one_that_cannot_be_run_says_so(self, tmp_path):
        with pytest.raises(PeerError, match="cannot be run"):
            Worker([str(tmp_path / "gone")], {})

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
    def test_it_ends_with_whoever_started_it_though_it_is_stopped(self, tmp_path):
        """What is stopped hears of nothing, and nobody would ever wake it."""
        program = (
            "import os, sys\nfrom outrider.bench.peers.worker import Worker\n"
            f"worker = Worker([sys.executable, {str(WORKER)!r}], {{}})\n"
            "worker.ask({'do': 'load'}, 10)\nprint(worker._process.pid, flush=True)\nos.kill(os.getpid(), 9)"
        )
        from subprocess import run

        pid = int(run([sys.executable, "-c", program], capture_output=True, check=False, text=True).stdout)
        deadline = time.monotonic() + 10
        while _is_running(pid):
            assert time.monotonic() < deadline


def _is_running(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class TestPeer:
    def test_it_says_what_it_is_and_writes(self, load, tmp_path):
        peer = load(asked=str(tmp_path / "asked"))
        assert peer.facts["version"] == "1.2"
        assert peer.settings == ("plain", "draft 4", "draft 8")
        written = peer.write(TEXTS, 1.0, "draft 4")
        assert written == (((7,) * 5, (7,) * 4), 9 / 40, None, False)
        loaded, asked = map(json.loads, (tmp_path / "asked").read_text().splitlines())
        assert loaded["load"]["dtype"] == "bfloat16"
        assert loaded["load"]["target"] == str(tmp_path)
        assert (asked["temperature"], asked["setting"]) == (1.0, "draft 4")
        assert [text["token_ids"] for text in asked["texts"]] == [[1, 2], [1]]
        assert all(0 <= text["seed"] < 2**32 for text in asked["texts"])  # some take no more

    def test_an_error_is_its_answer_and_it_goes_on(self, load):
        peer = load(fails={"draft 4": "no\nsuch thing"})
        with pytest.raises(PeerError, match="RuntimeError: no such thing"):
            peer.write(TEXTS, 0.0, "draft 4")
        assert peer.is_alive
        assert peer.write(TEXTS, 0.0, "plain").seconds == 0.9

    def test_other_lengths_would_not_compare(self, load):
        with pytest.raises(PeerError, match=r"wrote \[6, 5\] tokens where \[5, 4\] were asked for"):
            load(num_too_many=1).write(TEXTS, 0.0, "plain")

    @pytest.mark.parametrize(
        "description", [{"version": "1"}, {"version": "1", "settings": ["draft 4"]}, {"settings": ["plain"]}]
    )
    def test_without_a_version_and_plain_decoding_it_is_none(self, load, description):
        with pytest.raises(PeerError, match="does not say its version and its settings"):
            load(describes=description)

    def test_one_that_cannot_load_says_why(self, load):
        with pytest.raises(PeerError, match="ValueError: no such model"):
            load(refuses="no such model")

    def test_one_that_is_not_there_says_how_to_make_it(self, load, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PeerError, match="build/peers/fake/bin/python is not there: make it with `make peers`"):
            load(python=None)

    def test_memory_is_looked_at_before(self, load, monkeypatch):
        monkeypatch.setattr(peers, "KINDS", {"fake": Kind(str(WORKER), 1, 3_000_000_000, {})})
        monkeypatch.setattr(peers, "free_bytes", lambda: 2_000_000_000)
        with pytest.raises(PeerError, match=r"needs about 3.0 GB, and 2.0 GB are free"):
            load()

    def test_one_that_dies_says_how(self, load):
        peer = load(dies_at=1)
        with pytest.raises(PeerError, match=f"signal {int(signal.SIGKILL)}.*: out of luck"):
            peer.write(TEXTS, 0.0, "plain")
        assert not peer.is_alive


class TestNames:
    def test_they_are_of_workers_that_exist(self):
        assert parse_names("all") == ("transformers", "openvino-genai", "llama.cpp", "vllm-cpu")
        assert parse_names("transformers, transformers") == ("transformers",)
        for kind in peers.KINDS.values():
            assert (peers.WORKERS / kind.worker).is_file()

    @pytest.mark.parametrize("text", ["", "vllm", "transformers,"])
    def test_others_are_refused(self, text):
        with pytest.raises(ParameterError, match=r"must be all, or some of transformers, .*, llama\.cpp, vllm-cpu"):
            parse_names(text)

    def test_pythons(self):
        assert parse_pythons(["transformers=a=b"]) == {"transformers": Path("a=b")}
        for text in ("python", "vllm=python", "transformers="):
            with pytest.raises(ParameterError, match="must be NAME=FILE"):
                parse_pythons([text])


def test_the_last_prompt_of_each_workload_is_not_measured():
    prompts = tuple(Prompt(name, name) for name in "abcd")
    measured, tuning = hold_out([Workload("w", prompts, "")], 2)
    assert [prompt.name for prompt in measured[0].prompts] == ["a", "b"]
    assert [prompt.name for prompt in tuning[0].prompts] == ["d"]
    assert len(hold_out([Workload("w", prompts, "")], None)[0][0].prompts) == 3
    with pytest.raises(UsageError, match="w has one prompt"):
        hold_out([Workload("w", prompts[:1], "")], None)
