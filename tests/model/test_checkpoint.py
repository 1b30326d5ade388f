"""From a name to a folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from outrider.errors import ModelError
from outrider.model.checkpoint import resolve_checkpoint


def test_a_folder_is_itself(tmp_path, monkeypatch):
    assert resolve_checkpoint(tmp_path) == tmp_path
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    (tmp_path / "runs" / "target").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("runs/target").samefile(tmp_path / "runs" / "target")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_checkpoint("~/model").samefile(tmp_path / "model")


def test_a_home_that_is_not_there_is_said():
    with pytest.raises(ModelError, match=r"'~no-such-user/model' is in a home folder that cannot be found"):
        resolve_checkpoint("~no-such-user/model")


def test_a_file_is_not_a_model(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="is a file, but a model is a folder"):
        resolve_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["missing", "./missing/model", "../missing", "/missing/model", "a/b/c", "a b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="is not a folder, nor owner/name"):
        resolve_checkpoint(name)


def test_the_hub_out_of_reach_is_one_clear_line(tmp_path):
    # in a process of its own, because the hub's library reads its settings once
    code = "from outrider.model.checkpoint import resolve_checkpoint as r; r('no-such-owner/no-such-model')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("outrider.errors.ModelError: there is no folder no-such-owner/no-such-model")
    assert last.endswith("download it and give its folder")
