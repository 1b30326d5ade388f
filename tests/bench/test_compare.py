"""Both sides write the same texts, of which only what proves something is measured; an interruption loses nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from outrider import LLM, EngineConfig, RuntimeOptions
from outrider.bench import compare as module
from outrider.bench.compare import BenchPlan, compare
from outrider.bench.groups import Interruption
from outrider.bench.workloads import Loop, Prompt, Workload
from outrider.errors import ContextError
from tests.cli.tiny import make_tiny

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    target, draft = make_tiny(root / "target", scale=2.0), make_tiny(root / "draft", seed=1, num_hidden_layers=1)
    config = EngineConfig(self_test=False, options=RuntimeOptions(num_threads=1), max_sequences=4)
    return LLM(target, draft=["suffix", draft], config=config)


def make_plan(**changes):
    prompts = tuple(Prompt(name, f"def {name}(self):\n", "    return self\n" * (name == "two")) for name in NAMES)
    workloads = (Workload("code", prompts, "0" * 64), Workload("prose", prompts[:1], "1" * 64))
    values = {"temperatures": (1.0,), "concurrencies": (1,), "depth": 3, "max_tokens": 24}
    return BenchPlan(workloads=workloads, **{**values, **changes})


def key(text):
    return text.workload, text.prompt.name, text.temperature


def test_every_text_is_written_on_both_sides_as_often_as_asked(llm):
    plan = make_plan(temperatures=(0.7, 1.0), num_runs=2)
    comparison = compare(llm, plan, Interruption())
    assert not comparison.is_partial
    assert len(comparison.texts) == len({key(text) for text in comparison.texts}) == 8
    measured = sorted(key(run.texts[0]) for run in comparison.runs)
    assert measured == sorted(2 * [key(text) for text in comparison.texts])
    for run in comparison.runs:
        plain, speculative = (run.written[side][0].generation for side in ("plain", "speculative"))
        assert plain.token_ids == speculative.token_ids == run.texts[0].token_ids
        assert plain.stats.num_drafted == 0
        assert run.seconds.keys() == {"plain", "speculative"}
    assert sum(run.written["speculative"][0].generation.stats.num_drafted for run in comparison.runs) > 0
    assert llm.engine.is_idle


def test_the_order_is_random_and_the_same_for_the_same_seed(llm, monkeypatch):
    orders = []
    write = module._Bench.write

    def noting(self, texts, side):
        orders[-1].append((side, key(texts[0])))
        return write(self, texts, side)

    monkeypatch.setattr(module._Bench, "write", noting)
    for seed in (0, 0, 1):
        orders.append([])
        compare(llm, make_plan(seed=seed, max_tokens=16, num_runs=3), Interruption())
    first, same, other = orders
    assert first == same
    sides = [[side for side, _ in order[-24:]] for order in (first, other)]
    assert sides[0] != sides[1]
    assert {tuple(pair) for pair in zip(sides[0][::2], sides[0][1::2], strict=True)} == {
        ("plain", "speculative"),
        ("speculative", "plain"),
    }


def test_so_many_are_written_at_once_as_was_asked(llm, monkeypatch):
    together = []
    step = llm.engine.step

    def noting():
        together.append(len(llm.engine._live))
        return step()

    monkeypatch.setattr(llm.engine, "step", noting)
    comparison = compare(llm, make_plan(concurrencies=(4, 3)), Interruption())
    groups = sorted(len(run.texts) for run in comparison.runs)
    assert groups == [3, 3, 4]  # four texts: the second group of three is filled up with one of the first
    assert max(together) == 4
    assert {text.prompt.name for run in comparison.runs for text in run.texts} == set(NAMES)


def test_only_the_speculative_side_gets_the_prediction(llm, monkeypatch):
    asked = []
    start = llm.start

    def noting(prompts, params, *, depth="auto", predictions):
        asked.append((depth, predictions))
        return start(prompts, params, depth=depth, predictions=predictions)

    monkeypatch.setattr(llm, "start", noting)
    compare(llm, make_plan(), Interruption())
    assert {depth for depth, predictions in asked if predictions is None} == {0}
    assert {depth for depth, predictions in asked if predictions is not None} == {3, "auto"}  # auto asks if it fits
    assert any(predictions and "return self" in predictions[0] for _, predictions in asked if predictions)


def test_texts_that_prove_nothing_are_named_and_loops_are_cut(llm):
    bench = module._Bench(llm, make_plan(), Interruption(), lambda: 0.0)
    text = compare(llm, make_plan(), Interruption()).texts[0]
    (written,) = bench.write([text], "plain")

    def judged(token_ids, prompt_token_ids=(1, 2, 3)):
        found = {"token_ids": tuple(token_ids), "prompt_token_ids": tuple(prompt_token_ids)}
        return bench._judge(text, replace(written, generation=replace(written.generation, **found)))

    whole = judged(range(40))
    assert (whole.fault, whole.loop, whole.params.max_tokens) == (None, None, 40)
    cut = judged([*range(20), *[7, 8] * 30])
    assert (cut.fault, cut.loop, cut.params.max_tokens) == (None, Loop(22, 2), 22)
    assert cut.token_ids == (*range(20), 7, 8)
    assert judged([7, 8] * 40).fault == "repeats 2 tokens from token 2 on"
    assert judged(range(15)).fault == "ends after 15 tokens"
    assert judged(range(40), range(0, 257, 2)).fault == "the prompt's tokens look randomly drawn"


def test_texts_that_prove_nothing_are_not_measured(llm, monkeypatch):
    monkeypatch.setattr(module, "MIN_TOKENS", 1000)
    comparison = compare(llm, make_plan(), Interruption())
    assert not comparison.runs
    assert all(text.fault == "ends after 24 tokens" for text in comparison.texts)


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_written(llm):
    long = Workload("mine.txt", (Prompt("long", "x" * 5000),), "0" * 64)
    with pytest.raises(ContextError, match=r"^mine\.txt, long: the prompt has 5000 tokens"):
        compare(llm, replace(make_plan(), workloads=(long,)), Interruption())
    assert llm.engine.is_idle


@pytest.mark.parametrize("num_steps", [0, 30, 130, 200])
def test_an_interruption_keeps_what_is_whole_and_leaves_the_engine_idle(llm, num_steps):
    asked = itertools.count()
    comparison = compare(llm, make_plan(), Interruption(is_wanted=lambda: next(asked) >= num_steps))
    assert comparison.is_partial
    assert (num_steps == 200) <= len(comparison.runs) < 4
    assert all(len(run.written) == 2 for run in comparison.runs)
    assert llm.engine.is_idle
    llm.engine.check()


def test_times_are_those_of_the_clock(llm):
    ticks = itertools.count()
    comparison = compare(llm, make_plan(), Interruption(), clock=lambda: float(next(ticks)))
    for run in comparison.runs:
        (written,) = run.written["plain"]
        num_tokens = len(written.generation.token_ids)
        # one look at the clock when it is asked, and one after each step; the first steps may be the prompt's
        assert written.gaps == (1.0,) * (num_tokens - 1)
        assert written.last_seconds - written.first_seconds == num_tokens - 1
        assert written.seconds_per_further_token == 1.0
        assert run.seconds["plain"] > written.last_seconds
