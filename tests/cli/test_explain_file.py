"""`outrider explain` says of each kind of result what is in it, and of anything else what that is."""

from __future__ import annotations

import json

import pytest

from tests.cli.tiny import comes_with_prompt

KEYS = {"file", "kind", "sentences", "lacks", "advice"}
TOPICS = {"speed", "agreement", "time", "drafting", "concurrency", "exactness"}
RUN = ["run", "import os", "--max-tokens", "24", "--temperature", "1", "--seed", "3"]


@pytest.fixture
def explain(outrider, tmp_path):
    """Of a document, a file's text, or what a command line saves."""

    def run(result, *options):
        path = tmp_path / "result.json"
        if isinstance(result, list):
            outcome = outrider(*result, "--json", path)
            assert outcome.exit_code in {0, 3}, outcome
        else:
            path.write_text(result if isinstance(result, str) else json.dumps(result))
        return outrider("explain", path, *options)

    return run


@pytest.fixture
def said(explain):
    """Sentences by what they are about, with "lacks" and "advice"."""

    def of(result):
        outcome = explain(result, "--json")
        assert outcome.exit_code == 0, outcome
        assert outcome.json.keys() == KEYS
        found = {"lacks": outcome.json["lacks"], "advice": outcome.json["advice"]}
        for each in outcome.json["sentences"]:
            found.setdefault(each["about"], []).append(each["sentence"])
        return found

    return of


def run_document(**changes):
    """One text of 100 tokens: 50 steps of 12 ms, where a plain one takes 10 ms."""
    text = {
        "token_ids": [1] * 100, "num_prompt_tokens": 7, "exactness": "bitwise", "steps": 50, "acceptance_length": 2.0,
        "acceptance_rate": 0.25, "num_drafted": 200, "num_accepted": 50, "accepted_from": {"model": 50},
        "decisions": [], "draft_fault": None, "num_preempted": 0, "prefill_seconds": 0.1, "temperature": 1.0,
        "depth": "auto", "decode_tokens_per_second": 166.7,
        "seconds": {"draft": 0.1, "target": 0.45, "sample": 0.02, "policy": 0.02, "other": 0.01},
    }  # fmt: skip
    costs = {"speed": 1.0, "target": {"2": 0.009, "5": 0.0095}}
    return {
        "engine": {}, "policy": {"costs": costs}, "max_sequences": 16, "seconds": 0.7, "sequences": [text | changes]
    }  # fmt: skip


def decision(at_token, depth, agreement=0.31, break_even=0.58):
    return {
        "at_token": at_token, "depth": depth, "source": "model", "agreement": agreement, "break_even": break_even
    }  # fmt: skip


def test_a_runs_own_result_is_explained(said, tmp_path):
    found = said([*RUN, "--depth", "3"])
    assert set(found) >= TOPICS
    num_decoded = 24 - comes_with_prompt(json.loads((tmp_path / "result.json").read_text()))
    assert found["speed"][0].startswith(f"{num_decoded} tokens took ")
    assert found["concurrency"] == ["it was written alone: every step's forward was its own"]
    assert found["drafting"] == ["a fixed depth was asked for, so nothing decided whether drafting pays"]
    assert any("speedup is an estimate" in each for each in found["lacks"])


def test_a_plain_run_is_told_to_draft_and_many_texts_that_they_shared_steps(said, tmp_path, tiny_pair):
    plain = said([*RUN, "--speculation", "off"])
    assert plain["drafting"] == ["drafting was off: depth 0 was asked for"]
    assert plain["agreement"] == ["nothing was drafted, so every step gave one token"]
    prompts = tmp_path / "many.jsonl"
    prompts.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n')
    many = said(["run", "--prompt-file", prompts, "--batch", "2", "--max-tokens", "12", "--target", tiny_pair.target])
    assert many["concurrency"] == [
        "2 texts at once at most shared each step, so a forward had more rows without any guess"
    ]
    assert many["speed"][0].startswith("3 texts of 36 tokens took ")
    assert "--draft" in many["advice"]


def test_break_even_is_what_a_step_takes_and_the_advice_is_the_dearest_loss(said):
    found = said(run_document())
    assert found["speed"][1].startswith("a plain step is held to take 10.00 ms here, so that is about 1.67 times")
    assert found["agreement"] == [
        "50 of 200 guesses were the target's tokens (25 %): 50 from model",
        "a step took as long as 1.20 plain steps and gave 2.00 tokens, more than the 1.20 that break even",
    ]
    assert found["time"][0].startswith(
        "of the seconds in decoding steps, 75 % in the target's forwards, which verify, 17 %"
    )
    # 3 rejected a step: half of them right would be 3.5 tokens for 1.2 plain steps
    assert "a drafter that agrees more often" in found["advice"]
    assert "2.92x instead of 1.67x" in found["advice"]


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"draft_fault": "drafter 'x' raised ValueError"}, "Mend the drafter"),
        ({"num_preempted": 2}, "Give more --memory"),
        ({"prefill_seconds": 9.0}, "Nothing about drafts: prompts took 9.00 s and decoding 0.60 s"),
        ({"num_drafted": 51, "seconds": {"draft": 0.8, "target": 0.4, "other": 0.0}}, "a drafter that costs less"),
        ({"num_drafted": 50, "seconds": {"draft": 0.0, "target": 0.9, "other": 0.0}}, "rows that cost less"),
        ({"num_drafted": 50, "seconds": {"draft": 0.0, "target": 3.0, "other": 0.0}}, "Do not draft here"),
        ({"num_drafted": 0, "num_accepted": 0, "acceptance_rate": None, "decisions": [decision(9, 0)]}, "stay off"),
        ({"num_drafted": 0, "num_accepted": 0, "acceptance_rate": None}, "Name a drafter"),
    ],
)
def test_the_advice_follows_from_the_figures(said, changes, advice):
    assert advice in said(run_document(**changes))["advice"]


@pytest.mark.parametrize(
    ("decisions", "words"),
    [
        (
            [decision(0, 2), decision(40, 0)],
            "drafted from token 0, and was stopped at token 40: 0.31, against a break-even of 0.58",
        ),
        (
            [decision(9, 0, break_even=None)],
            "was never used, as decided at token 9: 0.31, and none would have paid",
        ),
        (
            [decision(0, 1, break_even=None)],
            "drafted to the end, from token 0 on with 1 token a step as planned then: 0.31, and none would have paid",
        ),
    ],
)
def test_when_and_why_drafting_stopped(said, decisions, words):
    (sentence,) = said(run_document(decisions=decisions))["drafting"]
    assert sentence == "model " + words.replace(": ", ": its agreement was held to be ")


def test_decisions_of_many_texts_are_counted(said):
    document = run_document()
    (text,) = document["sequences"]
    document["sequences"] = [
        text | {"decisions": [decision(0, 2), decision(place, 0)]} for place in (10, 20, 30)
    ] + [text | {"decisions": [decision(0, 2)]}]  # fmt: skip
    (sentence,) = said(document)["drafting"]
    assert sentence.startswith(
        "model drafted in 4 of 4 texts and did not, or no more, at the end of 3, decided at token 20"
    )


def test_what_an_older_result_lacks_is_said_and_not_guessed(said):
    document = run_document()
    for name in ("num_drafted", "num_accepted"):
        del document["sequences"][0][name]
    del document["policy"]
    found = said(document)
    assert any("how many guesses" in each for each in found["lacks"])
    assert not any("break even" in each for each in found.get("agreement", []))
    assert said(run_document(steps=0))["lacks"] == ["any decoding: no text came as far as its second token"]


def test_a_benchmark_is_explained_for_each_temperature(said):
    found = said(
        ["bench", "--workload", "code", "--prompts", "2", "--max-tokens", "40", "--concurrency", "1,2", "--depth", "3"]
    )
    assert set(found) >= TOPICS
    assert [each.partition(":")[0] for each in found["speed"][:2]] == [
        "greedy, one text at a time",
        "T = 1, one text at a time",
    ]
    assert any("that break even" in each for each in found["agreement"])
    assert found["drafting"][0].endswith("the depth was fixed at 3")
    assert "greedy, by texts at once: " in found["concurrency"][0]
    assert any("0 of " in each for each in found["exactness"])


def test_a_checklist_is_explained(outrider, said, monkeypatch, tiny_pair, tmp_path):
    monkeypatch.setattr("outrider.cli.models.bundled_pair", lambda: tiny_pair)
    quick = ("--temperature", "0,1", "--concurrency", "1,2", "--context", "64", "--budget", "15s")
    assert outrider("check", *quick, "--out", tmp_path / "out").exit_code == 0
    found = said((tmp_path / "out/check.json").read_text())
    document = json.loads((tmp_path / "out/check.json").read_text())
    assert document["verdict"]["sentences"][0].rstrip(".") in found["speed"]
    assert set(document["not_measured"]) <= set(found["lacks"])
    assert any("break-even is" in each or "no agreement" in each for each in found["agreement"])
    assert found["advice"]
    # What a machine found the time for differs: other ways are said of rows that are known.
    speedup = {"value": 1.2, "low": 1.1, "high": 1.3}
    row = {"drafter": "model", "temperature": 1.0, "depth": 4, "speedup": speedup}
    over = {"depth": 3, "gain": {"value": 1.05, "low": 1.0, "high": 1.1}}
    other_ways = [row | {"rule": rule, "over_chains": over} for rule in ("block", "recursive")]
    found = said(document | {"other_ways": other_ways})
    brings = "1.20x [1.10, 1.30] is predicted, which is 1.05x [1.00, 1.10] of what chains at depth 3 bring"
    assert f"T = 1, model, block verification at depth 4: {brings}" in [each.rstrip(".") for each in found["drafting"]]
    assert f"T = 1, model, trees of 4 nodes: {brings}" in [each.rstrip(".") for each in found["drafting"]]


def test_a_terminal_gets_a_line_for_each_sentence(explain):
    lines = explain(run_document()).stdout.splitlines()
    assert lines[0].endswith("result.json: a result of `outrider run --json`")
    assert [line.split()[0] for line in lines if line[0] != " "][1:] == [
        "speed", "agreement", "time", "drafting", "concurrency", "exactness", "lacking", "advice",
    ]  # fmt: skip
    assert all(line.endswith(".") for line in lines[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON that can be read"),
        ("[" * 100_000, "is no JSON that can be read"),
        ("[1]", "is JSON, but list and no object"),
        ("{}", "a JSON object of another kind, with no keys at all"),
        ('{"a": 1, "b": 2}', "a JSON object of another kind, with a, b"),
        ('{"verdict": 1, "replay": 1, "sequential": 1}', "is the result of an audit"),
        (
            '{"engine": {}, "sequences": [{"steps": 1}]}',
            "has the keys of a result of `outrider run --json`, but is not whole",
        ),
        ('{"engine": {}, "sequences": 3}', "is not whole"),
        ('{"engine": {}, "rows": {}, "measurements": [], "plan": {}}', "a result of `outrider bench --json`, but"),
        ('{"verdict": [], "items": [], "predictions": [], "plan": 1}', "a check.json of `outrider check`, but"),
    ],
)
def test_what_is_no_result_is_one_line(explain, content, message):
    assert message in explain(content).error


def test_a_file_that_is_not_there(outrider, tmp_path):
    assert "cannot read the result" in outrider("explain", tmp_path / "gone.json").error
    assert "cannot read the result" in outrider("explain", tmp_path).error


def test_an_audits_and_an_exports_results_are_named(explain):
    assert "is an export" in explain(dict.fromkeys(("to", "command", "files"), 1)).error
