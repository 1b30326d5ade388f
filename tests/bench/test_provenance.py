"""Where numbers come from, and that a result file is whole or not there."""

from __future__ import annotations

import json
import os
import stat
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


def test_only_flags_that_matter_are_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 amx_bf16\n\nmodel name\t: Other\n")
    assert module._processor_facts(cpuinfo) == {"model name": "Some CPU", "flags": "fpu avx2 amx_bf16"}
    assert module._processor_facts(tmp_path / "nowhere") == {}


def test_a_package_outside_a_checkout_has_no_revision(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert module._revision() is None


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
