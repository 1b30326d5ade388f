"""What trees and block verification would have kept of known texts is what they keep."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from outrider import LLM, EngineConfig, SamplingParams
from outrider.predict.agreement import KnownText, Teacher, model_trace
from outrider.predict.prediction import break_even, break_even_of_tree
from outrider.predict.trace import Offer, Root, Trace, Way, walk
from outrider.predict.walks import NUM_DRAWN, is_known, len_of_path, num_kept, num_kept_at_once, walks_of
from tests.cli.tiny import make_tiny

TREES, BLOCK = Way(max_children=2), Way(rule="block")
VOCAB_SIZE, LENGTH, NUM_CHANCES = 3, 3, 400
TEXTS = [*itertools.product(range(VOCAB_SIZE), repeat=LENGTH)]
SURE, DOUBTFUL = (2.0, -2.0), (0.1, -0.1)


def model_of(generator):
    """[next token] after each beginning of a text."""

    def distribution():
        weights = [generator.random() ** 2 for _ in range(VOCAB_SIZE)]
        return [weight / sum(weights) for weight in weights]

    return {text[:length]: distribution() for text in TEXTS for length in range(LENGTH)}


def factors(model, text):
    return [model[text[:place]][token] for place, token in enumerate(text)]


def weight(target, draft, text):
    """Of the last token of a drawn chain, as block verification defines it."""
    found = 1.0
    for wanted, drawn in zip(factors(target, text), factors(draft, text), strict=True):
        found = min(1.0, found * wanted / drawn)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_of_the_targets_texts_is_kept_what_block_verification_keeps_of_the_drafts(seed, depth):
    generator = random.Random(seed)
    target, draft = model_of(generator), model_of(generator)
    beginnings = {text[:depth] for text in TEXTS}
    kept = sum(math.prod(factors(draft, text)) * weight(target, draft, text) for text in beginnings)
    chances = [(number + 0.5) / NUM_CHANCES for number in range(NUM_CHANCES)]
    found = 0.0
    for text in TEXTS:
        pairs = zip(factors(draft, text), factors(target, text), strict=True)
        odds = [math.log(drawn / wanted) for drawn, wanted in pairs]
        share = sum(num_kept(odds, chance) >= depth for chance in chances) / NUM_CHANCES
        found += math.prod(factors(target, text)) * share
    assert found == pytest.approx(kept, abs=2 / NUM_CHANCES)


def trace(odds=(), offers=(), num_tokens=None):
    count = num_tokens or len(odds) or len(offers)
    runs = [int(offer.rank == 0) for offer in offers] or [0] * count
    return Trace(
        prompt="a", category="c", temperature=1.0, num_prompt_tokens=1, odds=tuple(odds), offers=tuple(offers),
        roots=tuple(Root(8, run, is_modelled=True) for run in runs),
    )  # fmt: skip


def test_what_a_draft_likes_as_well_as_the_target_is_always_kept():
    walks = walks_of(trace([0.0] * 60), 4, BLOCK)
    assert len(walks) == NUM_DRAWN
    assert {each.num_steps for each in walks} == {12}


def test_what_a_draft_cannot_say_is_never_kept():
    assert {each.num_steps for each in walks_of(trace([-50.0] * 60), 4, BLOCK)} == {60}


def test_first_guesses_are_kept_as_often_as_expected():
    found = trace([math.log(0.5)] * 6000)
    assert num_kept_at_once(found, BLOCK) == pytest.approx(3000)
    assert num_kept_at_once(trace([math.log(0.25), math.log(4.0)]), BLOCK) == pytest.approx(1.25)
    steps = sum(each.num_steps for each in walks_of(found, 1, BLOCK)) / NUM_DRAWN
    assert 6000 / steps == pytest.approx(1.5, abs=0.05)


def test_a_second_guess_saves_a_step_where_the_first_is_wrong():
    offers = [Offer(DOUBTFUL, 1), Offer(SURE, 0)] * 30
    chains, trees = (walks_of(trace(offers=offers), 4, way)[0] for way in (Way(), TREES))
    assert chains.num_steps == 31
    assert trees.num_steps <= 24
    assert trees.steps[0].num_drafted == 4


def test_a_tree_has_room_for_the_surest_only():
    offers = [Offer(SURE, 1), Offer(SURE, 0), Offer(SURE, 0)]
    lengths = [len_of_path(offers, 0, num_nodes, random.Random(0)) for num_nodes in (1, 2, 3, 6)]
    assert lengths == sorted(lengths)
    assert lengths[:2] == [0, 0]  # the first guess goes on for long before the second has its turn


def test_a_tree_of_one_child_is_a_chain():
    offers = [Offer(SURE, rank) for rank in (0, 0, 1, 0, None, 0, 0, 0)]
    for place in range(len(offers)):
        alone = [offer._replace(scores=offer.scores[:1]) for offer in offers]
        run = len([*itertools.takewhile(lambda offer: offer.rank == 0, offers[place : place + 4])])
        assert len_of_path(alone, place, 4, random.Random(0)) == run


def test_what_was_not_looked_at_is_not_known():
    assert is_known(trace([0.0]), BLOCK)
    assert not is_known(trace(offers=[Offer(SURE, 0)]), BLOCK)
    assert is_known(trace(offers=[Offer(SURE, 0)]), TREES)
    assert not is_known(trace([0.0]), TREES)
    assert not is_known(trace([0.0], [Offer(SURE, 0)]), Way(2, "block"))


def test_break_even_of_a_chain_is_nearly_that_of_a_tree_which_is_one():
    survival = [0.7**depth for depth in range(1, 5)]
    assert break_even_of_tree(survival, 0.7, 1.5) == pytest.approx(break_even(4, 1.5), abs=1e-6)
    assert break_even_of_tree(survival, 0.7, 5.1) is None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    target = make_tiny(root / "target", scale=2.0)
    return target, make_tiny(root / "draft", scale=2.0, num_hidden_layers=1)


def known_texts(llm, temperature, count):
    params = [
        SamplingParams(temperature=temperature, seed=seed, max_tokens=150, ignore_eos=True) for seed in range(count)
    ]
    prompt = "def read(path):\n    return read(path)\n"
    written = llm.generate([prompt] * count, params, depth=0)
    return [
        KnownText("one", "c", each, text.prompt_token_ids, text.token_ids)
        for each, text in zip(params, written, strict=True)
    ]


def traces_of(llm, texts):
    (drafter,), target = llm.drafter.members[-1:], Teacher(llm.target, llm.engine.pool)
    draft = Teacher(drafter.runtime, drafter.pool)
    max_context = drafter.runtime.config.max_context
    return [model_trace(draft, target, text, drafter.vocab_size, max_context) for text in texts]


def num_steps(llm, texts, depth):
    params = [text.params for text in texts]
    written = llm.generate([text.prompt_token_ids for text in texts], params, depth=depth)
    return sum(each.stats.num_steps for each in written), written


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("num_nodes", [4, 8])
def test_trees_take_about_the_steps_that_an_engine_takes(folders, temperature, num_nodes):
    target, draft = folders
    llm = LLM(target, draft=draft, config=EngineConfig(self_test=False, max_children=2))
    texts = known_texts(llm, temperature, 4)
    steps, written = num_steps(llm, texts, num_nodes)
    assert [each.token_ids for each in written] == [text.token_ids for text in texts]
    found = [walks_of(each, num_nodes, TREES)[0] for each in traces_of(llm, texts)]
    assert sum(each.num_steps for each in found) == pytest.approx(steps, rel=0.08)


@pytest.mark.parametrize("depth", [2, 8])
def test_block_verification_takes_about_the_steps_that_an_engine_takes(folders, depth):
    target, draft = folders
    llm = LLM(target, draft=draft, config=EngineConfig(self_test=False, verify="block"))
    texts = known_texts(llm, 1.0, 16)
    steps, _ = num_steps(llm, texts, depth)
    traces = traces_of(llm, texts)
    found = sum(each.num_steps for trace in traces for each in walks_of(trace, depth, BLOCK)) / NUM_DRAWN
    assert found == pytest.approx(steps, rel=0.08)
    assert found < sum(walk(trace, depth).num_steps for trace in traces)
