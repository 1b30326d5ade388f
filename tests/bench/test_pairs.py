"""A pair is made whole or not at all, says what it is, and its draft agrees about as often as was asked."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from types import SimpleNamespace

import pytest

from outrider import LLM, EngineConfig, SamplingParams, bundled_pair
from outrider.bench import pairs
from outrider.bench.embedding import Embedding, Shape
from outrider.bench.pairs import SIZES, PairPlan, find_damping, make_pair
from outrider.demo import BundledPair
from outrider.errors import ParameterError, UsageError
from outrider.model.config import read_config
from outrider.model.weights import expected_shapes
from tests.cli.tiny import make_tiny

SHAPE = Shape(hidden_size=64, intermediate_size=96, num_layers=6, num_heads=4, num_kv_heads=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    pair = BundledPair(target=make_tiny(root / "target", num_hidden_layers=4, scale=2.0), draft=root / "draft")
    (pair.target / "generation_config.json").write_text("{}")
    (root / "LICENSE").write_text("as is")
    return pair


@pytest.fixture
def few_prompts(monkeypatch):
    monkeypatch.setattr(pairs, "MAX_TRIALS", 3)
    read = pairs.read_workloads
    monkeypatch.setattr(
        pairs, "read_workloads", lambda names: [each._replace(prompts=each.prompts[:1]) for each in read(names)[:2]]
    )


def test_a_pair_is_made_whole_says_what_it_is_and_fits(source, few_prompts, tmp_path):
    said = []
    document = make_pair(source, tmp_path / "pair", PairPlan(shape=SHAPE, agreement=0.9, num_threads=1), said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]
    assert json.loads((tmp_path / "pair/pair.json").read_text()) == json.loads(json.dumps(document))
    for name, facts in document["files"].items():
        data = (tmp_path / "pair" / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["bytes"], facts["sha256"])
    assert {"target/model.safetensors", "draft/model.safetensors", "LICENSE"} <= document["files"].keys()
    assert document["agreement"].keys() == document["num_tokens_compared"].keys() == {"0.0", "1.0"}
    assert all(0 < rate <= 1 for rate in document["agreement"].values())
    shapes = expected_shapes(read_config(tmp_path / "pair/target"))
    assert document["num_parameters"]["target"] == sum(map(math.prod, shapes.values()))
    assert any("damping" in words for words in said)

    llm = LLM(tmp_path / "pair/target", draft=tmp_path / "pair/draft", config=EngineConfig(self_test=False))
    on, off = (llm.generate("import os", SamplingParams(max_tokens=24), depth=depth)[0] for depth in (4, 0))
    assert on.token_ids == off.token_ids
    assert on.stats.acceptance_rate > 0.5


@pytest.mark.parametrize("wanted", [0.31, 0.6, 0.95, 0.985])
def test_the_search_ends_where_the_agreement_is_as_asked(wanted):
    plan = PairPlan(shape=SHAPE, agreement=wanted)
    trials = find_damping(lambda damping: 1 - 0.8 * (damping / 3.5) ** 2, plan, 3.5, lambda _: None)
    assert abs(trials[-1].agreement - wanted) <= plan.tolerance


def test_the_search_ends_with_the_nearest_where_there_is_none_as_asked():
    plan = PairPlan(shape=SHAPE, agreement=0.6)
    trials = find_damping(lambda damping: 0.9 if damping < 1 else 0.4, plan, 3.5, lambda _: None)
    assert trials[-1].agreement == 0.4


@pytest.mark.parametrize("agreement", [0.29, 1.0, float("nan"), -1])
def test_an_agreement_out_of_range_is_refused(agreement):
    with pytest.raises(ParameterError, match=r"must be between 0\.3 and 0\.99"):
        PairPlan(shape=SHAPE, agreement=agreement)


def test_a_place_that_will_not_do_is_refused_before_anything_is_made(source, tmp_path, monkeypatch):
    plan = PairPlan(shape=SHAPE, agreement=0.8)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    for name, message in (("there", "exists already"), ("there/file/pair", "is no folder")):
        with pytest.raises(UsageError, match=message):
            make_pair(source, tmp_path / name, plan, lambda _: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UsageError, match="make room"):
        make_pair(source, tmp_path / "pair", plan, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_interrupted_pair_leaves_nothing(source, few_prompts, tmp_path):
    def report(words):
        if words.startswith("measuring"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pair(source, tmp_path / "pair", PairPlan(shape=SHAPE, agreement=0.9, num_threads=1), report)
    assert not list(tmp_path.iterdir())


def test_sizes_are_what_their_names_say():
    source = bundled_pair().target
    counts = {name: Embedding(source, shape, 0).num_parameters for name, shape in SIZES.items()}
    assert counts == {"0.5b": 507_598_848, "1.5b": 1_518_466_816}
