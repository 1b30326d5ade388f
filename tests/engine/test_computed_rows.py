"""What a policy believes that a step computes is what the step's forwards compute."""

from __future__ import annotations

import functools

import pytest

from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.batch import computed_rows
from outrider.policy.cost import StepCosts
from outrider.runtime.base import RowClass
from tests.cli.tiny import make_tiny
from tests.engine.fakes import FakeRuntime, make_engine, request, run

BATCHES = [1, 3, 11]
CLASSES = {"no limit": RowClass(), "5 rows": RowClass(max_rows=5), "17 rows": RowClass(max_rows=17)}


def watched(policy, target, costs):
    """What the policy is told of each step that was computed, and what it would have said."""
    found = []
    observe = policy.observe

    def noted(step):
        found.append((step.num_computed_rows, costs.computed_rows(step.num_rows), len(step.num_rows)))
        observe(step)

    policy.observe = noted
    return found


@pytest.mark.parametrize("num_texts", BATCHES)
@pytest.mark.parametrize("row_class", CLASSES.values(), ids=CLASSES)
def test_tiles_are_counted_as_they_are_computed(num_texts, row_class):
    target = FakeRuntime()
    target.computed_rows = lambda num_rows: 4 * -(-sum(num_rows) // 4)  # what fills up shows where a forward ends
    target.row_class = row_class
    engine = make_engine(target, SuffixDrafter())
    costs = StepCosts(computed_rows=functools.partial(computed_rows, target))
    found = watched(engine.parts.policy, target, costs)
    run(engine, [request(index, [1, 2, index], seed=index, depth=3, max_tokens=20) for index in range(num_texts)])
    assert max(num for _, _, num in found) == num_texts
    assert all(computed == believed for computed, believed, _ in found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "target")


@pytest.mark.parametrize("exactness", [None, "seed"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("row_class", [None, RowClass(max_rows=17)], ids=["as found", "17 rows"])
def test_an_engine_believes_what_its_runtime_does(folder, exactness, runtime, row_class):
    if runtime == "torch":
        pytest.importorskip("torch")
    options = RuntimeOptions(dtype="float32", num_threads=1)
    llm = LLM(folder, draft="suffix", config=EngineConfig(runtime=runtime, exactness=exactness, options=options))
    llm.target.set_change_price(0, 0)  # no change of rows is put off
    llm.target.row_class = row_class or llm.target.row_class
    for num_texts in BATCHES:
        for depth in (0, 3, "auto"):
            llm.forget()
            found = watched(llm.policy, llm.target, llm.policy.costs)
            prompts = [[index + 1, 5, 6, 5, 6, 5] for index in range(num_texts)]
            llm.generate(prompts, SamplingParams(max_tokens=12, ignore_eos=True), depth=depth)
            assert max(num for _, _, num in found) == num_texts
            assert all(computed == believed for computed, believed, _ in found)
