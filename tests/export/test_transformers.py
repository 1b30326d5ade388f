"""The script for transformers runs as it is written, drafts as deep as it says, and writes the target's own text."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from outrider.export.engines import EXPORTS
from outrider.recipe import PolicyChoice, Recipe, RecipeDraft, TargetModel
from tests.cli.tiny import make_tiny
from tests.runtime.checkpoints import make_checkpoint

DEPTH = 3
PROMPT = torch.tensor([[5, 9, 7, 5, 9, 7, 5, 9]])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return make_checkpoint(folder / "target", "qwen3"), make_checkpoint(folder / "draft", "qwen3", seed=1)


def save(folder, target, draft):
    drafts = (
        RecipeDraft(kind="suffix") if draft is None else RecipeDraft(kind="model", name=str(draft), sha256="b" * 64),
    )
    recipe = Recipe(
        target=TargetModel(name=str(target), sha256="a" * 64),
        drafts=drafts,
        policy=PolicyChoice(speculate=True, depth=DEPTH),
    )
    for name, content in EXPORTS["transformers"](recipe).files.items():
        (folder / name).write_text(content)


def load_script(folder):
    spec = importlib.util.spec_from_file_location("exported_script", folder / "generate.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("kind", ["model", "suffix"])
def test_generate_drafts_to_that_depth_and_writes_the_same_text(pair, tmp_path, kind, monkeypatch):
    folder, draft_folder = pair
    save(tmp_path, folder, draft_folder if kind == "model" else None)
    target = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    wanted = {"max_new_tokens": 40, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    plain = target.generate(PROMPT, **wanted)

    rows: list[int] = []
    forward = target.forward
    monkeypatch.setattr(target, "forward", lambda *args, **kwargs: note(rows, forward, *args, **kwargs))
    drafted = target.generate(PROMPT, **wanted, **load_script(tmp_path).load_drafting())
    assert torch.equal(plain, drafted)
    assert max(rows[1:]) == DEPTH + 1
    assert len(rows) <= 40
    if kind == "model":  # a constant number, whatever was accepted, until the text's end is near
        assert set(rows[1:-DEPTH]) == {DEPTH + 1}


def note(rows, forward, *args, **kwargs):
    rows.append(kwargs["input_ids"].shape[1])
    return forward(*args, **kwargs)


@pytest.mark.slow
def test_the_script_runs_on_its_own(tmp_path):
    save(tmp_path, make_tiny(tmp_path / "target"), make_tiny(tmp_path / "draft", seed=1))
    run = subprocess.run(
        [sys.executable, tmp_path / "generate.py", "import os"], capture_output=True, check=False, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("import os")
