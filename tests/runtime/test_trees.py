"""Trees to the bit, on both runtimes: siblings in memory change nothing of a row, nor of what follows it."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from outrider.runtime.torch.runtime import TorchRuntime
from tests.runtime.checkpoints import RUNTIMES_AND_DTYPES, SHAPE, make_checkpoint

TEXT = np.random.default_rng(3).integers(SHAPE["vocab_size"], size=600).tolist()
TABLES = [list(range(first, first + 20)) for first in (40, 0, 20)]
NUM_NODES = 14
RUNTIMES = {"openvino": OpenVinoRuntime, "torch": TorchRuntime}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model"), "qwen3", dtype="bfloat16")


@pytest.fixture(scope="module", params=RUNTIMES_AND_DTYPES, ids=str)
def runtime(folder, request):
    name, dtype = request.param
    runtime = RUNTIMES[name].from_folder(folder, RuntimeOptions(dtype=dtype, num_threads=1))
    runtime.resize(60)
    return runtime


def make_tree(num_past: int, blocks: list[int], seed: int = 0) -> SequenceRows:
    generator = np.random.default_rng([num_past, seed])
    parents = [-1, *(int(generator.integers(row)) for row in range(1, NUM_NODES))]
    tokens = generator.integers(SHAPE["vocab_size"], size=NUM_NODES).tolist()
    return SequenceRows(tokens, num_past, blocks, range(NUM_NODES), parents)


def chain_of(tree: SequenceRows, branch: list[int], blocks: list[int]) -> SequenceRows:
    return SequenceRows([tree.token_ids[row] for row in branch], tree.num_past, blocks, range(len(branch)))


def forward(runtime, *batch: SequenceRows) -> np.ndarray:
    return runtime.forward(batch).logits.copy()


def prefill(runtime, num_past: int) -> None:
    for blocks in TABLES:
        forward(runtime, SequenceRows(TEXT[:num_past], 0, blocks, ()))


def text_rows(first: int, end: int, blocks: list[int]) -> SequenceRows:
    return SequenceRows(TEXT[first:end], first, blocks, range(end - first))


def test_branches_are_the_ways_down_a_tree():
    tree = SequenceRows([0] * 6, 9, [0], (), [-1, 0, 0, 1, -1, 3])
    assert tree.branches() == [[0, 2], [4], [0, 1, 3, 5]]
    assert tree._replace(parents=None).branches() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("num_past", [1, 30, 32, 61, 505])
def test_each_branch_has_the_bits_of_its_chain_and_so_does_what_follows_it(runtime, num_past):
    prefill(runtime, num_past)
    tree = make_tree(num_past, TABLES[0])
    found = forward(runtime, text_rows(num_past, num_past + 3, TABLES[1]), tree)[3:]
    *others, kept = tree.branches()
    for branch in others:
        np.testing.assert_array_equal(found[branch], forward(runtime, chain_of(tree, branch, TABLES[2])))
    np.testing.assert_array_equal(found[kept], forward(runtime, chain_of(tree, kept, TABLES[2])))
    runtime.move(TABLES[0], [(num_past + row, num_past + place) for place, row in enumerate(kept)])
    after = [SequenceRows([7], num_past + len(kept), blocks, [0]) for blocks in (TABLES[0], TABLES[2])]
    np.testing.assert_array_equal(*(forward(runtime, each) for each in after))


def test_a_tree_leaves_the_bits_of_what_is_beside_it(runtime):
    prefill(runtime, 30)
    wanted = forward(runtime, text_rows(30, 36, TABLES[2]))
    found = forward(runtime, text_rows(30, 33, TABLES[1]), make_tree(30, TABLES[0]))[:3]
    rest = forward(runtime, text_rows(33, 36, TABLES[1]))
    np.testing.assert_array_equal(np.concatenate([found, rest]), wanted)


def test_a_tree_has_the_same_bits_beside_other_trees_however_many(runtime, monkeypatch):
    prefill(runtime, 50)
    trees = [make_tree(50, blocks, seed) for seed, blocks in enumerate(TABLES)]
    alone = np.concatenate([forward(runtime, tree) for tree in trees])
    np.testing.assert_array_equal(forward(runtime, *trees), alone)
    # more branches than blocks may be lent to are computed in parts
    monkeypatch.setattr("outrider.runtime.openvino.runtime.MAX_BRANCH_BLOCKS", 7)
    np.testing.assert_array_equal(forward(runtime, *trees), alone)
