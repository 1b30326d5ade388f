"""`outrider run` on a file of prompts, end to end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from outrider.cli.batch import _progress
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from tests.cli.conftest import Terminal
from tests.cli.tiny import make_tiny

FEW = ("--max-tokens", 12, "--draft", "suffix")


@pytest.fixture
def write(tmp_path):
    """A file of prompts from values or lines."""

    def write(*lines):
        path = tmp_path / "many.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    return write


def lines_of(outcome):
    assert outcome.exit_code == 0, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_each_prompt_gets_the_text_that_it_gets_alone_in_the_order_of_the_file(outrider, write):
    prompts = ["x = x = x", "import os", "a" * 40, "def f():", "y"]
    lengths = [30, 2, 9, 1, 20]  # so that none finishes when its turn comes
    path = write(
        *({"prompt": text, "max_tokens": length, "seed": 1} for text, length in zip(prompts, lengths, strict=True))
    )
    one_by_one, together = (lines_of(outrider("run", "--prompt-file", path, "--batch", n, *FEW)) for n in (1, 4))
    assert together == one_by_one
    assert [line["index"] for line in together] == [0, 1, 2, 3, 4]
    assert [line["num_tokens"] for line in together] == lengths
    assert outrider("run", prompts[0], *FEW, "--max-tokens", lengths[0]).stdout == together[0]["text"]


def test_a_line_says_whose_text_it_is(outrider, write):
    path = write(
        {"prompt": "a", "id": "first", "n": 2, "seed": 4, "temperature": 1}, {"token_ids": [1, 2], "log_probs": 1}
    )
    first, second, third = lines_of(outrider("run", "--prompt-file", path, *FEW))
    assert (first["id"], first["index"], first["stream"], first["seed"]) == ("first", 0, 0, 4)
    assert (second["id"], second["index"], second["stream"], second["seed"]) == ("first", 0, 1, 4)
    assert first["text"] != second["text"]
    assert (third["id"], third["index"], third["finish_reason"]) == (None, 1, "length")
    assert (third["num_prompt_tokens"], third["num_tokens"], len(third["log_probs"])) == (2, 12, 12)
    assert "log_probs" not in first


def test_the_file_of_results_has_everything(outrider, write, tmp_path):
    outcome = outrider("run", "--prompt-file", write({"prompt": "a", "id": 7}, {"prompt": "b"}), *FEW, "--json", "-")
    assert [(entry["id"], entry["index"]) for entry in outcome.json["sequences"]] == [(7, 0), (None, 1)]
    assert outcome.json["sequences"][0]["steps"] > 0
    assert outcome.json["memory"]
    assert "2 of 2 prompts, 2 texts (2 length), 24 tokens" in outcome.stderr


def test_what_is_explained_says_of_which_text(outrider, write):
    outcome = outrider("run", "--prompt-file", write({"prompt": "a"}, {"prompt": "b", "n": 2}), *FEW, "--explain")
    assert all(f"outrider: {which}: time: " in outcome.stderr for which in ("index 0", "index 1, stream 1"))


def test_a_text_that_cannot_go_on_is_said_in_its_line_and_the_others_are_written(
    outrider, write, monkeypatch, tmp_path
):
    path = write({"prompt": "a"}, {"prompt": "b" * 40}, {"prompt": "c"})
    sound = lines_of(outrider("run", "--prompt-file", path, *FEW))
    forward = OpenVinoRuntime.forward

    def sick_forward(self, batch):
        output = forward(self, batch)
        logits = output.logits.copy()
        first = 0
        for rows in batch:
            end = first + len(rows.output_rows)
            if rows.num_past >= 44:
                logits[first:end, 7] = np.nan
            first = end
        return output._replace(logits=logits)

    monkeypatch.setattr(OpenVinoRuntime, "forward", sick_forward)
    outcome = outrider("run", "--prompt-file", path, *FEW)
    assert outcome.exit_code == 1
    assert "error: 1 texts ended early, the first because logits are not finite (token 7" in outcome.stderr
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [line["finish_reason"] for line in lines] == ["length", "error", "length"]
    assert [line["text"] for line in lines[::2]] == [line["text"] for line in sound[::2]]
    assert sound[1]["text"].startswith(lines[1]["text"])
    assert "not finite" in lines[1]["error"]
    assert "error" not in lines[0]
    outcome = outrider("run", "b" * 40, *FEW, "--json", tmp_path / "one.json")
    assert outcome.exit_code == 1
    assert "outrider: error: logits are not finite" in outcome.stderr
    assert "not finite" in json.loads((tmp_path / "one.json").read_text())["sequences"][0]["error"]


def test_conversations_go_through_the_template(outrider, write, tmp_path):
    folder = make_tiny(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    path = write({"messages": [{"role": "user", "content": "hi"}]}, {"prompt": "hi"})
    for options, lengths in [((), [8, 2]), (("--chat",), [8, 8])]:
        lines = lines_of(outrider("run", "--prompt-file", path, "--target", folder, *FEW, *options))
        assert [line["num_prompt_tokens"] for line in lines] == lengths


def test_a_wrong_line_is_found_before_anything_is_loaded(outrider, write):
    path = write({"prompt": "a"}, {"prompt": "b", "top_p": 2})
    assert f"{path} line 2: top_p is 2" in outrider("run", "--prompt-file", path, "--target", "nowhere").error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "x" * 5000}, "4096"),
        ({"token_ids": []}, "empty"),
        ({"token_ids": [300]}, "300"),
        ({"messages": [{"role": "user", "content": "a"}]}, "chat template"),
        ({"prompt": "a", "logit_bias": {"300": 1}}, "300"),
    ],
)
def test_what_the_target_cannot_take_is_found_before_anything_is_generated(outrider, write, line, said):
    error = outrider("run", "--prompt-file", write({"prompt": "a"}, line), *FEW).error
    assert "many.jsonl line 2: " in error
    assert said in error


def test_files_that_hold_no_batch(outrider, write, tmp_path):
    assert "has no prompts" in outrider("run", "--prompt-file", write("")).error
    assert "No such file" in outrider("run", "--prompt-file", tmp_path / "nowhere.jsonl").error
    assert "both give a prompt" in outrider("run", "a", "--prompt-file", write({"prompt": "b"})).error
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "no ordinary file" in outrider("run", "--prompt-file", tmp_path / "pipe.jsonl").error


def test_ctrl_c_writes_what_there_is(tmp_path, cache, long_target, write):
    path = write({"prompt": "a", "max_tokens": 3}, *[{"prompt": "b", "max_tokens": 90_000}] * 40)
    command = [sys.executable, "-m", "outrider", "run", "--target", long_target, "--prompt-file", path, "--batch", "2"]
    process = subprocess.Popen(
        [*command, "--json", tmp_path / "cancelled.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OUTRIDER_CACHE": str(cache)},
        text=True,
    )
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    document = json.loads((tmp_path / "cancelled.json").read_text(encoding="utf-8"))
    lines = [first, *map(json.loads, rest.splitlines())]
    assert process.returncode == 130
    assert first["finish_reason"] == "length"
    assert {line["finish_reason"] for line in lines[1:]} == {"cancelled"}
    assert len(lines) < 10
    assert [line["text"] for line in lines] == [entry["text"] for entry in document["sequences"]]
    assert "1 of 41 prompts" in errors


@pytest.mark.parametrize(("out", "is_shown"), [(io.StringIO, True), (Terminal, False)])
def test_a_bar_is_shown_to_who_watches_unless_the_lines_come_by_there(monkeypatch, out, is_shown):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", out())
    with _progress(2, is_muted=False) as advance:
        advance()
    assert ("1/2" in sys.stderr.getvalue()) == is_shown


def test_a_file_is_prepared_for_and_a_single_text_is_not(outrider, write, monkeypatch):
    prepared = []
    monkeypatch.setattr(OpenVinoRuntime, "prepare", lambda self: prepared.append(self.config))
    assert outrider("run", "import os", *FEW).exit_code == 0
    assert not prepared
    assert outrider("run", "--prompt-file", write({"prompt": "import os"}), *FEW).exit_code == 0
    assert prepared
