"""The torch runtime computes what transformers' own forward computes, whatever the batch looks like."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.torch.runtime import TorchRuntime
from outrider.runtime.torch.transformers import reference_logits
from tests.runtime.checkpoints import FAMILIES, SHAPE, make_checkpoint

FP32_TOLERANCE = 1e-4
# Logits here reach 4, where bf16 steps by 2^-6. Both forwards round at the same places, so that they differ only
# where the order of a sum tips a rounding: four such steps at most, and none on average.
BF16_TOLERANCE = 4 * 2**-6

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL = {"rope_theta": 500.0, "original_max_position_embeddings": 64}
VARIANTS = {
    "llama": ("llama", {}),
    "llama, biases, no groups, tied": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True},
    ),
    "llama, one key-value head, linear rope": (
        "llama",
        {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}},
    ),
    "llama, llama3 rope": ("llama", {"rope_parameters": LLAMA3 | ORIGINAL}),
    "mistral": ("mistral", {}),
    "mistral, window beyond the text": ("mistral", {"sliding_window": 200}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied, yarn rope": (
        "qwen2",
        {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "yarn", "factor": 4.0} | ORIGINAL},
    ),
    "qwen3": ("qwen3", {"rms_norm_eps": 1e-5}),
    "qwen3, biases, odd sizes": ("qwen3", {"attention_bias": True, "intermediate_size": 90, "head_dim": 24}),
}


class Case(NamedTuple):
    runtime: TorchRuntime
    texts: list[list[int]]
    logits: list[np.ndarray]  # of each text, by transformers


def make_case(folder, family, overrides, dtype, lengths):
    make_checkpoint(folder, family, dtype=dtype, **overrides)
    random = np.random.default_rng(0)
    texts = [random.integers(SHAPE["vocab_size"], size=length).tolist() for length in lengths]
    runtime = TorchRuntime.from_folder(folder, RuntimeOptions())
    runtime.resize(40)
    return Case(runtime, texts, [reference_logits(folder, text, dtype) for text in texts])


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS.keys())
def case(request, tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("model"), *request.param, dtype="float32", lengths=(150, 70))


@pytest.fixture(scope="module", params=FAMILIES)
def bf16_case(request, tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("model"), request.param, {}, dtype="bfloat16", lengths=(150, 70))


def compute(runtime, text, ends, blocks):
    """The logits of a text cut at `ends`, each piece a forward of its own."""
    pieces = [SequenceRows(text[begin:end], begin, blocks, range(end - begin)) for begin, end in pairwise((0, *ends))]
    return np.concatenate([runtime.forward([piece]).logits for piece in pieces])


def test_a_prompt_in_one_piece(case):
    logits = compute(case.runtime, case.texts[0], (150,), range(5))
    np.testing.assert_allclose(logits, case.logits[0], rtol=0, atol=FP32_TOLERANCE)


def test_a_prompt_in_chunks_then_several_rows_then_single_rows(case):
    logits = compute(case.runtime, case.texts[0], (64, 128, 131, 139, 140, 141, 150), (7, 3, 4, 30, 11))
    np.testing.assert_allclose(logits, case.logits[0], rtol=0, atol=FP32_TOLERANCE)


def test_several_sequences_in_one_forward(case):
    long, short = case.texts
    compute(case.runtime, long, (140,), range(5))
    compute(case.runtime, short, (30,), (9, 8, 6))
    batch = [
        SequenceRows(long[140:145], 140, range(5), (0, 3, 4)),
        SequenceRows(short[:40], 0, (20, 22), ()),
        SequenceRows(short[30:31], 30, (9, 8, 6), (0,)),
        SequenceRows(long[:33], 0, (12, 13), (32,)),
    ]
    expected = [*case.logits[0][[140, 143, 144]], case.logits[1][30], case.logits[0][32]]
    np.testing.assert_allclose(case.runtime.forward(batch).logits, expected, rtol=0, atol=FP32_TOLERANCE)
    follow = case.runtime.forward([SequenceRows(short[40:42], 40, (20, 22), (1,))])
    np.testing.assert_allclose(follow.logits[0], case.logits[1][41], rtol=0, atol=FP32_TOLERANCE)


def test_a_text_longer_than_a_tile_of_keys(tmp_path):
    case = make_case(tmp_path, "qwen3", {}, "float32", lengths=(1030,))
    logits = compute(case.runtime, case.texts[0], (500, 512, 513, 520, 1023, 1025, 1030), range(33))
    np.testing.assert_allclose(logits, case.logits[0], rtol=0, atol=FP32_TOLERANCE)


@pytest.mark.parametrize("ends", [(150,), (64, 128, 131, 139, 140, 150)], ids=["one piece", "pieces"])
def test_bf16_stays_within_its_rounding_steps(bf16_case, ends):
    logits = compute(bf16_case.runtime, bf16_case.texts[0], ends, range(5))
    difference = logits - bf16_case.logits[0]
    assert np.abs(bf16_case.logits[0]).max() > 3
    assert np.abs(difference).max() <= BF16_TOLERANCE
    assert abs(difference.mean()) < 1e-4


def test_bf16_is_as_close_to_float32_as_transformers_is(tmp_path):
    case = make_case(tmp_path, "qwen3", {}, "bfloat16", lengths=(150,))
    exact = reference_logits(tmp_path, case.texts[0], "float32")
    ours = np.abs(compute(case.runtime, case.texts[0], (150,), range(5)) - exact).mean()
    theirs = np.abs(case.logits[0] - exact).mean()
    assert ours == pytest.approx(theirs, rel=0.05)
