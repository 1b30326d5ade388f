"""A file of prompts: what its lines may say, and the one line that names whichever is wrong."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from outrider.cli.jobs import PARAMETERS, Defaults, open_jobs
from outrider.cli.models import Models
from outrider.cli.prompt import Chat
from outrider.errors import UsageError
from outrider.request import SamplingParams

MODELS = Models(target="target", drafts=("suffix",), learns=False, depth="auto", is_plain=False)


def read(path, *lines, **defaults):
    """The jobs of a file of these lines: text as it is, anything else as JSON."""
    path = path / "jobs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    settings = {"params": SamplingParams(), "models": MODELS, "is_chat": False, "prediction": None} | defaults
    with open_jobs(path, Defaults(**settings)) as jobs:
        return list(jobs)


def refusal(path, *lines, **defaults):
    with pytest.raises(UsageError) as error:
        read(path, *lines, **defaults)
    return str(error.value)


def test_every_sampling_parameter_can_be_said_in_a_line():
    assert set(PARAMETERS) == {field.name for field in dataclasses.fields(SamplingParams)}


def test_a_line_is_a_prompt_with_parameters_of_its_own(tmp_path):
    params = {
        "temperature": 1,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["x", "y"],
        "stop_token_ids": [3],
        "max_tokens": 9,
        "min_tokens": 2,
        "ignore_eos": True,
        "n": 2,
        "repetition_penalty": 1.5,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "logit_bias": {"5": -1, "6": 2.5},
        "bad_words": ["bad"],
        "log_probs": 3,
    }
    (job,) = read(tmp_path, {"prompt": "größe", "id": "a", "depth": 3, "prediction": "grüße", **params})
    asked = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    assert job.params == SamplingParams(**asked | {"logit_bias": {5: -1.0, 6: 2.5}})
    assert (job.prompt, job.id, job.depth, job.prediction) == ("größe", "a", 3, "grüße")


def test_what_a_line_leaves_open_is_as_the_options_say(tmp_path):
    defaults = {"params": SamplingParams(max_tokens=5, seed=3), "models": MODELS._replace(depth=2), "prediction": "x"}
    first, second = read(
        tmp_path, {"prompt": "a", "seed": None}, {"prompt": "b", "max_tokens": 6, "depth": 0}, **defaults
    )
    assert (first.params.seed, first.params.max_tokens, first.depth, first.prediction) == (3, 5, 2, "x")
    assert (second.params.seed, second.params.max_tokens, second.depth) == (3, 6, 0)


def test_prompts_come_as_text_as_conversations_or_as_tokens(tmp_path):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    lines = [{"prompt": "hi"}, {"messages": messages}, {"token_ids": [1, 2]}]
    plain, chat = (read(tmp_path, *lines, is_chat=is_chat) for is_chat in (False, True))
    assert [job.prompt for job in plain] == ["hi", Chat(tuple(messages)), (1, 2)]
    assert [job.prompt for job in chat] == [Chat(({"role": "user", "content": "hi"},)), Chat(tuple(messages)), (1, 2)]


def test_empty_lines_are_no_prompts_and_a_byte_order_mark_is_no_text(tmp_path):
    jobs = read(tmp_path, "\ufeff", '{"prompt": "a"}\r', "  ", {"prompt": "b"}, "")
    assert [(job.index, job.prompt, job.place.rpartition("/")[2]) for job in jobs] == [
        (0, "a", "jobs.jsonl line 2"),
        (1, "b", "jobs.jsonl line 4"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"not JSON \(.*column 2"),
        ("nonsense", "not JSON"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"seed": ' + "1" * 5000 + "}", "not JSON that can be read"),
        ("[1]", r"\[1\] is no object"),
        ('"text"', "is no object"),
        ('{"prompt": "a", "top_p": NaN}', "NaN is no number"),
        ('{"prompt": "a", "prompt": "b"}', "'prompt' is given twice"),
        ({}, "there is no prompt: give one of prompt, messages, token_ids"),
        ({"prompt": None}, "there is no prompt"),
        ({"prompt": "a", "token_ids": [1]}, "prompt and token_ids both give a prompt"),
        ({"prompt": "a", "messages": [], "token_ids": [1]}, "messages is"),
        ({"prompt": 5}, "prompt is 5, but must be a text"),
        ('{"prompt": "\\ud800"}', "prompt is .* but must be a text"),
        ({"token_ids": [1, True]}, "token_ids is .* but must be a list of whole numbers"),
        ({"token_ids": "12"}, "token_ids"),
        ({"messages": [{"role": "user"}]}, "messages is .* but must be a list of"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages"),
        ({"prompt": "a", "temprature": 1}, r"unknown name 'temprature': did you mean temperature\?"),
        ({"prompt": "a", "wings": 1}, "unknown name 'wings': known are prompt"),
        ({"prompt": "a", "temperature": "warm"}, "temperature is 'warm', but must be a number"),
        ({"prompt": "a", "temperature": True}, "temperature is True, but must be a number"),
        ({"prompt": "a", "temperature": 10**400}, "temperature is .* but must be a number"),
        ({"prompt": "a", "top_k": 1.5}, "top_k is 1.5, but must be a whole number"),
        ({"prompt": "a", "ignore_eos": 1}, "ignore_eos is 1, but must be true or false"),
        ({"prompt": "a", "stop": "x"}, "stop is 'x', but must be a list of texts"),
        ({"prompt": "a", "bad_words": [1]}, "bad_words"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias is .* but must be an object of token ids"),
        ({"prompt": "a", "logit_bias": {"1": "x"}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": [1]}, "logit_bias"),
        ({"prompt": "a", "depth": 65}, 'depth is 65, but must be "auto" or a whole number between 0 and 64'),
        ({"prompt": "a", "depth": "deep"}, "depth is 'deep'"),
        ({"prompt": "a", "depth": 0, "prediction": "b"}, "prediction .* depth is 0"),
        ({"prompt": "a", "id": [1]}, "id is .* but must be a text or a whole number"),
        ({"prompt": "a", "temperature": -1}, "temperature is -1"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens is 0"),
        ({"prompt": "a", "min_tokens": 200}, "min_tokens"),
        ({"prompt": "a", "n": 0}, "n is 0"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(tmp_path, line, said):
    message = refusal(tmp_path, {"prompt": "fine"}, "", line)
    assert message.startswith(f"{tmp_path / 'jobs.jsonl'} line 3")
    assert re.search(said, message)
    assert len(message) < 600


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (MODELS._replace(drafts=()), "depth 3 needs a drafter"),
        (MODELS._replace(drafts=(), depth=0, is_plain=True), "speculation is off and drafts nothing"),
    ],
)
def test_a_line_cannot_ask_for_drafts_that_nobody_makes(tmp_path, models, said):
    assert said in refusal(tmp_path, {"prompt": "a", "depth": 3}, models=models)
    assert read(tmp_path, {"prompt": "a", "depth": 0}, models=models)


@pytest.mark.parametrize("asked", [{"depth": "auto"}, {"prediction": "b"}, {"depth": "auto", "prediction": "b"}])
def test_without_speculation_a_line_that_asks_for_drafts_is_refused(tmp_path, asked):
    plain = MODELS._replace(drafts=(), depth=0, is_plain=True)
    message = refusal(tmp_path, {"prompt": "fine", "depth": 0}, {"prompt": "a", **asked}, models=plain)
    assert "jobs.jsonl line 2: " in message
    assert "speculation is off and drafts nothing" in message
    (job,) = read(tmp_path, {"prompt": "a", **asked})
    assert job.depth == "auto"


def test_a_file_without_prompts(tmp_path):
    assert "has no prompts" in refusal(tmp_path, "", " ")


def test_a_line_that_is_not_utf8(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "gr\xf6"}\n')
    with (
        pytest.raises(UsageError, match=r"latin.jsonl line 2 is not UTF-8 text \(byte 14 is 0xf6\)"),
        open_jobs(
            tmp_path / "latin.jsonl", Defaults(params=SamplingParams(), models=MODELS, is_chat=False, prediction=None)
        ),
    ):
        pass


def test_files_and_lines_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("outrider.cli.jobs.MAX_LINES", 2)
    assert len(read(tmp_path, {"prompt": "a"}, {"prompt": "b"})) == 2
    assert "more than 2 lines" in refusal(tmp_path, {"prompt": "a"}, "", {"prompt": "b"})
    monkeypatch.setattr("outrider.cli.jobs.MAX_LINE_BYTES", 20)
    assert "line 1 has more than 20 bytes" in refusal(tmp_path, {"prompt": "a" * 20})


def test_replacing_the_file_while_it_is_used_changes_nothing(tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"prompt": "old"}\n')
    defaults = Defaults(params=SamplingParams(), models=MODELS, is_chat=False, prediction=None)
    with open_jobs(path, defaults) as jobs:
        (tmp_path / "new").write_text("nonsense")
        (tmp_path / "new").replace(path)
        assert [job.prompt for job in jobs] == ["old"]
