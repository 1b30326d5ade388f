"""The load-time self-test: which faults of a runtime it finds, and what it remembers."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from outrider.cache.table import BLOCK_SIZE
from outrider.errors import ModelError, NumericsError
from outrider.runtime.base import MemoryUse, ModelOutput, RowClass, Runtime, RuntimeOptions
from outrider.runtime.numerics import SelfTest, check_numerics, run_self_test
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from outrider.runtime.remembered import cache_folder
from outrider.runtime.torch.runtime import TorchRuntime
from tests.runtime.checkpoints import OPENVINO_DTYPES, make_checkpoint

VOCAB_SIZE = 50
MOST_ROWS = 16 * 33  # in one of the forwards that are compared: nothing is promised of more
MOST_ROOT_ROWS = 512  # in one of the forwards of prompts, likewise


def logits_after(token_ids):
    return np.random.default_rng(crc32(str(token_ids).encode())).standard_normal(VOCAB_SIZE)


class HashingRuntime(Runtime):
    """Logits are a random function of exactly the tokens that a row sees; `fault` adds a mistake."""

    name = "hashing"

    def __init__(self, *, fault: str = "", max_context: int = 1024, dtype: str = "float32", bitwise: bool = True):
        self.config: Any = SimpleNamespace(vocab_size=VOCAB_SIZE, max_context=max_context, is_quantised=False)
        self.options = RuntimeOptions(dtype=dtype, num_threads=1, bitwise=bitwise)
        self.min_rows = 2
        self.exactness = "seed"
        self.fault = fault
        self.num_forwards = 0
        self.num_slots_used = 0
        self.resize(0)

    def resize(self, num_blocks):
        self.num_blocks = num_blocks
        self.slots = np.full((num_blocks, BLOCK_SIZE), -1)

    def forward(self, batch):
        self.num_forwards += 1
        logits = [self.row(rows, row, batch) for rows in map(self.written, batch) for row in rows.output_rows]
        for rows in batch:
            if self.fault == "roots leave other keys" and rows.is_prompt and rows.output_rows:
                self.slots[rows.blocks[0], 0] = -2
        return ModelOutput(np.array(logits, np.float32).reshape(-1, VOCAB_SIZE), len(batch))

    def written(self, rows):
        self.num_slots_used = max(self.num_slots_used, rows.num_past + len(rows.token_ids))
        for slot, token in enumerate(rows.token_ids, rows.num_past):
            self.slots[rows.blocks[slot // BLOCK_SIZE], slot % BLOCK_SIZE] = token
        return rows

    def row(self, rows, row, batch):
        parents = rows.parents or range(-1, len(rows.token_ids) - 1)
        if self.fault == "siblings see each other":
            parents = range(-1, len(rows.token_ids) - 1)
        path = [row]
        while parents[path[-1]] >= 0:
            path.append(parents[path[-1]])
        slots = [*range(rows.num_past), *(rows.num_past + node for node in reversed(path))]
        if self.fault == "rows see what was rolled back":
            slots.append(rows.num_past + len(rows.token_ids))
        if self.fault == "chunks miss those before":
            slots = [
                slot for slot in slots if slot >= rows.num_past or slot < rows.num_past - self.num_beside(rows, batch)
            ]
        seen = [int(self.slots[rows.blocks[slot // BLOCK_SIZE], slot % BLOCK_SIZE]) for slot in slots]
        logits = logits_after(seen)
        roundings = {
            "rows round by their number": len(rows.token_ids),
            "rows round by their neighbours": len(batch),
            "long contexts round": len(rows.token_ids) * (len(seen) > 100),
            "wide rows round": len(rows.token_ids) > 33,
            "crowds round": len(batch) > 15,
            "trees round": rows.parents is not None,
            "many rows round": sum(len(each.token_ids) for each in batch) > 100,
            "prompts round together": len(batch) > 1 and not any(each.num_past for each in batch),
            "chunks round together": sum(each.blocks == rows.blocks for each in batch) > 1,
            "roots round in long prompts": rows.is_prompt * (len(rows.token_ids) > 500),
            "roots round": rows.is_prompt,
            "nan": np.nan,
        }
        logits[0] += 1e-5 * roundings.get(self.fault, 0)
        return logits

    @staticmethod
    def num_beside(rows, batch):
        """Tokens of the same sequence before these in the same forward."""
        return sum(
            len(each.token_ids) for each in batch if each.blocks == rows.blocks and each.num_past < rows.num_past
        )

    def move(self, blocks, moves):
        for source, target in moves:
            from_block, to_block = blocks[source // BLOCK_SIZE], blocks[target // BLOCK_SIZE]
            self.slots[to_block, target % BLOCK_SIZE] = self.slots[from_block, source % BLOCK_SIZE]

    def memory(self):
        return MemoryUse(0, 0)

    def describe(self):
        return {"name": self.name}

    def reference(self, token_ids):
        """What a correct implementation says."""
        return np.array([logits_after(token_ids[:end]) for end in range(1, len(token_ids) + 1)], np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))


class TestProbe:
    def test_a_runtime_without_fault_is_bitwise(self):
        row_class = RowClass(MOST_ROWS, True, "bitwise", MOST_ROOT_ROWS)
        assert run_self_test(HashingRuntime()) == SelfTest("bitwise", 0.0, None, row_class)

    @pytest.mark.parametrize(
        "fault",
        [
            "rows round by their number",
            "rows round by their neighbours",
            "long contexts round",
            "wide rows round",
            "crowds round",
        ],
    )
    def test_rounding_makes_it_seed(self, fault):
        found = run_self_test(HashingRuntime(fault=fault))
        assert found.exactness == "seed"
        assert 0 < found.row_difference < 1e-3
        assert found.row_class == RowClass()
        assert "in one call against one by one differ by" in found.reason

    @pytest.mark.parametrize(
        ("fault", "row_class"),
        [
            ("trees round", RowClass(MOST_ROWS, True, "seed", MOST_ROOT_ROWS)),
            ("many rows round", RowClass(100, False, "seed", 73)),
            ("prompts round together", RowClass(MOST_ROWS, False, "bitwise", 257)),
            ("chunks round together", RowClass(MOST_ROWS, False, "bitwise", MOST_ROOT_ROWS)),
            ("roots round in long prompts", RowClass(MOST_ROWS, True, "bitwise", 16 * 25)),
            ("roots round", RowClass(MOST_ROWS, True, "bitwise", 0)),
        ],
    )
    def test_what_does_not_move_is_the_class_to_keep_to(self, fault, row_class):
        found = run_self_test(HashingRuntime(fault=fault))
        assert (found.exactness, found.reason, found.row_class) == ("bitwise", "", row_class)
        assert found.row_difference > 0

    def test_trees_that_the_context_had_no_room_for_are_not_promised(self):
        assert run_self_test(HashingRuntime(max_context=13)).row_class == RowClass(12 * 16, True, "seed", 0)

    def test_a_runtime_that_was_not_asked_to_be_bitwise_is_not(self):
        assert run_self_test(HashingRuntime(bitwise=False)).exactness == "seed"

    @pytest.mark.parametrize(
        "fault",
        [
            "rows see what was rolled back",
            "siblings see each other",
            "chunks miss those before",
            "roots leave other keys",
        ],
    )
    def test_more_than_rounding_is_refused_with_its_size(self, fault):
        with pytest.raises(NumericsError, match=r"differ by [\d.]+ of the logits' spread, of which rounding .* 0.001"):
            run_self_test(HashingRuntime(fault=fault))

    def test_logits_that_are_not_finite_are_the_checkpoints_fault(self):
        with pytest.raises(ModelError, match="not finite"):
            run_self_test(HashingRuntime(fault="nan"))

    @pytest.mark.parametrize("max_context", [2, 5, 17, 18, 48, 64, 327])
    def test_a_short_context_is_probed_as_far_as_it_goes(self, max_context):
        runtime = HashingRuntime(max_context=max_context)
        assert run_self_test(runtime, runtime.reference).exactness == "bitwise"
        assert runtime.num_slots_used == max_context
        faulty = HashingRuntime(max_context=max_context, fault="rows round by their neighbours")
        assert run_self_test(faulty).exactness == "seed"

    def test_the_cache_is_given_back(self):
        runtime = HashingRuntime()
        run_self_test(runtime)
        assert runtime.num_blocks == 0


class TestReference:
    def test_agreement_is_recorded(self):
        runtime = HashingRuntime()
        assert run_self_test(runtime, runtime.reference).reference_difference == 0

    def test_a_difference_is_refused_with_its_size(self):
        runtime = HashingRuntime()
        with pytest.raises(NumericsError, match=r"against the reference differ by 0\.0\d+ .* explains 0\.001"):
            run_self_test(runtime, lambda token_ids: runtime.reference(token_ids) * np.linspace(1, 1.1, VOCAB_SIZE))

    def test_a_constant_added_to_all_logits_is_no_difference(self):
        runtime = HashingRuntime()
        found = run_self_test(runtime, lambda token_ids: runtime.reference(token_ids) + 3)
        assert found.reference_difference < 1e-6


class TestMemory:
    def test_a_second_load_asks_nothing(self):
        first, second = HashingRuntime(fault="rows round by their number"), HashingRuntime()
        assert check_numerics(first, "abc") == check_numerics(second, "abc")
        assert (first.exactness, second.exactness, second.num_forwards) == ("seed", "seed", 0)

    def test_another_checkpoint_thread_count_or_dtype_is_asked_anew(self):
        check_numerics(HashingRuntime(), "abc")
        other_dtype, other_threads = HashingRuntime(dtype="bfloat16"), HashingRuntime()
        other_threads.options = RuntimeOptions(dtype="float32", num_threads=2)
        for runtime, fingerprint in ((HashingRuntime(), "def"), (other_dtype, "abc"), (other_threads, "abc")):
            check_numerics(runtime, fingerprint)
            assert runtime.num_forwards

    @pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"])
    def test_other_instruction_sets_are_asked_anew(self, monkeypatch, name):
        check_numerics(HashingRuntime(), "abc")
        monkeypatch.setenv(name, "AVX2")
        for has_to_ask in (True, False):
            runtime = HashingRuntime()
            check_numerics(runtime, "abc")
            assert bool(runtime.num_forwards) == has_to_ask

    def test_other_code_of_ours_is_asked_anew(self, monkeypatch):
        check_numerics(HashingRuntime(), "abc")
        monkeypatch.setattr("outrider.runtime.remembered._code", lambda _: "other")
        runtime = HashingRuntime()
        check_numerics(runtime, "abc")
        assert runtime.num_forwards

    def test_the_class_is_recalled_too(self):
        for _ in range(2):
            runtime = HashingRuntime(fault="many rows round")
            assert check_numerics(runtime, "abc").row_class == runtime.row_class == RowClass(100, False, "seed", 73)

    def test_a_reference_that_comes_later_is_asked_once(self):
        check_numerics(HashingRuntime(), "abc")
        for has_to_ask in (True, False):
            runtime = HashingRuntime()
            assert check_numerics(runtime, "abc", runtime.reference).reference_difference == 0
            assert bool(runtime.num_forwards) == has_to_ask

    def test_a_refusal_is_not_remembered(self):
        for _ in range(2):
            with pytest.raises(NumericsError):
                check_numerics(HashingRuntime(fault="siblings see each other"), "abc")

    @pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"exactness": "bitwise"}', '{"exactness": 3, "x": 4}'])
    def test_a_damaged_file_is_asked_anew_and_mended(self, text):
        check_numerics(HashingRuntime(), "abc")
        (file,) = (cache_folder() / "numerics").iterdir()
        file.write_text(text)
        for has_to_ask in (True, False):
            runtime = HashingRuntime()
            check_numerics(runtime, "abc")
            assert bool(runtime.num_forwards) == has_to_ask

    @pytest.mark.parametrize(
        "change",
        [
            {"exactness": "certain"}, {"exactness": "seed"}, {"row_difference": -1.0}, {"row_difference": "0"},
            {"row_difference": float("nan")}, {"reference_difference": "none"}, {"reason": None}, {"reason": "none"},
            {"row_class": {"max_rows": 0}}, {"row_class": {"max_rows": "100"}}, {"row_class": {"trees": "bits"}},
            {"row_class": {"is_prefill_shared": 1}}, {"row_class": {"max_root_rows": -1}},
            {"row_class": {"max_root_rows": "5"}}, {"row_class": {"max_root_rows": True}},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_cannot_have_been_found_is_asked_anew_and_mended(self, change):
        check_numerics(HashingRuntime(), "abc")
        (file,) = (cache_folder() / "numerics").iterdir()
        found = json.loads(file.read_text())
        row_class = found["row_class"] | change.get("row_class", {})
        file.write_text(json.dumps(found | change | {"row_class": row_class}))
        for has_to_ask in (True, False):
            runtime = HashingRuntime()
            assert check_numerics(runtime, "abc").exactness == "bitwise"
            assert bool(runtime.num_forwards) == has_to_ask

    def test_a_folder_that_cannot_be_written_is_done_without(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "file"))
        for _ in range(2):
            runtime = HashingRuntime()
            assert check_numerics(runtime, "abc").exactness == "bitwise"
            assert runtime.num_forwards

    def test_the_folder_follows_the_environment(self, monkeypatch, tmp_path):
        assert cache_folder() == tmp_path / "cache"
        monkeypatch.delenv("OUTRIDER_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "outrider"

    def test_without_a_home_nothing_is_kept(self, monkeypatch):
        def no_home():
            raise RuntimeError

        monkeypatch.delenv("OUTRIDER_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr("outrider.runtime.remembered.Path.home", no_home)
        for _ in range(2):
            runtime = HashingRuntime()
            assert check_numerics(runtime, "abc").exactness == "bitwise"
            assert runtime.num_forwards


class TestTorch:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_padded_rows_are_bitwise(self, tmp_path, dtype):
        runtime = TorchRuntime.from_folder(make_checkpoint(tmp_path, "qwen3", dtype=dtype), RuntimeOptions())
        check_numerics(runtime, "abc")
        assert runtime.exactness == runtime.row_class.trees == "bitwise"


class TestOpenVino:
    @pytest.mark.parametrize("dtype", OPENVINO_DTYPES)
    @pytest.mark.parametrize("bitwise", [True, False])
    def test_rows_are_bitwise_if_asked_to_be(self, tmp_path, dtype, bitwise):
        folder = make_checkpoint(tmp_path, "qwen3", dtype=dtype)
        runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(bitwise=bitwise, num_threads=1))
        found = check_numerics(runtime, "abc")
        assert runtime.exactness == found.exactness == ("bitwise" if bitwise else "seed")
        assert runtime.num_blocks == 0

    def test_attention_row_by_row_is_what_makes_them_bitwise(self, tmp_path):
        runtime = OpenVinoRuntime.from_folder(make_checkpoint(tmp_path, "llama"), RuntimeOptions(num_threads=1))
        runtime._max_alone = 0
        assert run_self_test(runtime).exactness == "seed"

    def test_weights_that_are_not_numbers_are_named(self, tmp_path):
        folder = make_checkpoint(tmp_path, "llama")
        data = bytearray((folder / "model.safetensors").read_bytes())
        data[-4:] = np.float32(np.nan).tobytes()
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(ModelError, match="not finite"):
            check_numerics(OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1)), "abc")
