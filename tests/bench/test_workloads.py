"""Workloads are fixed and fit the bundled pair; files are read strictly; texts that prove nothing are told."""

from __future__ import annotations

import json
import random

import pytest

from outrider.bench import workloads as module
from outrider.bench.workloads import WORKLOADS, Loop, Prompt, find_loop, is_random, read_workloads
from outrider.demo import bundled_pair
from outrider.errors import UsageError
from outrider.model.tokenizer import Tokenizer

MAX_PROMPT_TOKENS = 360


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_folder(bundled_pair().target)


def test_there_are_six_workloads_of_six_prompts_that_fit_the_pair(tokenizer):
    workloads = read_workloads(WORKLOADS)
    assert [workload.name for workload in workloads] == list(WORKLOADS)
    prompts = [prompt for workload in workloads for prompt in workload.prompts]
    assert len(prompts) == len({prompt.text for prompt in prompts}) == 36
    for workload in workloads:
        assert len({prompt.name for prompt in workload.prompts}) == 6
        assert all((prompt.prediction is not None) == (workload.name == "edit") for prompt in workload.prompts)
    for prompt in prompts:
        token_ids = tokenizer.encode(prompt.text)
        assert 64 <= len(token_ids) <= MAX_PROMPT_TOKENS
        assert not is_random(token_ids, tokenizer.vocab_size)


def test_a_changed_workload_is_refused(monkeypatch):
    monkeypatch.setattr(module, "WORKLOADS_SHA256", "0" * 64)
    with pytest.raises(UsageError, match="results would not compare"):
        read_workloads(["code"])


@pytest.mark.parametrize(
    ("token_ids", "loop"),
    [
        ([], None),
        (range(200), None),
        ([1, 2, 3] * 40, Loop(3, 3)),
        ([*range(50), *[7] * 25], Loop(51, 1)),
        ([*range(50), *[7] * 24], None),  # 23 repetitions are not 24
        ([*range(100, 150), *list(range(32)) * 3], Loop(82, 32)),
        ([*range(100, 150), *list(range(32)) * 2], None),  # repeated once is no loop
        (list(range(33)) * 5, None),  # too long a run
        ([*[1, 2] * 40, 3], None),  # it found out of it
    ],
)
def test_a_loop_is_an_end_that_repeats_itself(token_ids, loop):
    assert find_loop(list(token_ids)) == loop


def test_a_loop_that_begins_in_the_middle_of_its_run_is_found():
    assert find_loop([9, 9, 9, *[1, 2, 3, 4] * 10, 1, 2]) == Loop(7, 4)


@pytest.mark.parametrize("seed", range(5))
def test_random_tokens_are_told_after_decoding_too(tokenizer, seed):
    generator = random.Random(seed)
    token_ids = [generator.randrange(1, tokenizer.vocab_size) for _ in range(256)]
    assert is_random(token_ids, tokenizer.vocab_size)
    assert is_random(tokenizer.encode(tokenizer.decode(token_ids)), tokenizer.vocab_size)
    assert not is_random(token_ids[:40], tokenizer.vocab_size), "few tokens are no evidence"


def test_files_are_workloads_too(tmp_path):
    lines, text = tmp_path / "mine.jsonl", tmp_path / "one.txt"
    lines.write_text(
        '\ufeff{"prompt": "import os\\n"}\n\n{"prompt": "x = ", "name": "x", "prediction": "x = 1"}\n', encoding="utf-8"
    )
    text.write_text("grüße\n", encoding="utf-8")
    mine, code, one = read_workloads([str(lines), "code", str(text)])
    assert mine.prompts == (Prompt("line 1", "import os\n"), Prompt("x", "x = ", "x = 1"))
    assert one.prompts == (Prompt("one", "grüße\n"),)
    assert (mine.name, code.name) == ("mine.jsonl", "code")
    assert len({mine.sha256, one.sha256, code.sha256}) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('["import os"]', "line 2 is no object"),
        ('{"name": "x"}', "line 2 has no prompt"),
        ('{"prompt": ""}', "line 2 has no prompt"),
        ('{"prompt": 5}', "line 2: prompt is 5, but must be text"),
        ('{"prompt": "\\ud800"}', "line 2: prompt is .* but must be text"),
        ('{"prompt": "x", "prediction": ["y"]}', "line 2: prediction"),
        ('{"prompt": "x", "max_tokens": 5}', "line 2 has the key 'max_tokens'"),
        ('{"prompt": "x", "name": "line 1"}', "line 2: another prompt is named 'line 1'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "import os"}) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_workloads([str(path)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "cannot read"),
        ("empty.jsonl", b"\n \n", "holds no prompts"),
        ("empty.txt", b"", "holds no prompts"),
        ("latin.txt", "grüße".encode("latin-1"), "is not UTF-8 text .byte 2 is 0xfc"),
        ("code.csv", b"x", "is none of code, prose"),
    ],
)
def test_a_file_that_is_no_workload_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_workloads([str(path)])


def test_no_two_workloads_have_one_name(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").write_text(folder)
    for names in (["code", "prose", "code"], [str(tmp_path / "one/mine.txt"), str(tmp_path / "two/mine.txt")]):
        with pytest.raises(UsageError, match="is given twice"):
            read_workloads(names)
