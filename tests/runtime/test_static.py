"""Forwards of fixed shapes, as CUDA records them: here called instead, which is all that differs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from outrider import SamplingParams, sampling
from outrider.logits import DeviceLogits, DeviceRow, Likeliest
from outrider.noise import Address
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.numerics import run_self_test
from outrider.runtime.torch import runtime as module
from outrider.runtime.torch.forwards import MAX_DECODE_WIDTH, StaticForwards, likeliest
from outrider.runtime.torch.runtime import TorchRuntime
from outrider.runtime.torch.static import BITWISE_ROWS, HIDDEN, SPLIT, Recorded, Shape, _join, shape_of, spans_of
from tests.runtime.checkpoints import SHAPE, make_checkpoint

TEXT = np.random.default_rng(0).integers(SHAPE["vocab_size"], size=700).tolist()
# Logits reach 4, where bf16 steps by 2^-6: another order of sums tips a rounding of a few of 130,000 by six steps.
TOLERANCES = {"float32": 1e-4, "bfloat16": 6 * 2**-6}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pair(request, tmp_path_factory):
    """The same checkpoint as the CPU computes it and in fixed shapes."""
    folder = make_checkpoint(tmp_path_factory.mktemp("model"), "qwen3", dtype="bfloat16")
    options = RuntimeOptions(dtype=request.param, num_threads=1)
    usual = TorchRuntime.from_folder(folder, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STATIC_DEVICES", {"cpu"})
        fixed = TorchRuntime.from_folder(folder, options)
    for runtime in (usual, fixed):
        runtime.resize(64)
    return usual, fixed


def rows(first, end, blocks, parents=None):
    return SequenceRows(TEXT[first:end], first, blocks, range(end - first), parents)


def assert_same(pair, batch):
    usual, fixed = (np.array(runtime.forward(batch).logits) for runtime in pair)
    np.testing.assert_allclose(fixed, usual, atol=TOLERANCES[pair[0].options.dtype])
    assert np.abs(fixed - usual).mean() < 2**-6
    return fixed


LONG, SHORT = list(range(2, 25))[::-1], [40, 30]


def test_prompts_chains_trees_and_batches_are_what_the_reference_computes(pair):
    assert_same(pair, [rows(0, 600, LONG), rows(0, 30, SHORT)])  # two splits of keys, and one
    assert_same(pair, [rows(30, 31, SHORT)])
    assert_same(pair, [rows(600, 605, LONG), rows(30, 33, SHORT)])
    assert_same(pair, [rows(600, 608, LONG, [-1, 0, 0, 1, 1, 2, 5, 6]), rows(30, 31, SHORT)])


def test_neither_garbage_in_hidden_slots_nor_rows_that_fill_up_change_anything(pair):
    fixed = pair[1]
    fixed.forward([rows(0, 20, SHORT)])
    before = np.array(fixed.forward([rows(20, 22, SHORT)]).logits)
    fixed.forward([SequenceRows(TEXT[100:130], 22, SHORT, ())])
    untouched = [layer.clone() for layer in fixed._cache]
    np.testing.assert_array_equal(fixed.forward([rows(20, 22, SHORT)]).logits, before)
    for layer, was in zip(fixed._cache, untouched, strict=True):
        assert torch.equal(layer[:, :-32], was[:, :-32])  # the last block is nobody's: there padding writes


def test_a_long_neighbour_changes_nothing_but_rounding(pair):
    """It makes the short one's keys two splits instead of one."""
    fixed = pair[1]
    fixed.forward([rows(0, 600, LONG)])
    fixed.forward([rows(0, 30, SHORT)])
    alone = np.array(fixed.forward([rows(30, 35, SHORT)]).logits)
    beside = np.array(fixed.forward([rows(30, 35, SHORT), rows(600, 605, LONG)]).logits)[:5]
    np.testing.assert_allclose(beside, alone, atol=TOLERANCES[fixed.options.dtype])


def test_splits_that_a_sequence_does_not_reach_change_no_bit():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn((2, 3, 4, 8, 2, 16), generator=generator)
    scores = torch.randn((2, 3, 4, 8, 2, SPLIT), generator=generator)
    scores[:, :, 2:] = HIDDEN
    log_sums = scores.logsumexp(-1, keepdim=True)
    joined = _join(mixed, log_sums)
    assert torch.equal(joined, _join(mixed[:, :, :2], log_sums[:, :, :2]))
    shares = log_sums[:, :, :2].softmax(2)
    torch.testing.assert_close(joined, (mixed[:, :, :2] * shares).sum(2))


def test_shapes_are_few():
    found = {
        shape_of(batch, spans_of(batch), 8)
        for past in (0, 100, 480)
        for width in range(1, 9)
        for batch in [[SequenceRows([0] * width, past, range(40), range(width))]]
    }
    assert found == {Shape(rows=8, spans=1, width=8, keys=SPLIT, outputs=8)}
    deep = [SequenceRows([0] * 65, 600, range(40), range(65))] * 3
    assert shape_of(deep, spans_of(deep), 80) == Shape(rows=320, spans=4, width=128, keys=1024, outputs=256)


def test_plain_and_drafted_steps_compute_as_many_rows():
    forwards = StaticForwards(None, torch.device("cpu"), BITWISE_ROWS)
    assert {forwards.num_rows([count]) for count in range(1, 66)} == {BITWISE_ROWS}
    assert forwards.num_rows([1] * BITWISE_ROWS) == BITWISE_ROWS
    assert forwards.num_rows([1, 100, 1]) == BITWISE_ROWS + 2 * BITWISE_ROWS


def test_a_prompt_is_computed_alone_and_results_keep_their_order(pair):
    forwards = pair[1]._static
    wide = MAX_DECODE_WIDTH + 1
    batch = [rows(0, width, [index]) for index, width in enumerate((2, 3, wide, 4, 5))]
    assert [len(group) for group in forwards.groups(batch)] == [2, 1, 2]
    fitting = [rows(0, width, list(range(4 * index, 4 * index + 4))) for index, width in enumerate((2, 3, wide, 4, 5))]
    assert_same(pair, fitting)


def test_the_buffers_of_a_shape_are_reused_and_dropped_with_the_cache(pair):
    fixed = pair[1]
    fixed.resize(0)
    fixed.resize(64)
    assert fixed._static.shapes == []
    for past in range(5):
        fixed.forward([rows(past, past + 1, SHORT)])
    assert len(fixed._static.shapes) == 1
    (inputs,) = (each.inputs for each in fixed._static._forwards.values())
    place = inputs._device.data_ptr()
    fixed.forward([rows(5, 9, SHORT)])
    assert (len(fixed._static.shapes), inputs._device.data_ptr()) == (1, place)


def test_without_graphs_a_recorded_function_is_called_each_time():
    calls = []
    recorded = Recorded(lambda: torch.tensor(len(calls.append(0) or calls)), torch.device("cpu"))
    assert [int(recorded()) for _ in range(3)] == [1, 2, 3]


def test_the_first_of_equal_logits_is_found_and_its_lead():
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [5.0, -1.0, 4.5, 2.0], [0.0, torch.nan, 1.0, 2.0]])
    ids, leads = likeliest(logits).numpy()
    assert ids[:2].tolist() == [1, 0]
    assert leads[:2].tolist() == [0.0, 0.5]
    assert np.isnan(leads[2])


PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(temperature=1.0, top_k=20),
    SamplingParams(temperature=1.3, top_p=0.9),
    SamplingParams(temperature=1.0, min_p=0.05, top_k=100, top_p=0.95),
]


@pytest.mark.parametrize("vocab_size", [50, 211, 20_000])
def test_a_device_row_gives_the_token_and_the_score_of_the_row_itself(vocab_size):
    generator = torch.Generator().manual_seed(1)
    held = torch.randn((60, vocab_size), generator=generator) * 3
    held[::5] = held[::5].round()  # many of equal size

    def fetch():
        return held.numpy()

    def fetch_likeliest():
        ids, leads = likeliest(held).numpy()
        return Likeliest(ids.astype(np.int64), leads.astype(np.float32))

    device = DeviceLogits((60, vocab_size), fetch, fetch_likeliest)
    for index, row in enumerate(device):
        assert isinstance(row, DeviceRow)
        for params in PARAMS:
            address = Address(index, 0, 7)
            assert sampling.choose(row, params, address) == sampling.choose(held[index].numpy(), params, address)
            assert sampling.guess(row, params, address) == sampling.guess(held[index].numpy(), params, address)


def test_greedy_decoding_fetches_no_row():
    def refuse():
        raise AssertionError("a row was fetched")

    found = Likeliest(np.array([4, 2]), np.array([1.0, 0.25], dtype=np.float32))
    device = DeviceLogits((2, 9), refuse, lambda: found)
    assert [sampling.choose(row, SamplingParams(), Address(0, 0, 0)) for row in device[0:2, :12]] == [4, 2]
    with pytest.raises(AssertionError, match="a row was fetched"):
        sampling.choose(device[0], SamplingParams(temperature=1.0), Address(0, 0, 0))


WITHOUT = """
import sys
BLOCKED = {"openvino", "typer", "rich", "huggingface_hub"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams
options = RuntimeOptions(num_threads=1)
llm = LLM(sys.argv[1], "suffix", config=EngineConfig(runtime="torch", options=options, self_test=False))
print(*llm.generate([[3, 4, 5]], SamplingParams(max_tokens=4, ignore_eos=True))[0].token_ids)
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
"""


@pytest.mark.slow
def test_the_torch_runtime_runs_where_openvino_typer_and_rich_are_not(tmp_path):
    make_checkpoint(tmp_path, "llama")
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 4


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_graphs_replay_what_a_call_computes(tmp_path, dtype):
    folder = make_checkpoint(tmp_path, "qwen3", dtype="bfloat16")
    runtime = TorchRuntime.from_folder(folder, RuntimeOptions(dtype=dtype), device="cuda")
    runtime.resize(64)
    runtime.forward([rows(0, 30, SHORT)])
    # called, recorded and replayed, replayed
    found = [np.array(runtime.forward([rows(30, 35, SHORT)]).logits) for _ in range(3)]
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_allclose(found[0], found[1], atol=TOLERANCES[dtype])
    assert run_self_test(runtime).exactness in ("bitwise", "seed")
