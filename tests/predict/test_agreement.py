"""What is counted on known texts is what an engine does when it really speculates."""

from __future__ import annotations

import pytest

from outrider import LLM, EngineConfig, SamplingParams, noise
from outrider.predict import calibrate
from outrider.predict.agreement import KnownText, Teacher, cascade_trace, model_trace, suffix_trace
from outrider.predict.calibrate import InterruptedTimingError, Setting, time_round
from outrider.predict.trace import walk
from tests.cli.tiny import make_tiny

PROMPT = "def read(path):\n    return read(path)\n"


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    target = make_tiny(root / "target", scale=2.0)
    # The same but for its last layer: agrees often, not always.
    draft = make_tiny(root / "draft", scale=2.0, num_hidden_layers=1)
    return LLM(target, draft=["suffix", draft], config=EngineConfig(self_test=False))


def known(llm, temperature, seed=3):
    params = SamplingParams(temperature=temperature, seed=seed, max_tokens=150, ignore_eos=True)
    (plain,) = llm.generate(PROMPT, params, depth=0)
    return KnownText("one", "c", params, plain.prompt_token_ids, plain.token_ids)


def traced(llm, text):
    drafter = llm.drafter.members[-1]
    teacher = Teacher(drafter.runtime, drafter.pool)
    target = Teacher(llm.target, llm.engine.pool)
    suffix, is_sure = suffix_trace(text)
    model = model_trace(teacher, target, text, drafter.vocab_size, drafter.runtime.config.max_context)
    return {"model": model, "suffix": suffix, "cascade": cascade_trace(suffix, is_sure, model, text)}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("name", ["suffix", "model", "cascade"])
def test_a_walk_takes_the_steps_that_the_engine_takes(llm, monkeypatch, temperature, depth, name):
    text = known(llm, temperature)
    found = walk(traced(llm, text)[name], depth)
    members = {"suffix": llm.drafter.members[1:2], "model": llm.drafter.members[2:], "cascade": llm.drafter.members}
    monkeypatch.setattr(llm.engine, "drafter", llm.engine.guard.around(type(llm.drafter)(members[name])))
    (real,) = llm.generate(PROMPT, text.params, depth=depth)
    assert real.token_ids == text.token_ids
    # A draft model's rows may round otherwise alone than in a timing: a near-tie is a step.
    slack = 0 if name == "suffix" else 3
    assert abs(found.num_steps - real.stats.num_steps) <= slack
    assert abs(sum(found.accepted_at) - real.stats.num_accepted) <= slack


def test_a_model_agrees_with_itself_and_overlaps_wholly(llm):
    text = known(llm, 1.0)
    target = Teacher(llm.target, llm.engine.pool)
    trace = model_trace(target, Teacher(llm.target, llm.engine.pool), text, 257, 4096)
    assert trace.num_agreed == len(text.token_ids)
    assert trace.overlap == pytest.approx(1.0)
    llm.engine.check()


def test_beyond_a_drafts_context_there_are_no_guesses(llm):
    text = known(llm, 1.0)
    begin = len(text.prompt_token_ids)
    drafter = llm.drafter.members[-1]
    trace = model_trace(Teacher(drafter.runtime, drafter.pool), None, text, 257, begin + 20)
    assert [root.num_drafted for root in trace.roots[15:25]] == [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]
    assert len(trace.roots) == len(text.token_ids)


def test_blocks_are_timed_for_every_setting_and_leave_the_engine_idle(llm):
    texts = [known(llm, 0.0)]
    settings = [Setting(0.0, num_sequences, depth) for num_sequences in (1, 2) for depth in (0, 2)]
    timings = time_round(llm, texts, settings, 0, lambda: False)
    assert {(each.num_sequences, each.depth) for each in timings} == {(1, 0), (1, 2), (2, 0), (2, 2)}
    assert {each.num_rows for each in timings} == {1, 3, 2, 6}
    assert [each.num_rows for each in timings] == [1, 1, 2, 3, 6]  # what all are held against comes twice
    assert all(each.target > 0 for each in timings)
    assert all((each.draft > timings[0].other / 100) == (each.depth > 0) or each.depth == 0 for each in timings)
    assert llm.engine.is_idle


def test_steps_are_timed_all_over_the_texts_by_those_who_follow_one_another(llm, monkeypatch):
    # Attention to what was written costs, so steps near the prompt are cheaper than those near the end.
    texts = [known(llm, 0.0, seed)._replace(prompt=str(seed)) for seed in range(4)]
    begun = []
    start = llm.start
    monkeypatch.setattr(
        llm, "start", lambda prompts, *rest, **named: begun.append(prompts) or start(prompts, *rest, **named)
    )
    for number in range(4):
        time_round(llm, texts, [Setting(0.0, 2, 1)], number, lambda: False)
    num_prompt, num_all = len(texts[0].prompt_token_ids), len(texts[0].token_ids)
    places = [(len(prompts[0]) - num_prompt) / num_all for prompts in begun[::2]]
    assert min(places) < 0.2
    assert max(places) > 0.6
    assert all(prompts[0] == (*texts[0].prompt_token_ids, *texts[0].token_ids)[: len(prompts[0])] for prompts in begun)


def test_the_last_of_several_texts_joins_when_the_others_are_under_way(llm, monkeypatch):
    # Texts that are served join one by one, and each time all others wait: together it would be for once.
    texts = [known(llm, 0.0, seed)._replace(prompt=str(seed)) for seed in range(3)]
    begun, running = [], []
    start = llm.start

    def starting(prompts, *rest, **named):
        begun.append([len(prompts), [each.num_output_tokens > 0 for each in running]])
        running.extend(found := start(prompts, *rest, **named))
        return found

    monkeypatch.setattr(llm, "start", starting)
    time_round(llm, texts, [Setting(0.0, 3, 1)], 0, lambda: False)
    assert begun[0] == [2, []]
    assert begun[1] == [1, [True, True]]


def test_no_setting_finds_the_noise_that_another_made_for_the_same_texts(llm, monkeypatch):
    texts, made, members = [known(llm, 1.0)], [], noise._members
    monkeypatch.setattr(noise, "_members", lambda key, *rest: made.append(key) or members(key, *rest))
    time_round(llm, texts, [Setting(1.0, 1, 0), Setting(1.0, 1, 2)], 0, lambda: False)
    # Plain decoding once for nothing and twice timed, and drafts: each makes the rows of the same positions.
    assert min(map(made.count, made[:8])) >= 4


@pytest.mark.parametrize(("enough", "num_steps"), [(0.0, 2), (60.0, 8)])
def test_of_slow_steps_fewer_are_timed_in_a_row(llm, monkeypatch, enough, num_steps):
    monkeypatch.setattr(calibrate, "ENOUGH_SECONDS", enough)
    timings = time_round(llm, [known(llm, 0.0)], [Setting(0.0, 1, 0), Setting(0.0, 1, 1)], 0, lambda: False)
    assert {each.num_steps for each in timings} == {num_steps}


def test_timing_that_is_interrupted_leaves_the_engine_idle(llm):
    with pytest.raises(InterruptedTimingError):
        time_round(llm, [known(llm, 0.0)], [Setting(0.0, 1, 2)], 0, lambda: True)
    assert llm.engine.is_idle
