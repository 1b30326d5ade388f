"""The torch runtime's own promises: its cache, its trees, its bits, and what it takes and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaModel

from outrider.cache.table import BLOCK_SIZE
from outrider.errors import ModelError, ParameterError
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.torch.dense import _silu
from outrider.runtime.torch.runtime import TorchRuntime
from tests.runtime.checkpoints import SHAPE, make_checkpoint, make_model

TEXT = np.random.default_rng(0).integers(SHAPE["vocab_size"], size=640).tolist()
BLOCKS = list(range(20))
OPTIONS = RuntimeOptions()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model"), "qwen3")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def runtime(folder, request):
    runtime = TorchRuntime.from_folder(folder, RuntimeOptions(dtype=request.param))
    runtime.resize(200)
    return runtime


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def wide_runtime(tmp_path_factory, request):
    """Wide enough that kernels which choose by shape have something to choose from."""
    shape = {"head_dim": 64, "num_attention_heads": 8, "hidden_size": 128, "intermediate_size": 520}
    folder = make_checkpoint(tmp_path_factory.mktemp("wide"), "qwen3", **shape)
    runtime = TorchRuntime.from_folder(folder, RuntimeOptions(dtype=request.param))
    runtime.resize(200)
    return runtime


def prefill(runtime, num_tokens, blocks=BLOCKS):
    runtime.forward([SequenceRows(TEXT[:num_tokens], 0, blocks, ())])


def forward(runtime, tokens, num_past, blocks=BLOCKS, parents=None):
    """The logits of all rows of one sequence."""
    return runtime.forward([SequenceRows(tokens, num_past, blocks, range(len(tokens)), parents)]).logits


def plain(runtime, begin, end, blocks=BLOCKS):
    """One row at a time, as plain decoding goes."""
    return np.concatenate([forward(runtime, [TEXT[slot]], slot, blocks) for slot in range(begin, end)])


def test_only_the_wanted_rows_come_back(runtime):
    every = forward(runtime, TEXT[:20], 0).copy()
    some = runtime.forward([SequenceRows(TEXT[:20], 0, BLOCKS, (3, 19))]).logits
    np.testing.assert_array_equal(some, every[[3, 19]])
    none = runtime.forward([SequenceRows(TEXT[:20], 0, BLOCKS, ())]).logits
    assert none.shape == (0, SHAPE["vocab_size"])
    assert every.dtype == some.dtype == none.dtype == np.float32


def test_rows_after_num_past_are_forgotten(runtime):
    prefill(runtime, 60)
    before = forward(runtime, TEXT[60:70], 60).copy()
    forward(runtime, TEXT[100:140], 60)
    np.testing.assert_array_equal(forward(runtime, TEXT[60:70], 60), before)


def test_which_blocks_hold_a_sequence_does_not_matter(runtime):
    prefill(runtime, 60)
    before = forward(runtime, TEXT[60:66], 60).copy()
    for blocks in [(150, 20, 199), (199, 198, 197), (60, 61, 62)]:
        prefill(runtime, 60, blocks)
        np.testing.assert_array_equal(forward(runtime, TEXT[60:66], 60, blocks), before)


def test_resize_keeps_what_the_cache_holds(folder):
    runtime = TorchRuntime.from_folder(folder, OPTIONS)
    assert (runtime.num_blocks, runtime.memory().cache) == (0, 0)
    runtime.resize(3)
    one_block = runtime.memory().cache // 3
    prefill(runtime, 60, (2, 1))
    before = forward(runtime, TEXT[60:61], 60, (2, 1)).copy()
    runtime.resize(50)
    assert (runtime.num_blocks, runtime.memory().cache) == (50, 50 * one_block)
    np.testing.assert_array_equal(forward(runtime, TEXT[60:61], 60, (2, 1)), before)


def test_moved_rows_are_the_path_and_the_rest_never_was(runtime):
    blocks = (5, 90, 7)
    prefill(runtime, 62, blocks)
    path = TEXT[62:66]
    # rows 0, 2, 3, 5 are the path; 1 and 4 are siblings that were not accepted
    tree = [path[0], 9, path[1], path[2], 8, path[3]]
    forward(runtime, tree, 62, blocks, parents=[-1, 0, 0, 2, 2, 3])
    runtime.move(blocks, [(64, 63), (65, 64), (67, 65)])
    moved = forward(runtime, TEXT[66:68], 66, blocks).copy()
    prefill(runtime, 66, blocks)
    np.testing.assert_allclose(moved, forward(runtime, TEXT[66:68], 66, blocks), atol=tolerance(runtime))


def test_moves_are_made_in_their_order(folder):
    runtime = TorchRuntime.from_folder(folder, OPTIONS)
    runtime.resize(2)
    prefill(runtime, 40, (1, 0))
    runtime.move((1, 0), [(1, 0), (33, 1), (0, 2)])
    for keys_values in runtime._cache:
        first = keys_values[:, BLOCK_SIZE : BLOCK_SIZE + 3]  # the sequence's slots 0, 1, 2
        assert torch.equal(first[:, 1], keys_values[:, 1])
        assert torch.equal(first[:, 0], first[:, 2])
        assert not torch.equal(first[:, 0], first[:, 1])


def test_each_path_of_a_tree_is_computed_as_if_alone(runtime):
    tokens = TEXT[300:308]
    parents = [-1, 0, 0, 1, 1, 2, 5, 6]
    prefill(runtime, 45)
    tree = forward(runtime, tokens, 45, parents=parents).copy()
    for leaf in (3, 4, 7):
        path = [leaf]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        alone = forward(runtime, [tokens[row] for row in path], 45)
        np.testing.assert_allclose(tree[path], alone, atol=tolerance(runtime))


def test_a_chain_is_a_tree_with_one_branch(runtime):
    prefill(runtime, 45)
    chain = forward(runtime, TEXT[45:50], 45).copy()
    np.testing.assert_array_equal(forward(runtime, TEXT[45:50], 45, parents=[-1, 0, 1, 2, 3]), chain)


def tolerance(runtime):
    """Siblings stand between a path's keys and change the order of sums: a few roundings of logits up to 4."""
    return 1e-4 if runtime.options.dtype == "float32" else 4 * 2**-6


@pytest.mark.parametrize("begin", [1, 30, 500])
def test_bits_do_not_depend_on_how_many_rows_share_a_forward(wide_runtime, begin):
    prefill(wide_runtime, begin)
    alone = plain(wide_runtime, begin, begin + 17)
    for num_rows in range(2, 18):
        np.testing.assert_array_equal(forward(wide_runtime, TEXT[begin : begin + num_rows], begin), alone[:num_rows])


def test_bits_do_not_depend_on_the_other_sequences(wide_runtime):
    begins = [3, 31, 64, 100, 17, 200, 509, 40]
    tables = [list(range(17 * index, 17 * index + 17)) for index in range(8)]
    expected = []
    for begin, blocks in zip(begins, tables, strict=True):
        prefill(wide_runtime, begin, blocks)
        expected.append(plain(wide_runtime, begin, begin + 8, blocks))
    for num_sequences in range(2, 9):
        chosen = range(8 - num_sequences, 8)
        batch = [SequenceRows(TEXT[begins[i] : begins[i] + i + 1], begins[i], tables[i], range(i + 1)) for i in chosen]
        logits = wide_runtime.forward(batch).logits
        np.testing.assert_array_equal(logits, np.concatenate([expected[i][: i + 1] for i in chosen]))


def test_silu_gives_an_element_the_same_bits_wherever_it_stands():
    values = torch.linspace(-4, 4, 500)
    whole = _silu(values)
    assert all(torch.equal(_silu(values[:length]), whole[:length]) for length in range(1, 500))
    torch.testing.assert_close(whole, torch.nn.functional.silu(values))


def test_the_level_is_measured_and_never_assumed(folder):
    assert TorchRuntime.from_folder(folder, OPTIONS).exactness == "seed"


def test_without_bitwise_nothing_is_padded(folder):
    runtime = TorchRuntime.from_folder(folder, RuntimeOptions(bitwise=False))
    runtime.resize(2)
    packed, _ = runtime._pack([SequenceRows(TEXT[:3], 0, (0,), (2,))])
    assert (len(packed.token_ids), packed.spans[0].mask.shape, len(packed.output_rows)) == (3, (3, 3), 1)


@pytest.mark.parametrize("overrides", [{}, {"tie_word_embeddings": True}], ids=["untied", "tied"])
def test_a_loaded_model_computes_what_its_checkpoint_does_and_shares_its_tensors(tmp_path, overrides):
    make_checkpoint(tmp_path, "llama", dtype="bfloat16", **overrides)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded, stored = TorchRuntime.from_transformers(model, OPTIONS), TorchRuntime.from_folder(tmp_path, OPTIONS)
    assert loaded.config == stored.config
    assert loaded.memory() == stored.memory()
    for runtime in (loaded, stored):
        runtime.resize(4)
    np.testing.assert_array_equal(forward(loaded, TEXT[:50], 0, (0, 1)), forward(stored, TEXT[:50], 0, (0, 1)))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert not forward(loaded, TEXT[:50], 0, (0, 1)).any()


def test_a_loaded_model_of_another_kind_is_refused_by_name():
    headless = LlamaModel(make_model("llama").config)
    with pytest.raises(ModelError, match="LlamaModel, but must be one of LlamaForCausalLM"):
        TorchRuntime.from_transformers(headless, OPTIONS)
    with pytest.raises(ModelError, match="float16"):
        TorchRuntime.from_transformers(make_model("llama", dtype="float16"), OPTIONS)


def test_a_dtype_and_a_device_that_we_have_not_are_refused(folder):
    with pytest.raises(ParameterError, match="dtype is 'int8', but must be one of float32, bfloat16"):
        TorchRuntime.from_folder(folder, RuntimeOptions(dtype="int8"))
    with pytest.raises(ParameterError, match="device is 'abacus', but must be cpu or cuda"):
        TorchRuntime.from_folder(folder, OPTIONS, device="abacus")


def test_wrong_blocks_are_our_bug_and_never_another_sequence_memory(runtime):
    for num_past, blocks in [(0, (200,)), (0, (-1,)), (0, (3, 3)), (30, (3,))]:
        with pytest.raises(AssertionError):
            forward(runtime, TEXT[:5], num_past, blocks)


def test_memory_counts_each_weight_once_and_the_cache(tmp_path):
    make_checkpoint(tmp_path, "llama", tie_word_embeddings=True)
    runtime = TorchRuntime.from_folder(tmp_path, OPTIONS)
    runtime.resize(2)
    parameters = sum(parameter.numel() for parameter in make_model("llama", tie_word_embeddings=True).parameters())
    assert runtime.memory() == (4 * parameters, 3 * 2 * 2 * BLOCK_SIZE * 2 * 32 * 4)


def test_options_come_back_resolved_and_described(folder):
    runtime = TorchRuntime.from_folder(folder, OPTIONS)
    assert runtime.options == RuntimeOptions(dtype="float32", num_threads=torch.get_num_threads(), num_forms=0)
    description = runtime.describe()
    assert (description["name"], description["dtype"]) == ("torch", "float32")
    assert description["torch"] == torch.__version__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_computes_what_the_cpu_does(folder):
    logits = []
    for device in ("cpu", "cuda"):
        runtime = TorchRuntime.from_folder(folder, OPTIONS, device=device)
        runtime.resize(4)
        prefill(runtime, 60, (2, 0, 1))
        logits.append(forward(runtime, TEXT[60:70], 60, (2, 0, 1)).copy())
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
