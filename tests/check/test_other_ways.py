"""Trees and block verification stand beside chains, and are a next step where they are surely faster."""

from __future__ import annotations

import pytest

from outrider import EngineConfig, SamplingParams
from outrider.check.budget import Budget
from outrider.check.other_ways import beside_chains, best_of, in_words, next_step, not_predicted
from outrider.check.prediction import choose, prediction_item
from outrider.check.stand import Stand
from outrider.check.texts import Texts, Watch
from outrider.check.verdict import decide
from outrider.predict.agreement import KnownText
from outrider.predict.costs import Timing
from outrider.predict.prediction import Leavings
from outrider.predict.trace import Way
from tests.check.test_verdict import evidence, predicted
from tests.cli.tiny import make_tiny

TREES, BLOCK = Way(max_children=2), Way(rule="block")
SURE = Leavings((0.1, -0.1, 0.05), (0.01, -0.01, 0.0), "chains")


def other(speedup, way, **setting):
    return predicted(speedup, leavings=SURE._replace(timed_with="others"), way=way, **setting)


def others(*found, chains=(1.5,)):
    predictions = [predicted(each, depth=depth, leavings=SURE) for depth, each in enumerate(chains, 3)]
    return beside_chains(found, predictions), predictions


def test_each_is_held_against_the_best_chains_of_its_drafter():
    (trees,), _ = others(other(1.65, TREES, depth=8), other(9.0, TREES, drafter="large"), chains=(1.2, 1.5, 1.4))
    assert trees.chain.depth == 4
    assert trees.gain.value == pytest.approx(1.1)
    assert 1.0 < trees.gain.low < 1.1
    row = trees.as_dict()
    assert (row["max_children"], row["rule"], row["depth"], row["over_chains"]["depth"]) == (2, "coupled", 8, 4)
    assert row["break_even"] == 0.63


def test_the_item_has_the_best_of_each_way():
    found, predictions = others(other(1.4, TREES), other(1.65, TREES, depth=8), other(1.8, BLOCK, depth=8))
    said = [in_words(each) for each in best_of(found)]
    assert len(said) == 2
    item = prediction_item(choose(predictions), predictions, said)
    assert "trees of 8 nodes with up to 2 guesses at a place, at T = 0: 1.65x" in item.value
    assert "agrees on 40 % of first guesses, break-even 63 %" in item.value
    assert "block verification at depth 8, at T = 0: 1.80x" in item.value
    assert "1.20x" in said[1]


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        (TREES, ["max_children = 2 and depth = 8 under [policy]", "borrowed"]),
        (BLOCK, ['rule = "block" under [verification] and depth = 8 under [policy]', "another text"]),
    ],
)
def test_what_is_surely_faster_is_a_next_step(way, changes):
    found, predictions = others(other(1.4, TREES), other(1.8, way, depth=8))
    verdict = decide(evidence(predictions, others=found))
    step = verdict.next_steps[1]
    assert "outrider bench --recipe recipe.toml" in step.do
    assert changes[0] in step.do
    assert changes[1] in step.might_be_wrong
    assert (verdict.drafter, verdict.depth) == ("small", 3)  # and is not recommended before it was measured


def test_what_may_be_no_faster_is_none():
    found, predictions = others(other(1.52, TREES, depth=8))
    assert next_step(found, "small") is None
    assert "outrider run --explain" in decide(evidence(predictions, others=found)).next_steps[1].do
    sure, _ = others(other(1.8, TREES, depth=8))
    assert next_step(sure, "small") is not None
    assert next_step(sure, "suffix") is None


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    target = make_tiny(root / "target", scale=2.0)
    draft = make_tiny(root / "draft", scale=2.0, num_hidden_layers=1)
    return Stand.load(target, draft, EngineConfig(self_test=False, max_sequences=8))


def known(llm, temperature, seed):
    params = SamplingParams(temperature=temperature, seed=seed, max_tokens=60, ignore_eos=True)
    (plain,) = llm.generate(f"def read{seed}(path):\n    return", params, depth=0)
    return KnownText(f"line {seed}", "all", params, plain.prompt_token_ids, plain.token_ids)


def test_steps_are_timed_in_the_ways_that_are_predicted(stand, monkeypatch):
    """At temperature 0 both rules are one; what a step did shows in its engine while it runs."""
    texts = Texts([known(stand.llm, temperature, seed) for temperature in (0.0, 1.0) for seed in range(3)])
    stand.trace(texts, Budget(600), Watch())
    engine, seen = stand.llm.engine, set()
    step = engine.step

    def watched():
        (sequence,) = engine.scheduler.running or engine.scheduler.waiting
        rule = engine.parts.verifier.name if sequence.request.depth else "plain"
        seen.add((sequence.request.params.temperature, sequence.request.depth, sequence.request.max_children, rule))
        return step()

    monkeypatch.setattr(engine, "step", watched)
    stand.time_other_ways(texts, 1, Budget(600), Watch())
    trees = {(temperature, size, 2, "coupled") for temperature in (0.0, 1.0) for size in (4, 8)}
    block = {(1.0, depth, 1, "block") for depth in (2, 4, 8)}
    assert seen == {(0.0, 0, 1, "plain"), (1.0, 0, 1, "plain")} | trees | block
    assert engine.parts.verifier.name == "coupled"
    assert not engine.drafter.draws_in_order
    found = stand.other_predictions(1)
    for drafter in ("draft", "suffix + draft"):
        settings = {(each.temperature, each.depth, *each.way) for each in found if each.drafter == drafter}
        assert settings == trees | block
    assert {each.drafter for each in found} == {"draft", "suffix + draft"}
    for each in found:
        assert 0 < each.speedup.low < each.speedup.value < each.speedup.high
        assert 1 <= each.tokens_per_step <= each.depth + 1
        assert each.seconds["draft"] > 0
    engine.check()


def test_auto_asks_the_drafters_that_are_used(stand):
    """What a policy asks of another set of drafters nobody would draft."""
    engine = stand.llm.engine
    for members in (*stand.candidates.values(), None):
        stand.use(members)
        assert tuple(source.name for source in engine.scheduler.policy._sources) == engine.drafter.sources
        policy = engine.scheduler.policy
        assert policy is engine.parts.policy
        stand.use()
        assert engine.parts.policy is stand.llm.policy
        stand.use(members)
        assert engine.parts.policy is policy  # and has not forgotten what it learned
    stand.use(stand.candidates["draft"], "block")
    assert engine.parts.policy is not policy
    stand.use(stand.candidates["suffix"])
    params = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    (found,) = stand.llm.generate("def read(path):\n    return read(path)\n" * 3, params)
    stand.use()
    assert found.stats.num_drafted > 0


def test_drafters_of_one_name_are_told_apart(stand):
    (draft,) = stand.candidates["draft"]
    other = draft.drawing()
    for member in (draft, other, draft):
        stand.use([member])
        assert stand.llm.engine.parts.drafter.members == (member,)
    stand.use()


def test_what_a_change_of_rows_takes_is_that_of_the_machine_as_it_is_now(stand, monkeypatch):
    costs = stand.llm.policy.costs
    monkeypatch.setattr(costs, "change_seconds", 0.002)
    usual = costs.target(costs.computed_rows([1]))
    timing = Timing(
        round=0, is_greedy=True, num_sequences=1, depth=0, num_rows=1, draft=0.0, target=3 * usual, other=0.0
    )
    monkeypatch.setattr(stand, "timings", [])
    assert stand.filling.change_seconds == pytest.approx(0.002)
    monkeypatch.setattr(stand, "timings", [timing])
    assert stand.filling.change_seconds == pytest.approx(0.006)


def test_a_prediction_stays_at_many_rows_as_long_as_the_runtime_does(stand, monkeypatch):
    monkeypatch.setattr(stand.llm.target._ladder, "patience", 64.0)
    many = stand.filling.computed(9)
    for _ in range(2):  # each walk begins as if there had been none
        walk = stand.filling.in_turn()
        assert [walk(num_rows) for num_rows in (1, 9, 1)] == [stand.filling.computed(1), many, many]


def test_drafters_are_not_exchanged_while_texts_are_written(stand):
    (sequence,) = stand.llm.start("def read(path):", SamplingParams(max_tokens=5))
    with pytest.raises(AssertionError, match="being written"):
        stand.use(stand.candidates["suffix"])
    stand.llm.engine.cancel(sequence.request.request_id)


def test_where_there_is_no_time_nothing_is_timed(stand):
    num_timings = {way: len(timings) for way, timings in stand.other_timings.items()}
    stand.time_other_ways(Texts([known(stand.llm, 1.0, 0)]), 1, Budget(-1.0), Watch())
    assert {way: len(timings) for way, timings in stand.other_timings.items()} == num_timings


@pytest.mark.parametrize("has_model", [True, False])
def test_what_is_not_predicted_says_why_and_how_to_measure_it(has_model):
    for each in not_predicted(has_model=has_model):
        assert each.keys() == {"what", "why", "measure"}
        assert all(each.values())
