"""`outrider quantize` makes a whole checkpoint that runs, says what it costs, and harms nothing that is there."""

from __future__ import annotations

import json

import pytest

from tests.cli.tiny import make_tiny


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "import os"}\n{"prompt": "def f():"}\n')
    return path


def test_a_quantised_target_is_made_measured_and_run(outrider, tiny_pair, prompts, tmp_path):
    out = tmp_path / "made" / "with" / "new"
    arguments = ["quantize", "--target", tiny_pair.target, "--out", out, "--prompts", prompts]
    outcome = outrider(*arguments)
    assert outcome.exit_code == 0, outcome
    assert "overlap of distributions" in outcome.stdout
    assert "it is another model than the original" in outcome.stdout
    document = json.loads((out / "quality.json").read_text())
    assert document["bytes"]["quantized"] < 0.7 * document["bytes"]["original"]
    assert document["quality"]["num_tokens"] == 128
    assert 0.5 < document["quality"]["overlap"]["value"] < 1
    assert f"level {document['quality']['exactness']}" in outcome.stdout
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []

    run = ["run", "--target", out, "--draft", tiny_pair.draft, "--max-tokens", "24", "--prompt", "import os"]
    on, off = (outrider(*run, "--speculation", switch) for switch in ("on", "off"))
    assert on.exit_code == 0, on
    assert on.stdout == off.stdout
    drafting = outrider("run", "--target", tiny_pair.target, "--draft", out, *run[5:])
    assert drafting.stdout == outrider("run", "--target", tiny_pair.target, *run[5:]).stdout

    assert "new exists already: name another with --out, or add --force" in outrider(*arguments).error
    again = outrider(*arguments, "--force", "--json", "-")
    assert again.exit_code == 0, again
    assert again.json["quality"]["overlap"] == document["quality"]["overlap"]
    assert "is quantized already" in outrider("quantize", "--target", out, "--out", tmp_path / "b").error
    assert "does not compute" in outrider("run", "--target", out, "--runtime", "torch", "--prompt", "a").error


def test_what_cannot_be_is_said_in_a_line(outrider, tiny_pair, prompts, tmp_path):
    target = ["quantize", "--target", tiny_pair.target, "--prompts", prompts]
    assert "is no folder, so new cannot be made in it" in outrider(*target, "--out", prompts / "a" / "new").error
    assert "replaces only what outrider quantized" in outrider(*target, "--out", tmp_path, "--force").error
    assert prompts.exists()
    missing = outrider("quantize", "--target", tmp_path / "none", "--out", tmp_path / "new")
    assert "is not a folder" in missing.error
    damaged = make_tiny(tmp_path / "damaged", scale=float("nan"))
    assert "not finite" in outrider("quantize", "--target", damaged, "--out", tmp_path / "new").error
    assert not (tmp_path / "new").exists()
