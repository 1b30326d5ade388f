"""`outrider run` end to end: what goes where, and that speculation does not change it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from outrider.engine.llm import DEFAULT_DEPTH
from tests.cli.tiny import make_tiny

FEW = ("--max-tokens", 24)


def sequence_of(outcome):
    assert outcome.exit_code == 0, outcome.stderr
    (sequence,) = outcome.json["sequences"]
    return sequence


def test_stdout_is_the_text_and_nothing_else(outrider, tmp_path):
    outcome = outrider("run", "import os", *FEW, "--json", tmp_path / "run.json")
    (sequence,) = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["sequences"]
    assert outcome.exit_code == 0
    assert outcome.stdout == sequence["text"]
    assert len(sequence["token_ids"]) == 24
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("options", [(), ("--draft", "suffix"), ("--depth", 7)])
def test_text_is_that_of_plain_decoding(outrider, temperature, options):
    common = ("run", "x = x = x", *FEW, "--temperature", temperature, "--seed", 5, "--json", "-")
    on, off = sequence_of(outrider(*common, *options)), sequence_of(outrider(*common, "--speculation", "off"))
    assert on["token_ids"] == off["token_ids"]
    assert off["acceptance_length"] == 1
    assert off["acceptance_rate"] is None


def test_json_says_what_ran_and_how_it_went(outrider):
    document = outrider("run", "import os", *FEW, "--json", "-", "--seed", 3).json
    (sequence,) = document["sequences"]
    assert set(sequence["seconds"]) == {"draft", "target", "sample", "other"}
    assert sequence["steps"] == pytest.approx(24 / sequence["acceptance_length"])
    assert sequence["finish_reason"] == "length"
    assert sequence["seed"] == 3
    assert len(sequence["survival"]) == DEFAULT_DEPTH
    assert sequence["decode_tokens_per_second"] > 0
    assert document["engine"]["drafter"]["name"] == "model"
    assert document["provenance"]["hardware"]["num_usable_cores"] >= 1


@pytest.mark.parametrize("source", ["argument", "option", "file", "stdin"])
def test_prompt_is_taken_as_it_is_from_anywhere(outrider, tmp_path, source):
    prompt = "if größe:\r\n  "
    (tmp_path / "prompt.txt").write_bytes(prompt.encode())
    options = {"argument": [prompt], "option": ["--prompt", prompt], "file": ["--prompt-file", tmp_path / "prompt.txt"]}
    stdin = prompt.encode() if source == "stdin" else None
    sequence = sequence_of(outrider("run", *options.get(source, []), *FEW, "--json", "-", stdin=stdin))
    assert sequence["num_prompt_tokens"] == len(prompt.encode())


def test_stop_text_ends_the_text(outrider):
    whole = outrider("run", "import os", *FEW).stdout
    stopped = sequence_of(
        outrider("run", "import os", *FEW, "--stop", whole[8:10], "--stop", whole[5:7], "--json", "-")
    )
    assert stopped["text"] == whole[: whole.find(whole[5:7])]
    assert stopped["finish_reason"] == "stop"


def test_chat_goes_through_the_template(outrider, tmp_path):
    folder = make_tiny(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"
    )
    plain, chat = (
        sequence_of(outrider("run", "--target", folder, "hi", *FEW, *options, "--json", "-"))
        for options in ([], ["--chat"])
    )
    assert chat["num_prompt_tokens"] - plain["num_prompt_tokens"] == len("<user><answer>")


def test_same_seed_same_text_another_seed_another(outrider):
    def text(*options):
        return outrider("run", "import os", *FEW, "--temperature", 1, *options).stdout

    assert text("--seed", 1) == text("--seed", 1)
    assert text("--seed", 1) != text("--seed", 2)
    assert text() != text()


def start_long_run(folder, cache, *options):
    """In a process of its own, which writes until it is stopped."""
    make_tiny(folder, max_position_embeddings=100_000)
    command = [sys.executable, "-m", "outrider", "run", "--target", folder, "--max-tokens", "90000", "x", *options]
    environment = os.environ | {"OUTRIDER_CACHE": str(cache), "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def test_ctrl_c_keeps_what_there_is(tmp_path, cache):
    process = start_long_run(tmp_path / "long", cache, "--json", tmp_path / "cancelled.json")
    first = process.stdout.read(40)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    (sequence,) = json.loads((tmp_path / "cancelled.json").read_text(encoding="utf-8"))["sequences"]
    assert process.returncode == 130
    assert (first + rest).decode() == sequence["text"]
    assert sequence["finish_reason"] == "cancelled"
    assert 0 < len(sequence["token_ids"]) < 90_000
    assert errors.decode().count("\n") == 1


def test_a_closed_pipe_ends_the_run_quietly(tmp_path, cache):
    process = start_long_run(tmp_path / "long", cache)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
