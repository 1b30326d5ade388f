"""`outrider check`: what was found is shown and saved, prompts are not; mistakes are one line and leave nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from outrider.cli import check_show
from outrider.recipe import read_recipe
from tests.cli.tiny import make_tiny

SECRET = "zebra crossing"
QUICK = ("--temperature", "1", "--concurrency", "1,2", "--context", "64,9999", "--budget", "30s")


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"{SECRET} number {word}", "category": kind} for word, kind in
             (("one red", "a"), ("two blue", "a"), ("three green", "b"), ("four black", "b"))]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def check(outrider):
    return lambda *arguments: outrider("check", *arguments)


def test_the_checklist_is_shown_and_saved_without_the_prompts(check, prompts, tmp_path):
    out = tmp_path / "out"
    outcome = check("--prompts", prompts, *QUICK, "--out", out)
    assert outcome.exit_code == 0, outcome
    document = json.loads((out / "check.json").read_text())
    names = {item["name"].partition(":")[0] for item in document["items"]}
    assert names == {
        "vocabulary", "memory", "exactness", "draft cost", "verify cost", "agreement", "prediction", "drafts",
        "concurrency", "measured", "lossless", "workload sanity",
    }  # fmt: skip
    assert all(item["status"] in {"pass", "warn", "fail"} and item["value"] for item in document["items"])
    drafters = {row["drafter"] for row in document["predictions"]}
    assert drafters == {"suffix", "draft", "suffix + draft"}
    assert {row["num_sequences"] for row in document["predictions"]} == {1, 2}
    _judged(document)
    _other_ways(document)
    assert {"default", "choice", "worst"} <= {row["setting"] for row in document["measured"]}
    assert [curve["context"] for curve in document["verify_cost"]] == [64]
    assert any("context of 9999" in each for each in document["not_measured"])
    assert len(document["verdict"]["next_steps"]) == 2
    assert document["verdict"]["sentences"][0] in outcome.stdout.replace("\n", " ")
    recipe = read_recipe(out / "recipe.toml")
    assert recipe.policy.speculate == (document["verdict"]["decision"] == "speculate")
    assert recipe.measured.survival
    assert {draft.kind for draft in recipe.drafts} <= _kinds(document)
    page = (out / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    for text in (page, recipe.toml(), json.dumps(document), outcome.stdout, outcome.stderr):
        assert "zebra" not in text
    (lossless,) = (item for item in document["items"] if item["name"] == "lossless")
    assert lossless["value"].startswith("0 of ")


def _other_ways(document):
    """Trees, and at the one temperature block verification, each with what it brings over chains."""
    rows = document["other_ways"]
    assert {(row["max_children"], row["rule"], row["depth"]) for row in rows} == {
        (2, "coupled", 4), (2, "coupled", 8), (1, "block", 2), (1, "block", 4), (1, "block", 8)
    }  # fmt: skip
    assert {row["temperature"] for row in rows} == {1.0}
    assert all(row["speedup"]["value"] > 0 and row["over_chains"]["gain"]["value"] > 0 for row in rows)
    (item,) = (item for item in document["items"] if item["name"] == "prediction")
    assert "block verification at depth" in item["value"]
    assert "trees of" in item["value"]
    assert document["not_predicted"]


def _judged(document):
    """Each drafter by itself; what is recommended was measured, and no draft is in it that does not pay."""
    verdict = document["verdict"]
    judged = {each["name"]: each for each in verdict["drafts"]}
    assert set(judged) == {"draft", "suffix"}
    if verdict["decision"] == "speculate":
        used = verdict["drafter"].split(" + ")
        assert verdict["drafter"] in {row["drafter"] for row in document["measured"]}
        assert judged["draft"]["conclusion"] != "does not pay" or "draft" not in used
    else:
        used = []
    told_off = any(each.startswith("Do not speculate with draft: ") for each in verdict["sentences"])
    assert told_off == (judged["draft"]["conclusion"] != "pays" and "draft" not in verdict["drafter"].split(" + "))
    assert "draft" not in used or not told_off


def _kinds(document):
    verdict = document["verdict"]
    kinds = {"suffix": "suffix", "draft": "model"}
    return {kinds[name] for name in verdict["drafter"].split(" + ")} if verdict["decision"] == "speculate" else set()


def test_prompts_are_in_the_json_where_that_was_asked_for(check, prompts):
    outcome = check("--prompts", prompts, *QUICK, "--no-verify", "--include-prompts", "--json")
    assert outcome.exit_code == 0, outcome
    assert SECRET in outcome.stdout
    assert "measured" not in {item["name"] for item in outcome.json["items"]}
    assert "The checklist" in outcome.stderr


def test_trees_take_no_memory_beyond_a_limit(check, prompts):
    quick = [*QUICK[:-2], "--budget", "20s", "--no-verify", "--json"]
    document = check("--prompts", prompts, *quick, "--memory", "2GiB").json
    assert {row["rule"] for row in document["other_ways"]} == {"block"}
    assert any(each.startswith("trees: ") for each in document["not_measured"])


def test_what_was_measured_until_ctrl_c_is_reported(check, monkeypatch, prompts, tmp_path):
    asked = itertools.count()

    @contextmanager
    def noted():
        yield SimpleNamespace(is_set=lambda: next(asked) >= 180)

    monkeypatch.setattr(check_show, "noted_interrupt", noted)
    outcome = check("--prompts", prompts, *QUICK, "--out", tmp_path / "out")
    assert outcome.exit_code == 130
    assert "Interrupted" in outcome.stdout
    assert json.loads((tmp_path / "out/check.json").read_text())["is_partial"]
    assert "Interrupted" in (tmp_path / "out/report.html").read_text()


def test_ctrl_c_ends_who_still_waits_for_another_run(check, interrupt_while_waiting, prompts, tmp_path):
    interrupt_while_waiting(check_show)
    outcome = check("--prompts", prompts, *QUICK, "--out", tmp_path / "out")
    assert outcome.exit_code == 130
    assert "waiting for another timed run to end" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a file", "a folder of folders"])
def test_an_out_that_cannot_be_written_is_refused_before_anything_is_measured(check, tmp_path, place):
    out = tmp_path / "out"
    if place == "a file":
        out.write_text("kept")
    else:
        (out / "recipe.toml").mkdir(parents=True)
    assert "cannot write" in check("--out", out).error
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "recipe.toml"][: 1 + out.is_dir()]


def test_texts_that_say_nothing_are_no_ground_for_a_conclusion(check, tmp_path):
    path = tmp_path / "same.jsonl"
    path.write_text('{"prompt": "the very same words"}\n' * 4)
    outcome = check("--prompts", path, "--temperature", "0", "--concurrency", "1", "--budget", "20s", "--json")
    assert outcome.exit_code == 0, outcome
    reasons = [each["why"] for each in outcome.json["unfit"]]
    assert sum("nearly that of line 1" in each for each in reasons) == 3
    assert outcome.json["verdict"]["decision"] != "speculate"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no prompts"),
        ('{"prompt": "a"}\n', "has one prompt"),
        ('{"prompt": "a"}\n{"prompt": \n', "mine.jsonl line 2 is not JSON"),
        ('{"prompt": "a"}\n\n["b"]\n', "mine.jsonl line 3 is no object"),
        ('{"prompt": "a"}\n{"text": "b"}\n', "mine.jsonl line 2 has the key 'text'"),
        ('{"prompt": "a"}\n{"category": "b"}\n', "mine.jsonl line 2 must have either"),
        ('{"prompt": ""}\n{"prompt": "b"}\n', "mine.jsonl line 1: prompt and category"),
        ('{"prompt": "a"}\n{"messages": []}\n', "mine.jsonl line 2: messages must be"),
        ('{"prompt": "a"}\n{"prompt": "' + "b" * 5000 + '"}\n', "line 2: the prompt has 5000 tokens"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(check, tmp_path, content, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    out = tmp_path / "out"
    assert message in check("--prompts", path, "--out", out).stderr.splitlines()[-1]
    assert not out.exists()


def test_a_conversation_needs_a_template(check, tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hello"}]}\n' * 2)
    outcome = check("--prompts", path)
    assert outcome.exit_code == 2
    assert "chat template" in outcome.stderr


def test_a_draft_that_cannot_draft_is_refused_before_anything_is_loaded(check, tiny_pair, tmp_path):
    other = make_tiny(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[10:12]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "different vocabularies: id 10" in check("--draft", other).error
    large = make_tiny(tmp_path / "large", num_hidden_layers=5)
    assert "a draft must be the smaller" in check("--draft", large).error
    again = shutil.copytree(tiny_pair.draft, tmp_path / "again/draft")
    assert "two drafts are called draft" in check("--draft", tiny_pair.draft, "--draft", again).error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "no/where/at/all"], "cannot write to"),
        (["--budget", "soon"], "--budget is 'soon'"),
        (["--memory", "lots"], "the memory limit is 'lots'"),
        (["--context", "0"], "--context is 0"),
        (["--concurrency", "0"], "--concurrency is 0"),
        (["--temperature", "hot"], "--temperature is 'hot'"),
        (["--draft", "none"], "--draft none drafts nothing"),
        (["--prompts", "no/where.jsonl"], "cannot read the prompts"),
        (["--target", "no/where/at/all"], "no/where/at/all"),
        (["--depth", "4"], "--depth"),
    ],
)
def test_a_mistake_is_one_line(check, arguments, message):
    assert message in check(*arguments).error
