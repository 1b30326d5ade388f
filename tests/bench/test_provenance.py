"""Where numbers come from, and that a result file is whole or not there."""

from __future__ import annotations

import json
import os
import select
import shlex
import stat
import subprocess
import sys

import pytest

from outrider.bench import provenance as module
from outrider.bench.provenance import check_writable, provenance, write_json
from outrider.errors import UsageError


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_provenance_says_what_ran_where_and_when(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/outrider", "run", "two words"])
    facts = provenance()
    json.dumps(facts, allow_nan=False)
    assert facts["command"] == "outrider run 'two words'"
    assert {"outrider", "python", "numpy", "openvino"} <= set(facts["versions"])
    assert facts["hardware"]["memory_bytes"] > 2**28
    assert facts["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("argument", "said"),
    [("/a/b c/d", "d"), ("--json=/a/b.json", "--json=b.json"), ("/a/", "a/"), ("a/b", "a/b"), ("x = '/a'", "x = '/a'")],
)
def test_the_command_line_names_no_folder_of_this_machine(monkeypatch, argument, said):
    monkeypatch.setattr(sys, "argv", ["outrider", argument])
    assert shlex.split(provenance()["command"]) == ["outrider", said]


def test_only_flags_that_matter_are_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 amx_bf16\n\nmodel name\t: Other\n")
    assert module._processor_facts(cpuinfo) == {"model name": "Some CPU", "flags": "fpu avx2 amx_bf16"}
    assert module._processor_facts(tmp_path / "nowhere") == {}


def test_a_package_outside_a_checkout_has_no_revision(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert module._revision() is None


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("changed", "is_modified"),
    [("src/provenance.py", True), ("benchmarks/common.py", True), ("benchmarks/results/a.json", False)],
)
def test_only_changed_source_makes_a_revision_modified(monkeypatch, tmp_path, changed, is_modified):
    for name in ("src/provenance.py", "benchmarks/common.py", "benchmarks/results/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "src/provenance.py"))
    assert module._revision()["modified"] is False
    (tmp_path / changed).write_text("changed")
    assert module._revision()["modified"] is is_modified


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    write_json(path, {"größe": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"größe": 1}
    assert names_in(tmp_path) == ["result.json"]


def test_a_file_that_cannot_be_made_json_leaves_the_old_one(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["result.json"]


def test_text_that_is_not_unicode_is_escaped(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, ["é\udcff\n\\"])
    assert json.loads(path.read_text(encoding="utf-8")) == ["é\udcff\n\\"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "result.json")
    write_json(tmp_path / "link.json", [])
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "result.json").read_text() == "[]\n"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    waiting = select.poll()
    waiting.register(reader)
    assert not waiting.poll(0), "the reader was told that all was written"
    write_json(pipe, [])
    assert os.read(reader, 100) == b"[]\n"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("function", [check_writable, lambda path: write_json(path, {})])
@pytest.mark.parametrize("name", [".", "nowhere/result.json", "file/result.json", "x" * 300])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name, function):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        function(tmp_path / name)
    assert names_in(tmp_path) == ["file"]


def test_checking_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "result.json")
    assert not names_in(tmp_path)
