"""`outrider demo`: every claim measured, every text the same, and readable on any terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from outrider import LLM, Delta, EngineConfig, SamplingParams
from outrider.cli.demo_claims import Run, num_differing, speedup, token_log_probs
from outrider.cli.demo_drafters import randomise_weights
from outrider.cli.demo_race import Lane, Step, frame, show_race, steps_table
from outrider.cli.demo_show import _refuse_differences
from outrider.errors import NumericsError
from outrider.stats import SequenceStats


@pytest.fixture(scope="module")
def lane():
    deltas = [
        Delta(request_id=0, token_ids=(1, 2, 3), pieces=("    return", " self", ".path\n"), num_accepted=2),
        Delta(request_id=0, token_ids=(4,), pieces=("\x1b[2Jdone",), rejected_token_ids=(5, 6)),
        Delta(request_id=0, token_ids=(7, 8), pieces=(" one", " two"), num_accepted=1, finish_reason="length"),
    ]
    rejected = [(), ("wrong", "er"), ()]
    steps = [Step(*values) for values in zip((1.0, 2.0, 3.0), deltas, rejected, strict=True)]
    return Lane("speculative", "def f(self):\n", steps)


def rendered(renderable, **options):
    console = Console(file=io.StringIO(), **options)
    console.print(renderable(console) if callable(renderable) else renderable)
    return console.file.getvalue()


def test_demo_measures_every_claim_and_all_texts_are_the_same(outrider):
    outcome = outrider("demo", "--quick", "--json", "-")
    assert outcome.exit_code == 0
    document = outcome.json
    holds = {claim["name"]: claim["holds"] for claim in document["claims"]}
    assert len(holds) == 7
    assert all(holds[name] for name in ("same text, greedy", "same text, T = 1", "same quality"))
    assert all(words in outcome.stderr for words in ("plain", "speculative", "rejected", *holds))
    assert {run["drafter"] for run in document["runs"]} == {"none", "draft model", "suffix", "random weights"}
    plain, speculative = document["race"]
    assert plain["token_ids"] == speculative["token_ids"]


@pytest.mark.parametrize("width", [20, 60, 80, 140])
def test_a_frame_fits_any_terminal(lane, width):
    text = rendered(lambda console: frame(console, [lane, lane], 2.0), width=width, height=24)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24
    assert any(line.count("speculative") == (2 if width == 140 else 1) for line in lines)


def test_rejected_tokens_are_shown_when_they_are_rejected_and_are_no_part_of_the_text(lane):
    def at(now):
        return rendered(lambda console: frame(console, [lane], now), width=80)

    assert "wronger" not in at(1.5)
    assert "wronger" in at(2.5)
    assert "wronger" not in at(3.0)
    assert "6 tokens in 3.00 s, 2 tokens/s" in at(9.0)


def test_what_a_model_writes_cannot_command_the_terminal(lane):
    assert "\x1b" not in rendered(lambda console: frame(console, [lane], 3.0), width=80)


@pytest.mark.parametrize("no_color", [True, False])
def test_styles_say_it_without_colour(lane, no_color):
    text = rendered(
        lambda console: frame(console, [lane], 2.5),
        width=80,
        force_terminal=True,
        color_system="256",
        no_color=no_color,
    )
    assert "\x1b[4m" in text or "\x1b[4;" in text  # underlined
    assert "9m" in text  # struck through
    assert (";5;" in text) != no_color


def test_steps_say_it_without_styles(lane):
    row = next(line for line in rendered(steps_table(lane), width=80).splitlines() if "wrong" in line)
    accepted, rejected, own = (cell.strip() for cell in row.strip("│").split("│"))
    assert (accepted, rejected) == ("", "wrong er")
    assert own.endswith("done")


def test_without_a_terminal_the_race_is_printed_once(lane):
    console = Console(file=io.StringIO(), width=80)
    show_race(console, [lane, lane], seconds=100)
    assert console.file.getvalue().count("return self.path") == 2


def make_run(drafter, token_ids, *, prompt="p", seconds=1.0):
    stats = SequenceStats(num_emitted=len(token_ids))
    stats.add_seconds({"target": seconds})
    return Run(prompt, 0.0, drafter, SimpleNamespace(token_ids=token_ids, stats=stats))


def test_a_text_that_differs_is_counted_and_refused_where_bits_are_promised(lane):
    runs = [make_run("none", (1, 2)), make_run("suffix", (1, 2)), make_run("draft model", (1, 3))]
    assert num_differing(runs) == 1
    for exactness in ("bitwise", "seed"):
        contest = SimpleNamespace(llm=SimpleNamespace(target=SimpleNamespace(exactness=exactness)))
        _refuse_differences(contest, [lane, lane], runs[:2])
        if exactness == "bitwise":
            with pytest.raises(NumericsError, match="1 texts differ"):
                _refuse_differences(contest, [lane, lane], runs)
        else:
            _refuse_differences(contest, [lane, lane], runs)


def test_speedup_is_the_median_over_prompts():
    runs = [
        make_run(drafter, (1,) * 10, prompt=prompt, seconds=seconds)
        for prompt, plain, speculative in (("a", 4, 2), ("b", 9, 3), ("c", 8, 1))
        for drafter, seconds in (("none", plain), ("suffix", speculative))
    ]
    assert speedup(runs, "suffix", 0.0).median == 3


def test_random_weights_are_finite_and_the_rest_of_the_file_stays(tiny_pair, tmp_path):
    source, copy = tiny_pair.draft / "model.safetensors", tmp_path / "model.safetensors"
    before = source.read_bytes()
    copy.write_bytes(before)
    randomise_weights(copy)
    after, start = copy.read_bytes(), 8 + int.from_bytes(before[:8], "little")
    assert after[:start] == before[:start]
    assert len(after) == len(before)
    weights = (np.frombuffer(after[start:], np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert 0.01 < weights.std() < 0.03


def test_the_target_finds_its_own_greedy_tokens_likeliest(tiny_pair):
    llm = LLM(tiny_pair.target, config=EngineConfig(self_test=False))
    generation = llm.generate("import os", SamplingParams(max_tokens=12))[0]
    scores = token_log_probs(llm, generation)
    assert len(scores) == 12
    assert max(scores) <= 0
    for other in (1, 100, 200):
        if other != generation.token_ids[-1]:
            changed = SimpleNamespace(
                prompt_token_ids=generation.prompt_token_ids, token_ids=(*generation.token_ids[:-1], other)
            )
            assert token_log_probs(llm, changed)[-1] <= scores[-1]
    llm.engine.check()
