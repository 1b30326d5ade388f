"""`outrider export` shows a command that can be pasted, saves it whole, and never over what is there."""

from __future__ import annotations

import shlex

import pytest

from tests.export.recipes import MODEL, make_recipe


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(make_recipe(MODEL, depth=3).toml())
    return path


def test_the_command_stands_alone_among_comments(outrider, recipe):
    outcome = outrider("export", "--recipe", recipe, "--to", "vllm")
    assert outcome.exit_code == 0, outcome
    (command,) = [line for line in outcome.stdout.splitlines() if not line.startswith("#")]
    assert shlex.split(command)[:3] == ["vllm", "serve", "org/target"]
    assert "# vLLM 0.33" in outcome.stdout
    assert "block verification" in outcome.stdout


def test_files_are_shown(outrider, recipe):
    outcome = outrider("export", "--recipe", recipe, "--to", "tensorrt-llm")
    assert "# file trtllm.yaml\nmax_batch_size: 32\n" in outcome.stdout


def test_files_are_saved_and_none_is_written_over(outrider, recipe, tmp_path):
    out = tmp_path / "new" / "folder"
    arguments = ["export", "--recipe", recipe, "--to", "llama.cpp", "--out", out]
    outcome = outrider(*arguments)
    assert outcome.exit_code == 0, outcome
    assert sorted(path.name for path in out.iterdir()) == ["command.sh", "convert.sh"]
    assert "llama-server -m target.gguf" in (out / "command.sh").read_text()
    (out / "convert.sh").unlink()
    (out / "command.sh").write_text("mine")
    assert "command.sh exists already" in outrider(*arguments).error
    assert (out / "command.sh").read_text() == "mine"
    assert not (out / "convert.sh").exists()


def test_json_has_all_of_it(outrider, recipe):
    document = outrider("export", "--recipe", recipe, "--to", "sglang", "--json", "-").json
    assert document["engine"] == "SGLang 0.5.23"
    assert document["depth"] == 3
    assert document["prediction"]["acceptance"] == 0.7
    assert document["command"][:3] == ["python", "-m", "sglang.launch_server"]
    assert document["notes"]
    assert document["provenance"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "ollama"], "--to"),
        (["--to", "vllm", "--recipe", "gone.toml"], "cannot read the recipe from gone.toml"),
        (["--to", "vllm", "--json", "no/where/x.json"], "cannot write"),
    ],
)
def test_a_mistake_is_one_line(outrider, recipe, arguments, said):
    given = [] if "--recipe" in arguments else ["--recipe", recipe]
    assert said in outrider("export", *given, *arguments).error


def test_a_folder_that_cannot_be_made(outrider, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    error = outrider("export", "--recipe", recipe, "--to", "vllm", "--out", tmp_path / "file" / "x").error
    assert "cannot make the folder" in error
