"""The bundled pair is where it is said to be, and its prompts fit it."""

from __future__ import annotations

import tomllib

import pytest

from outrider.demo import bundled_pair
from outrider.demo.prompts import PROMPTS
from outrider.errors import ModelError
from outrider.model.config import read_config
from outrider.model.tokenizer import Tokenizer
from tests.architecture.sources import ROOT

MAX_BYTES = 40_000_000


def test_a_missing_pair_is_said_clearly(monkeypatch, tmp_path):
    monkeypatch.setattr("outrider.demo.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ModelError, match="bundled target is missing"):
        bundled_pair()


def test_the_pair_is_small_and_has_one_vocabulary():
    target, draft = bundled_pair()
    files = [path for folder in (target, draft) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert Tokenizer.from_folder(target).first_difference(Tokenizer.from_folder(draft)) is None
    sizes = {folder.name: (folder / "model.safetensors").stat().st_size for folder in (target, draft)}
    assert sizes["target"] >= 10 * sizes["draft"]


def test_the_licence_of_its_text_goes_with_the_pair():
    (*_, licence, card) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license-files"]
    assert (ROOT / licence).parent == (ROOT / card).parent == bundled_pair().target.parent
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in (ROOT / licence).read_text()
    assert "[LICENSE](LICENSE)" in (ROOT / card).read_text(encoding="utf-8")


def test_prompts_are_distinct_and_leave_room():
    assert len({prompt.name for prompt in PROMPTS}) == len(PROMPTS)
    target = bundled_pair().target
    tokenizer, max_context = Tokenizer.from_folder(target), read_config(target).max_context
    assert all(len(tokenizer.encode(prompt.text)) < max_context // 2 for prompt in PROMPTS)
