"""`outrider run` end to end: what goes where, and that speculation does not change it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.cli.tiny import comes_with_prompt, make_tiny

FEW = ("--max-tokens", 24)


def sequence_of(outcome):
    assert outcome.exit_code == 0, outcome.stderr
    (sequence,) = outcome.json["sequences"]
    return sequence


def test_stdout_is_the_text_and_nothing_else(outrider, tmp_path):
    outcome = outrider("run", "import os", *FEW, "--json", tmp_path / "run.json")
    (sequence,) = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["sequences"]
    assert outcome.exit_code == 0
    assert outcome.stdout == sequence["text"]
    assert len(sequence["token_ids"]) == 24
    memory, summary = outcome.stderr.splitlines()
    assert memory.startswith("outrider: memory: ")
    assert summary.startswith("outrider: 24 tokens (length), ")


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    "options", [(), ("--draft", "suffix", "--learn"), ("--depth", 7), ("--depth", "auto", "--speculation", "on")]
)
def test_text_is_that_of_plain_decoding(outrider, temperature, options):
    common = ("run", "x = x = x", *FEW, "--temperature", temperature, "--seed", 5, "--json", "-")
    on, off = sequence_of(outrider(*common, *options)), sequence_of(outrider(*common, "--speculation", "off"))
    assert on["token_ids"] == off["token_ids"]
    assert off["acceptance_length"] == 1
    assert off["acceptance_rate"] is None


def test_json_says_what_ran_and_how_it_went(outrider):
    document = outrider("run", "import os", *FEW, "--json", "-", "--seed", 3, "--depth", 4).json
    (sequence,) = document["sequences"]
    assert set(sequence["seconds"]) == {"draft", "target", "sample", "policy", "other"}
    num_decoded = 24 - comes_with_prompt(document)
    assert sequence["steps"] == pytest.approx(num_decoded / sequence["acceptance_length"])
    assert sequence["finish_reason"] == "length"
    assert sequence["seed"] == 3
    assert len(sequence["survival"]) == 4
    assert sequence["decode_tokens_per_second"] > 0
    assert sum(sequence["accepted_from"].values()) == num_decoded - sequence["steps"]
    assert (sequence["stream"], sequence["log_probs"], sequence["draft_fault"], sequence["num_preempted"]) == (
        *(0, None, None, 0),
    )
    assert document["memory"]
    assert document["provenance"]["hardware"]["num_usable_cores"] >= 1


@pytest.mark.parametrize("source", ["argument", "option", "file", "stdin"])
def test_prompt_is_taken_as_it_is_from_anywhere(outrider, tmp_path, source):
    prompt = "if größe:\r\n  "
    (tmp_path / "prompt.txt").write_bytes(prompt.encode())
    options = {"argument": [prompt], "option": ["--prompt", prompt], "file": ["--prompt-file", tmp_path / "prompt.txt"]}
    stdin = prompt.encode() if source == "stdin" else None
    sequence = sequence_of(outrider("run", *options.get(source, []), *FEW, "--json", "-", stdin=stdin))
    assert sequence["num_prompt_tokens"] == len(prompt.encode())


def test_stop_text_ends_the_text(outrider):
    whole = outrider("run", "import os", *FEW).stdout
    stopped = sequence_of(
        outrider("run", "import os", *FEW, "--stop", whole[8:10], "--stop", whole[5:7], "--json", "-")
    )
    assert stopped["text"] == whole[: whole.find(whole[5:7])]
    assert stopped["finish_reason"] == "stop"


def test_chat_goes_through_the_template(outrider, tmp_path):
    folder = make_tiny(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"
    )
    plain, chat = (
        sequence_of(outrider("run", "--target", folder, "hi", *FEW, *options, "--json", "-"))
        for options in ([], ["--chat"])
    )
    assert chat["num_prompt_tokens"] - plain["num_prompt_tokens"] == len("<user><answer>")


def test_same_seed_same_text_another_seed_another(outrider):
    def text(*options):
        return outrider("run", "import os", *FEW, "--temperature", 1, *options).stdout

    assert text("--seed", 1) == text("--seed", 1)
    assert text("--seed", 1) != text("--seed", 2)
    assert text() != text()


def test_several_texts_are_told_apart(outrider):
    options = ("import os", *FEW, "--temperature", 1, "--seed", 3, "--draft", "none")
    alone, together = (outrider("run", *options, *more) for more in ((), ("-n", 3)))
    texts = re.split(r"^--- text (\d) of 3 ---\n", together.stdout, flags=re.MULTILINE)
    assert texts[0::2][0] == ""
    assert texts[1::2] == ["1", "2", "3"]
    assert texts[2].removesuffix("\n") == alone.stdout
    assert len(set(texts[2::2])) == 3
    assert [line[:18] for line in together.stderr.splitlines()[1:]] == [f"outrider: text {n}: " for n in (1, 2, 3)]


def test_log_probs_are_in_the_json(outrider):
    options = ("--json", "-", "--log-probs", 2, "--temperature", 1, "--top-k", 2, "--seed", 1, "--draft", "none")
    sequence = sequence_of(outrider("run", "import os", *FEW, *options))
    assert [entry["token_id"] for entry in sequence["log_probs"]] == sequence["token_ids"]
    for entry in sequence["log_probs"]:
        assert entry["raw"] < entry["processed"] <= 0
        assert [len(entry[name]) for name in ("top_raw", "top_processed")] == [2, 2]
        assert entry["token_id"] in [other["token_id"] for other in entry["top_processed"]]
        assert all(set(other) == {"token_id", "text", "log_prob"} for other in entry["top_raw"])


def test_a_prediction_is_drafted_from_and_changes_nothing(outrider, tmp_path):
    only_abc = [part for token_id in (65, 66, 67) for part in ("--logit-bias", f"{token_id}=90")]  # so that it is text
    options = ("run", "import os", *FEW, "--temperature", 1, "--seed", 2, "--json", "-", "--draft", "none", *only_abc)
    plain = sequence_of(outrider(*options))
    (tmp_path / "prediction").write_text(plain["text"])
    predicted = sequence_of(outrider(*options, "--prediction", tmp_path / "prediction", "--depth", 4))
    assert set(plain["text"]) == {"a", "b", "c"}
    assert predicted["text"] == plain["text"]
    assert predicted["steps"] < plain["steps"]


def test_explain_says_it_in_words(outrider):
    outcome = outrider("run", "import os", *FEW, "--depth", 3, "--explain")
    lines = [line.removeprefix("outrider: ") for line in outcome.stderr.splitlines()]
    assert lines[0].startswith("memory: ")
    assert [
        line for line in lines if re.fullmatch(r"  target weights +[\d.]+ KiB  the checkpoint's own file, mapped", line)
    ]
    assert any(line.startswith("accepted ") for line in lines)
    assert any(line.startswith("time: ") for line in lines)


def start_long_run(target, cache, *options):
    """In a process of its own, which writes until it is stopped."""
    command = [sys.executable, "-m", "outrider", "run", "--target", target, "--max-tokens", "90000", "x", *options]
    environment = os.environ | {"OUTRIDER_CACHE": str(cache), "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def test_ctrl_c_keeps_what_there_is(tmp_path, cache, long_target):
    process = start_long_run(long_target, cache, "--json", tmp_path / "cancelled.json")
    first = process.stdout.read(40)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    (sequence,) = json.loads((tmp_path / "cancelled.json").read_text(encoding="utf-8"))["sequences"]
    assert process.returncode == 130
    assert (first + rest).decode() == sequence["text"]
    assert sequence["finish_reason"] == "cancelled"
    assert 0 < len(sequence["token_ids"]) < 90_000
    assert [line.split()[1] for line in errors.decode().splitlines()] == ["memory:", str(len(sequence["token_ids"]))]


def test_a_closed_pipe_ends_the_run_quietly(cache, long_target):
    process = start_long_run(long_target, cache)
    process.stdout.read(1)
    process.stdout.close()
    assert [line.split()[1] for line in process.stderr.read().decode().splitlines()] == ["memory:"]
    assert process.wait() == 1


def test_block_verification_is_distribution_exact_and_repeatable_and_plain_where_nothing_is_drafted(outrider):
    common = ("run", "x = x = x", *FEW, "--seed", 5, "--json", "-", "--log-probs", 1)
    sampled = (*common, "--temperature", 1, "--depth", 4)
    document = outrider(*sampled, "--verify", "block").json
    (block,) = document["sequences"]
    assert (block["exactness"], document["engine"]["verification"]) == ("distribution", "block")
    assert document["engine"]["exactness"] == "distribution"
    assert len(block["log_probs"]) == 24
    assert len(sequence_of(outrider(*common, "--temperature", 1, "--verify", "block"))["token_ids"]) == 24
    assert sequence_of(outrider(*sampled, "--verify", "block"))["token_ids"] == block["token_ids"]
    coupled = sequence_of(outrider(*sampled))
    assert coupled["token_ids"] != block["token_ids"]
    off = sequence_of(outrider(*common, "--temperature", 1, "--speculation", "off", "--verify", "block"))
    assert (off["token_ids"], off["exactness"]) == (coupled["token_ids"], coupled["exactness"])
    greedy = [sequence_of(outrider(*common, "--depth", 4, "--verify", rule)) for rule in ("block", "coupled")]
    assert greedy[0]["token_ids"] == greedy[1]["token_ids"]
    assert greedy[0]["exactness"] == greedy[1]["exactness"] != "distribution"


@pytest.mark.parametrize("verb", ["run", "bench"])
def test_an_unknown_rule_of_verification_is_refused(outrider, verb):
    error = outrider(verb, "--verify", "ratio").error
    assert "'ratio' is not one of 'coupled', 'block'" in error
