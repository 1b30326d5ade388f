"""A quantised checkpoint: the original's numbers to half a step, whole or not there; others are refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from outrider.errors import ModelError, UsageError
from outrider.model.config import read_config
from outrider.model.weights import Weights, as_float32, expected_shapes, scale_name
from outrider.quantize.checkpoint import NUM_WEIGHT_STEPS, Original, round_rows
from outrider.quantize.quality import compare, summarise
from tests.cli.tiny import make_tiny


def write(folder, out):
    out.mkdir()
    Original(folder).write_quantised(out, lambda _: None)
    return out


def test_rounding_is_to_the_nearest_level_of_each_row():
    values = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    values[2] = 0
    levels, scales = round_rows(values)
    assert np.abs(levels).max(axis=1).tolist() == [NUM_WEIGHT_STEPS, NUM_WEIGHT_STEPS, 0, *[NUM_WEIGHT_STEPS] * 2]
    assert (np.abs(levels * scales[:, None] - values) <= 0.5001 * scales[:, None]).all()


@pytest.mark.parametrize("tied", [True, False])
def test_it_holds_the_originals_numbers(tmp_path, tied):
    folder = make_tiny(tmp_path / "original", tie_word_embeddings=tied)
    out = write(folder, tmp_path / "new")
    config, weights, original = read_config(out), Weights.from_folder(out), Weights.from_folder(folder)
    weights.check(config)
    assert config == replace(read_config(folder), is_quantised=True, dtype="float32")
    assert weights.num_bytes == Original(folder).num_quantised_bytes
    assert (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    for name, shape in expected_shapes(read_config(folder)).items():
        values = as_float32(original[name])
        if len(shape) == 1:
            assert np.array_equal(weights[name].array, values)
            continue
        scales = weights[scale_name(name)].array[:, None]
        assert weights[name].dtype == "I8"
        assert (np.abs(weights[name].array * scales - values) <= 0.5001 * scales).all()


def test_what_is_not_to_be_quantised_is_refused(tmp_path):
    out = write(make_tiny(tmp_path / "original"), tmp_path / "new")
    with pytest.raises(UsageError, match="new is quantized already"):
        Original(out)
    damaged = make_tiny(tmp_path / "damaged", scale=float("inf"))
    with pytest.raises(ModelError, match=r"tensor model\.embed_tokens\.weight holds numbers that are not finite"):
        write(damaged, tmp_path / "never")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"quant_method": "outrider", "version": 2},
            "version 2 of outrider's quantization is not supported: version 1",
        ),
        ({"quant_method": "awq"}, "'awq'.*not supported.*outrider quantize"),
    ],
)
def test_another_quantisation_is_refused(tmp_path, given, said):
    folder = make_tiny(tmp_path / "original")
    values = json.loads((folder / "config.json").read_text()) | {"quantization_config": given}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=said):
        read_config(folder)


def test_a_config_and_its_tensors_must_agree(tmp_path):
    folder = make_tiny(tmp_path / "original")
    out = write(folder, tmp_path / "new")
    quantised, plain = read_config(out), read_config(folder)
    with pytest.raises(ModelError, match="has dtype I8, but must have F32 or BF16"):
        Weights.from_folder(out).check(plain)
    weights = Weights.from_folder(folder)
    with pytest.raises(ModelError, match="weight_scale"):
        weights.check(quantised)


def test_the_same_distributions_cost_nothing():
    logits = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
    cost = compare(logits, logits + 3, range(6))
    assert cost.agreed == cost.num_tokens == 6
    assert np.allclose(cost[2:], [0, 6, 0], atol=1e-5)


def test_measures_are_those_of_their_definitions():
    original = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    other = np.log(np.array([[0.3, 0.6, 0.1]], np.float32))
    document = summarise([compare(original, other, [0])] * 3)
    assert document["num_texts"] == document["num_tokens"] == 3
    found = {name: document[name]["value"] for name in ("agreement", "divergence", "overlap", "perplexity_ratio")}
    divergence = 0.5 * np.log(0.5 / 0.3) + 0.3 * np.log(0.3 / 0.6) + 0.2 * np.log(0.2 / 0.1)
    wanted = {"agreement": 0, "divergence": divergence, "overlap": 0.7, "perplexity_ratio": 0.5 / 0.3}
    assert found == pytest.approx(wanted, abs=1e-6)


def test_intervals_are_over_texts():
    logits = np.zeros((4, 3), np.float32)
    other = np.eye(4, 3, dtype=np.float32)
    document = summarise([compare(logits, logits, [0] * 4), compare(logits, other, [0] * 4)])
    assert document["divergence"]["low"] == 0 < document["divergence"]["value"] < document["divergence"]["high"]
