"""Every mistake of a user is one clear line and exit code 2, and leaves nothing half-written."""

from __future__ import annotations

import json

import pytest

from tests.cli.tiny import make_tiny

PROMPT = "import os"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garble(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


DAMAGES = {
    "not a model": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "unsupported": (
        lambda folder: edit_config(folder, architectures=["GPT2LMHeadModel"], model_type="gpt2"),
        "GPT2LMHeadModel",
    ),
    "pickle": (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickle"),
    "remote code": (lambda folder: edit_config(folder, auto_map={"AutoModel": "model.Model"}), "auto_map"),
    "truncated": (cut, "model.safetensors"),
    "corrupted": (garble, "model.safetensors"),
    "config damaged": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
}


@pytest.mark.parametrize("role", ["--target", "--draft"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoint_that_cannot_be_used(outrider, tmp_path, damage, role):
    folder = make_tiny(tmp_path / "model")
    spoil, said = DAMAGES[damage]
    spoil(folder)
    assert said in outrider("run", PROMPT, role, folder).error


def test_target_without_a_tokenizer(outrider, tmp_path):
    folder = make_tiny(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in outrider("run", PROMPT, "--target", folder).error


def test_missing_directory(outrider, tmp_path):
    assert "nowhere" in outrider("run", PROMPT, "--target", tmp_path / "nowhere").error


def test_vocabularies_that_differ(outrider, tmp_path):
    folder = make_tiny(tmp_path / "draft", vocab_size=300)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"Ā": tokenizer["model"]["vocab"]["a"], "a": tokenizer["model"]["vocab"]["Ā"]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "different vocabularies" in outrider("run", PROMPT, "--draft", folder).error


def test_prompt_longer_than_the_context(outrider, tmp_path):
    folder = make_tiny(tmp_path / "short", max_position_embeddings=512)
    error = outrider("run", "x" * 600, "--target", folder).error
    assert "600" in error
    assert "512" in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "-1"], "-1.0"),
        (["--temperature", "nan"], "nan"),
        (["--temperature", "1", "--top-p", "1.5"], "1.5"),
        (["--temperature", "1", "--top-p", "0"], "0.0"),
        (["--temperature", "1", "--top-k", "-1"], "-1"),
        (["--temperature", "1", "--min-p", "2"], "2.0"),
        (["--max-tokens", "0"], "1 or more"),
        (["--depth", "-1"], "-1"),
        (["--depth", "65"], "64"),
        (["--depth", "deep"], "'deep', but must be auto or"),
        (["-n", "0"], "n is 0"),
        (["-n", "many"], "-n"),
        (["--min-tokens", "-1"], "min_tokens"),
        (["--repetition-penalty", "0"], "repetition_penalty"),
        (["--presence-penalty", "nan"], "presence_penalty"),
        (["--frequency-penalty", "inf"], "frequency_penalty"),
        (["--logit-bias", "5"], "'5', but must be ID=VALUE"),
        (["--logit-bias", "a=1"], "ID=VALUE"),
        (["--logit-bias", "5=1.2.3"], "ID=VALUE"),
        (["--logit-bias", "5=1e999"], "logit_bias"),
        (["--logit-bias", "5=1", "--logit-bias", "5=2"], "twice for token 5"),
        (["--logit-bias", "999=1"], "999"),
        (["--bad-word", ""], "bad_words"),
        (["--stop-token-id", "-1"], "stop_token_ids"),
        (["--stop-token-id", "999"], "999"),
        (["--log-probs", "-1", "--json", "-"], "log_probs"),
        (["--batch", "0"], "--batch"),
        (["--memory", "much"], "much"),
        (["--memory", "1kB"], "1000 bytes"),
        (["--seed", "-1"], "seed"),
        (["--stop", ""], "stop"),
        (["--threads", "0"], "--threads"),
        (["--temperature", "warm"], "--temperature"),
        (["--runtime", "abacus"], "abacus"),
        (["--dtype", "int3"], "int3"),
        (["--speculation", "maybe"], "maybe"),
        (["--wings"], "--wings"),
        (["another"], "another"),
        (["--max-tokens"], "--max-tokens"),
    ],
)
def test_option_out_of_range(outrider, options, said):
    assert said in outrider("run", PROMPT, *options).error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--depth", "3", "--speculation", "off"], "--depth"),
        (["--depth", "3", "--draft", "none"], "--draft"),
        (["--depth", "0", "--speculation", "on"], "--depth"),
        (["--speculation", "on", "--draft", "none"], "--draft"),
        (["--device", "cuda"], "torch"),
        (["--chat"], "template"),
        (["--top-p", "0.9"], "--temperature"),
        (["--min-tokens", "9", "--max-tokens", "8"], "min_tokens is 9"),
        (["--log-probs", "2"], "--json"),
        (["--draft", "none", "--draft", "suffix"], "--draft suffix"),
        (["--draft", "suffix", "--draft", "suffix"], "twice"),
        (["--learn", "--draft", "none"], "--draft suffix"),
        (["--learn", "--depth", "0"], "--learn"),
        (["--depth", "auto", "--speculation", "off"], "--depth"),
    ],
)
def test_options_that_contradict_each_other(outrider, options, said):
    assert said in outrider("run", PROMPT, *options).error


def test_depth_for_a_target_of_ones_own_needs_a_drafter(outrider, tiny_pair):
    assert "--draft" in outrider("run", PROMPT, "--target", tiny_pair.target, "--depth", 2).error


def test_no_prompt(outrider):
    assert "no prompt" in outrider("run").error


def test_chat_template_that_writes_nothing(outrider, tmp_path):
    folder = make_tiny(tmp_path / "model")
    (folder / "chat_template.jinja").write_text("")
    assert "empty" in outrider("run", PROMPT, "--target", folder, "--chat").error


def test_a_checkpoint_cannot_command_the_terminal(outrider, tmp_path):
    folder = make_tiny(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(r'{{ raise_exception("\x1b]0;title\x07\x9b2J") }}')
    error = outrider("run", PROMPT, "--target", folder, "--chat").error
    assert "]0;title" in error
    assert not {"\x1b", "\x07", "\x9b"} & set(error)


@pytest.mark.parametrize(("arguments", "stdin"), [([""], None), (["--prompt", ""], None), ([], b"")])
def test_empty_prompt(outrider, arguments, stdin):
    assert "empty" in outrider("run", *arguments, stdin=stdin).error


def test_two_prompts(outrider, tmp_path):
    error = outrider("run", PROMPT, "--prompt", PROMPT, "--prompt-file", tmp_path / "prompt.txt").error
    assert "PROMPT and --prompt and --prompt-file" in error


def test_prompt_file_that_cannot_be_read(outrider, tmp_path):
    assert "No such file" in outrider("run", "--prompt-file", tmp_path / "nowhere").error
    assert "directory" in outrider("run", "--prompt-file", tmp_path).error


def test_prompt_without_an_end(outrider):
    assert "/dev/zero has more than 67108864 bytes" in outrider("run", "--prompt-file", "/dev/zero").error


def test_prompt_that_is_too_long(outrider, monkeypatch, tmp_path):
    monkeypatch.setattr("outrider.cli.prompt.MAX_PROMPT_BYTES", 3)
    (tmp_path / "prompt").write_bytes(b"four")
    assert "prompt has more than 3 bytes" in outrider("run", "--prompt-file", tmp_path / "prompt").error
    assert "stdin has more than 3 bytes" in outrider("run", stdin=b"four").error


def test_prompt_that_is_not_utf8(outrider, tmp_path):
    (tmp_path / "latin").write_bytes("größe".encode("latin-1"))
    assert "byte 2 is 0xf6" in outrider("run", "--prompt-file", tmp_path / "latin").error
    assert "stdin" in outrider("run", stdin=b"\xff").error


@pytest.mark.parametrize("switch", [("--speculation", "off"), ("--depth", 0)])
def test_a_prediction_that_nothing_drafts_from(outrider, tmp_path, switch):
    (tmp_path / "prediction").write_text("os")
    assert "there is --prediction" in outrider("run", PROMPT, "--prediction", tmp_path / "prediction", *switch).error


def test_predictions_that_cannot_be_read(outrider, tmp_path, monkeypatch):
    monkeypatch.setattr("outrider.cli.prompt.MAX_PREDICTION_BYTES", 12)
    contents = {
        "latin": ("größe".encode("latin-1"), "byte 2 is 0xf6"),
        "utf16": ("größe".encode("utf-16"), "byte 0 is 0xff"),
        "long": (b"x" * 13, "more than 12 bytes"),
        "empty": (b"", "is empty"),
    }
    for name, (content, said) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert said in outrider("run", PROMPT, "--target", "nowhere", "--prediction", tmp_path / name).error
    assert "cannot read the prediction" in outrider("run", PROMPT, "--prediction", tmp_path / "nowhere").error


@pytest.mark.parametrize("place", ["nowhere/run.json", ".", "file/run.json"])
def test_unwritable_json_is_found_before_anything_is_loaded(outrider, tmp_path, place):
    (tmp_path / "file").touch()
    error = outrider("run", PROMPT, "--target", "nowhere", "--json", tmp_path / place).error
    assert "cannot write" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_weights_that_give_nan(outrider, tmp_path):
    folder = make_tiny(tmp_path / "nan")
    make_tiny(tmp_path / "other", scale=float("nan"))
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    assert "not finite" in outrider("run", PROMPT, "--target", folder).error


def test_nothing_is_written_when_the_run_fails(outrider, tmp_path):
    (tmp_path / "run.json").write_text("the last result")
    assert outrider("run", "", "--json", tmp_path / "run.json").error
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == "the last result"


@pytest.mark.parametrize("arguments", [["walk"], ["--wings"], ["demo", "--wings"], ["demo", "--seed", "-1"]])
def test_mistakes_before_any_verb_runs(outrider, arguments):
    assert outrider(*arguments).error
