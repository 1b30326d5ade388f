"""The OpenVINO runtime against transformers' own forward, and the promises of its own that nothing else states."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from outrider.cache.table import BLOCK_SIZE
from outrider.errors import ModelError, ParameterError
from outrider.model.config import read_config
from outrider.model.weights import num_matrix_values
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino import processors
from outrider.runtime.openvino.runtime import MAX_ROWS_ALONE, NUM_FILLING_BLOCKS, OpenVinoRuntime
from tests.runtime.checkpoints import FAMILIES, HAS_BFLOAT16, OPENVINO_DTYPES, make_checkpoint, needs_bfloat16

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}

VARIANTS = {
    "llama": ("llama", {}),
    "llama with biases, one head each": (
        "llama",
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    ),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "llama with yarn": ("llama", {"rope_parameters": YARN_ROPE}),
    "mistral": ("mistral", {"num_key_value_heads": 1}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "qwen3 tied, with biases": ("qwen3", {"tie_word_embeddings": True, "attention_bias": True}),
}
HAS_AMX = HAS_BFLOAT16 and processors.has_amx()
NUM_TOKENS = 75  # two borders between blocks
TOKEN_IDS = np.random.default_rng(7).integers(0, 211, NUM_TOKENS).tolist()
BLOCKS = [5, 0, 3]


def reference(folder: Path, dtype: str = "float32") -> np.ndarray:
    """Transformers' own logits for the text."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    with torch.no_grad():
        return model(torch.tensor([TOKEN_IDS])).logits[0].float().numpy()


def load(folder: Path, *, num_threads: int = 1, **options) -> OpenVinoRuntime:
    """One thread, since two that wait for each other crawl on a busy machine."""
    runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=num_threads, **options))
    runtime.resize(16)
    return runtime


def rows(first: int, end: int, blocks: list[int] = BLOCKS, **changes) -> SequenceRows:
    """Tokens [first, end) of the text, all their logits wanted."""
    return SequenceRows(TOKEN_IDS[first:end], first, blocks, range(end - first))._replace(**changes)


def in_chunks(runtime: OpenVinoRuntime, length: int, blocks: list[int] = BLOCKS) -> np.ndarray:
    starts = range(0, NUM_TOKENS, length)
    return np.concatenate(
        [runtime.forward([rows(first, min(first + length, NUM_TOKENS), blocks)]).logits.copy() for first in starts]
    )


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(variant, tmp_path_factory) -> Path:
    family, overrides = VARIANTS[variant]
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), family, **overrides)


@pytest.fixture(scope="module")
def runtime(folder) -> OpenVinoRuntime:
    return load(folder)


@pytest.fixture(scope="module", params=OPENVINO_DTYPES)
def any_dtype(request, tmp_path_factory) -> OpenVinoRuntime:
    """One checkpoint, stored and computed in either dtype."""
    return load(make_checkpoint(tmp_path_factory.mktemp("checkpoint"), "qwen3", dtype=request.param))


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), "llama", dtype="bfloat16")


class TestParityWithTransformers:
    def test_a_prefill_gives_the_same_logits(self, runtime, folder):
        found = runtime.forward([rows(0, NUM_TOKENS)]).logits
        np.testing.assert_allclose(found, reference(folder), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("length", [1, 7])
    def test_rows_one_by_one_and_several_at_once_give_the_same_logits(self, runtime, folder, length):
        np.testing.assert_allclose(in_chunks(runtime, length), reference(folder), atol=1e-4, rtol=0)

    def test_ragged_sequences_in_one_call_give_the_same_logits(self, runtime, folder):
        tables = [[1, 2, 4], [6, 7, 8], [9, 10, 11]]
        for past, blocks in zip((0, 31, 64), tables, strict=True):
            if past:
                runtime.forward([rows(0, past, blocks)])
        ends = (5, 32, NUM_TOKENS)
        batch = [rows(past, end, blocks) for past, end, blocks in zip((0, 31, 64), ends, tables, strict=True)]
        wanted = reference(folder)
        wanted = np.concatenate([wanted[0:5], wanted[31:32], wanted[64:]])
        np.testing.assert_allclose(runtime.forward(batch).logits, wanted, atol=1e-4, rtol=0)

    @needs_bfloat16
    @pytest.mark.parametrize("family", FAMILIES)
    def test_bfloat16_is_as_close_to_float32_as_transformers_own(self, family, tmp_path):
        folder = make_checkpoint(tmp_path, family, dtype="bfloat16")
        runtime, exact = load(folder), reference(folder)
        error = relative_error(in_chunks(runtime, 9), exact)
        assert runtime.options.dtype == "bfloat16"
        assert error < 0.03
        assert error < 1.25 * relative_error(reference(folder, "bfloat16"), exact)

    def test_a_bfloat16_checkpoint_can_be_computed_in_float32(self, llama_folder):
        runtime = load(llama_folder, dtype="float32")
        np.testing.assert_allclose(in_chunks(runtime, 9), reference(llama_folder), atol=1e-4, rtol=0)


class TestWidening:
    @pytest.mark.parametrize("name", ["llama with biases, one head each", "qwen2", "qwen3 tied, with biases"])
    def test_widened_and_joined_matrices_give_the_same_logits(self, name, tmp_path, monkeypatch):
        family, overrides = VARIANTS[name]
        folder = make_checkpoint(tmp_path, family, dtype="bfloat16", **overrides)
        monkeypatch.setattr(processors, "is_widened", lambda config, **_: True)
        runtime = load(folder, dtype="float32")
        np.testing.assert_allclose(in_chunks(runtime, 9), reference(folder), atol=1e-4, rtol=0)
        # all but the norms, and a table that is only looked up
        config = read_config(folder)
        assert runtime.memory().weights > 4 * num_matrix_values(config)

    @pytest.mark.parametrize("bitwise", [True, False])
    @pytest.mark.parametrize("name", ["llama with biases, one head each", "qwen2", "qwen3 tied, with biases"])
    def test_so_do_matrices_that_are_only_joined(self, name, bitwise, tmp_path, monkeypatch):
        family, overrides = VARIANTS[name]
        folder = make_checkpoint(tmp_path, family, **overrides)
        monkeypatch.setattr(processors, "is_joined", lambda *_: True)
        runtime = load(folder, dtype="float32", bitwise=bitwise)
        np.testing.assert_allclose(in_chunks(runtime, 9), reference(folder), atol=1e-4, rtol=0)
        # gates and ups are left apart where bits count
        assert num_nodes(runtime, "FullyConnected") == runtime.config.num_layers * (5 if bitwise else 4) + 1

    def test_matrices_of_different_dtypes_are_left_apart(self, tmp_path, monkeypatch):
        file = make_checkpoint(tmp_path, "llama") / "model.safetensors"
        tensors = load_file(file)
        mixed = ["model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.up_proj.weight"]
        rounded = {name: tensors[name].to(torch.bfloat16) for name in mixed}
        save_file(tensors | rounded, file, {"format": "pt"})
        monkeypatch.setattr(processors, "is_joined", lambda *_: True)
        runtime = load(tmp_path, dtype="float32", bitwise=False)
        np.testing.assert_allclose(in_chunks(runtime, 9), reference(tmp_path), atol=1e-4, rtol=0)
        assert num_nodes(runtime, "FullyConnected") == 4 * runtime.config.num_layers + 2 + 1 + 1

    def test_only_what_nearly_fits_the_cache_and_only_without_bfloat16(self, llama_folder, monkeypatch):
        config = read_config(llama_folder)
        num_bytes = 4 * num_matrix_values(config)
        for cache_bytes, expected in ((num_bytes // 2 + 1, True), (num_bytes // 2 - 1, False), (0, False)):
            monkeypatch.setattr(processors, "last_cache_bytes", lambda size=cache_bytes: size)
            assert processors.is_widened(config, has_bfloat16=False) == expected
            assert not processors.is_widened(config, has_bfloat16=True)
            assert not processors.is_widened(replace(config, dtype="float32"), has_bfloat16=False)


def num_nodes(runtime: OpenVinoRuntime, layer_type: str) -> int:
    """Of a kind that OpenVINO has made of the graph; `LLMMLP` is a whole feed-forward."""
    nodes = runtime._forms.compiled.get_runtime_model().get_ops()
    return sum(node.get_rt_info()["layerType"].astype(str) == layer_type for node in nodes)


class TestFusing:
    @pytest.mark.skipif(not HAS_AMX, reason="this processor has no AMX")
    @pytest.mark.parametrize("family", FAMILIES)
    def test_feed_forwards_are_one_node_each_and_give_the_same_logits(self, family, tmp_path, monkeypatch):
        folder = make_checkpoint(tmp_path, family, dtype="bfloat16")
        fused = load(folder, num_threads=2)
        monkeypatch.setattr(processors, "is_fused", lambda _: False)
        apart = load(folder, num_threads=2)
        assert [num_nodes(runtime, "LLMMLP") for runtime in (fused, apart)] == [fused.config.num_layers, 0]
        assert relative_error(in_chunks(fused, 9), in_chunks(apart, 9)) < 0.02


class TestWantedRows:
    def test_only_wanted_rows_come_back_sequence_after_sequence(self, any_dtype):
        whole = in_chunks(any_dtype, MAX_ROWS_ALONE)
        batch = [rows(0, 9, [1], output_rows=[2, 8]), rows(0, 4, [2], output_rows=[]), rows(0, 3, [4], output_rows=[0])]
        np.testing.assert_array_equal(any_dtype.forward(batch).logits, whole[[2, 8, 0]])

    def test_a_call_may_want_none_and_still_fills_the_cache(self, any_dtype):
        whole = in_chunks(any_dtype, MAX_ROWS_ALONE)
        assert any_dtype.forward([rows(0, 40, output_rows=[])]).logits.shape == (0, 211)
        np.testing.assert_array_equal(any_dtype.forward([rows(40, 50)]).logits, whole[40:50])


class TestBits:
    """A row's bits depend on nothing but its own text, as far as a decoding step goes."""

    @pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9, 16, 17, 20, 33])
    def test_they_do_not_depend_on_how_many_rows_go_together(self, any_dtype, length):
        whole = in_chunks(any_dtype, MAX_ROWS_ALONE)
        np.testing.assert_array_equal(in_chunks(any_dtype, length), whole)

    def test_they_do_not_depend_on_the_sequences_beside_them(self, any_dtype):
        whole = in_chunks(any_dtype, MAX_ROWS_ALONE)
        generator = np.random.default_rng(1)
        num_sequences = 5
        tables = np.arange(3 * num_sequences).reshape(num_sequences, 3).tolist()
        done = [0] * num_sequences
        while min(done) < NUM_TOKENS:
            running = [i for i in range(num_sequences) if done[i] < NUM_TOKENS and (generator.random() < 0.8)]
            if not running:
                continue
            ends = [min(done[i] + int(generator.integers(1, 18)), NUM_TOKENS) for i in running]
            batch = [rows(done[i], end, tables[i]) for i, end in zip(running, ends, strict=True)]
            wanted = [whole[done[i] : end] for i, end in zip(running, ends, strict=True)]
            np.testing.assert_array_equal(any_dtype.forward(batch).logits, np.concatenate(wanted))
            for i, end in zip(running, ends, strict=True):
                done[i] = end

    def test_they_do_not_depend_on_the_order_of_the_blocks(self, any_dtype):
        np.testing.assert_array_equal(in_chunks(any_dtype, 8, [5, 0, 3]), in_chunks(any_dtype, 8, [2, 14, 1]))

    def test_they_do_not_depend_on_the_number_of_threads_where_the_same_nodes_compute(self, llama_folder):
        one, two = (load(llama_folder, num_threads=number, dtype="float32") for number in (1, 2))
        assert (one.options.num_threads, two.options.num_threads) == (1, 2)
        np.testing.assert_array_equal(in_chunks(one, 6), in_chunks(two, 6))

    def test_rolling_back_leaves_no_trace(self, any_dtype):
        whole = in_chunks(any_dtype, MAX_ROWS_ALONE)
        wrong = [(token + 1) % 211 for token in TOKEN_IDS[28:48]]
        for length in (1, 2, 9):
            any_dtype.forward([rows(0, 28)])
            any_dtype.forward([SequenceRows(wrong, 28, BLOCKS, [])])
            found = [any_dtype.forward([rows(i, i + length)]).logits.copy() for i in range(28, 46, length)]
            np.testing.assert_array_equal(np.concatenate(found), whole[28:46])

    def test_resizing_keeps_the_cache(self, llama_folder):
        runtime = load(llama_folder)
        whole = in_chunks(runtime, MAX_ROWS_ALONE)
        runtime.forward([rows(0, 40)])
        for num_blocks in (64, 6):
            runtime.resize(num_blocks)
            assert runtime.num_blocks == num_blocks
            np.testing.assert_array_equal(runtime.forward([rows(40, 50)]).logits, whole[40:50])


class TestTrees:
    """Rows that see their ancestors only."""

    PARENTS = (-1, 0, 0, 1, 1, 2, 5)
    TOKENS = (3, 14, 15, 92, 65, 35, 89)

    def path(self, row: int) -> list[int]:
        return [] if row < 0 else [*self.path(self.PARENTS[row]), row]

    def tree(self, blocks: list[int], output_rows: list[int]) -> SequenceRows:
        return SequenceRows(self.TOKENS, 30, blocks, output_rows, self.PARENTS)

    @pytest.mark.parametrize("row", range(7))
    def test_each_row_computes_what_its_path_alone_does(self, any_dtype, row):
        atol = 1e-4 if any_dtype.options.dtype == "float32" else 0.1
        for blocks in ([1, 2], [3, 4], [5, 6]):
            any_dtype.forward([rows(0, 30, blocks)])
        path = [self.TOKENS[node] for node in self.path(row)]
        wanted = any_dtype.forward([SequenceRows(path, 30, [5, 6], [len(path) - 1])]).logits.copy()
        # beside a chain and a prefill, whose rows the tree must not disturb
        batch = [rows(0, 5, [7]), self.tree([1, 2], [row]), rows(30, 33, [3, 4])]
        found = any_dtype.forward(batch).logits
        np.testing.assert_allclose(found[5:6], wanted, atol=atol, rtol=0)
        np.testing.assert_array_equal(
            np.delete(found, 5, axis=0), in_chunks(any_dtype, MAX_ROWS_ALONE)[[*range(5), 30, 31, 32]]
        )

    def test_a_tree_with_one_branch_is_a_chain_to_the_bit(self, any_dtype):
        chain = any_dtype.forward([rows(0, 9)]).logits.copy()
        np.testing.assert_array_equal(any_dtype.forward([rows(0, 9, parents=range(-1, 8))]).logits, chain)

    def test_moving_an_accepted_path_together_makes_it_the_text(self, any_dtype):
        atol = 1e-4 if any_dtype.options.dtype == "float32" else 0.1
        path = self.path(6)
        text = [*TOKEN_IDS[:30], *(self.TOKENS[row] for row in path), 7]
        wanted = any_dtype.forward([SequenceRows(text, 0, [9, 8], [len(text) - 1])]).logits.copy()
        any_dtype.forward([rows(0, 30, [1, 2])])
        any_dtype.forward([self.tree([1, 2], [])])
        any_dtype.move([1, 2], [(30 + row, 30 + place) for place, row in enumerate(path) if row != place])
        found = any_dtype.forward([SequenceRows([7], len(text) - 1, [1, 2], [0])]).logits
        np.testing.assert_allclose(found, wanted, atol=atol, rtol=0)


class TestLayout:
    @pytest.mark.skipif(HAS_BFLOAT16 and not HAS_AMX, reason="there, several rows cost no more than one")
    def test_where_every_row_counts_a_single_one_is_computed(self, llama_folder):
        runtime = load(llama_folder, num_threads=2)
        assert runtime.forward([rows(0, 1)]).num_computed_rows == runtime.computed_rows([1]) == runtime.min_rows == 1

    @pytest.mark.parametrize(("bitwise", "num_rows", "num_alone"), [(True, 9, 9), (False, 5, 5), (False, 6, 1)])
    def test_where_bits_do_not_count_attention_has_more_rows_at_a_time(
        self, llama_folder, bitwise, num_rows, num_alone
    ):
        runtime = load(llama_folder, bitwise=bitwise)
        layout, _ = runtime._lay_out([rows(0, num_rows)], 0)
        assert len(layout.past_lens) == num_alone

    def test_without_bitwise_rows_are_the_same_but_for_rounding(self, llama_folder):
        runtime = load(llama_folder, bitwise=False)
        np.testing.assert_allclose(in_chunks(runtime, 1), in_chunks(runtime, 9), atol=0.1)

    def test_wrong_rows_are_caught_before_they_read_other_memory(self, any_dtype):
        for wrong in (
            rows(0, 9, [16]),
            rows(0, 9, [-1]),
            rows(30, 40, [0]),
            rows(0, 2, token_ids=[0, 211]),
            rows(0, 2, token_ids=[0, -1]),
        ):
            with pytest.raises(AssertionError):
                any_dtype.forward([wrong])

    def test_positions_end_with_the_context(self, tmp_path):
        runtime = load(make_checkpoint(tmp_path, "llama", max_position_embeddings=64))
        blocks = list(range(4))
        runtime.forward([rows(0, 63, blocks)])
        assert np.isfinite(runtime.forward([rows(63, 64, blocks)]).logits).all()
        with pytest.raises(AssertionError):
            runtime.forward([rows(0, 70, blocks)])


class TestMemory:
    def test_a_tied_head_is_the_embedding(self, tmp_path):
        sizes = {}
        for tied in (True, False):
            folder = make_checkpoint(tmp_path / str(tied), "llama", dtype="bfloat16", tie_word_embeddings=tied)
            sizes[tied] = load(folder).memory().weights
        assert sizes[False] - sizes[True] == 211 * 64 * 2

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read as Linux tells it")
    def test_the_cache_takes_memory_only_where_it_is_used(self, llama_folder):
        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        runtime = load(llama_folder)
        runtime.forward([rows(0, 40)])
        before = resident()
        runtime.resize(50_000)
        itemsize = 2 if HAS_BFLOAT16 else 4
        assert runtime.memory().cache == 2 * 3 * (50_000 + NUM_FILLING_BLOCKS) * 2 * BLOCK_SIZE * 32 * itemsize
        assert resident() - before < runtime.memory().cache / 20

    def test_norms_and_rotations_are_single_nodes(self, any_dtype):
        kinds = [
            node.get_rt_info()["layerType"].astype(str)
            for node in any_dtype._forms.compiled.get_runtime_model().get_ops()
        ]
        assert (kinds.count("RoPE"), kinds.count("RMS"), kinds.count("PagedAttention")) == (2 * 3, 4 * 3 + 1, 3)


class TestRefusal:
    def test_an_unknown_dtype(self, llama_folder):
        with pytest.raises(ParameterError, match=r"float16.*float32, bfloat16"):
            load(llama_folder, dtype="float16")

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelError):
            load(tmp_path)


class TestFilling:
    def test_what_the_cache_holds_survives_filling_and_growing(self, tmp_path):
        folder = make_checkpoint(tmp_path, "qwen3")
        runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1))
        runtime.resize(1)
        runtime.forward([SequenceRows(TOKEN_IDS[:20], 0, [0], ())])
        wanted = np.array(runtime.forward([SequenceRows(TOKEN_IDS[20:21], 20, [0], [0])]).logits)
        runtime.resize(3)
        assert np.array_equal(runtime.forward([SequenceRows(TOKEN_IDS[20:21], 20, [0], [0])]).logits, wanted)
