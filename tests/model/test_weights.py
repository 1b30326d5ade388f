"""Safetensors files, whole and damaged, and whether they are the model's."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save_file

from outrider.errors import ModelError
from outrider.model.config import ModelConfig, parse_config
from outrider.model.shard import RawTensor, as_float32, read_shard
from outrider.model.weights import Weights, expected_shapes, fingerprint
from tests.model.test_config import LLAMA

CONFIG = parse_config(LLAMA, {})


def random_tensors(config: ModelConfig = CONFIG) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in expected_shapes(config).items()}


def write(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return folder


def write_shards(folder: Path, weight_map: dict[str, Any]) -> Path:
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def raw_file(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(first: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


def test_numbers_as_float32_are_the_numbers_that_are_stored():
    values = np.array([1.0, -2.5, 0.0, 3.140625, np.inf], np.float32)  # all of them bfloat16 numbers
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    assert as_float32(RawTensor("BF16", bits)).tolist() == values.tolist()
    assert as_float32(RawTensor("F32", values)) is values
    with pytest.raises(AssertionError):
        as_float32(RawTensor("I8", np.zeros(1, np.int8)))


def test_tensors_are_read_in_place_and_cannot_be_written(tmp_path):
    tensors = random_tensors()
    weights = Weights.from_folder(write(tmp_path, tensors))
    weights.check(CONFIG)
    assert set(weights.names) == set(tensors)
    for name, tensor in tensors.items():
        raw = weights[name]
        assert raw.dtype == "F32"
        assert np.array_equal(raw.array, tensor)
        assert not raw.array.flags.owndata
        assert not raw.array.flags.writeable


def test_bfloat16_is_seen_as_bits_even_off_its_alignment(tmp_path):
    bits = np.array([1, 2, 0x3F80], np.uint16)
    header = {"a": entry(0, 6, [3], "BF16"), "b": entry(6, 10, [], "F32"), "__metadata__": {"format": "pt"}}
    for padding in range(8):
        text = json.dumps(header).encode() + b" " * padding
        tensors = read_shard(raw_file(tmp_path / "x", text, bits.tobytes() + np.float32(2.5).tobytes()))
        assert tensors["a"].dtype == "BF16"
        assert np.array_equal(tensors["a"].array, bits)
        assert tensors["b"].array == np.float32(2.5)
        assert all(tensor.array.flags.aligned for tensor in tensors.values())


def test_a_missing_tensor_and_a_wrong_shape_are_named(tmp_path):
    tensors = random_tensors()
    name = "model.layers.1.mlp.up_proj.weight"
    kept = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ModelError, match=f"tensor {name} is missing"):
        Weights.from_folder(write(tmp_path, kept)).check(CONFIG)
    with pytest.raises(ModelError, match=r"and \d+ more"):
        Weights.from_folder(write(tmp_path, {"x": np.ones(1, np.float32)})).check(CONFIG)
    wrong = {**tensors, name: np.ascontiguousarray(tensors[name].T)}
    with pytest.raises(ModelError, match=r"up_proj.weight is \[64, 96\], but config.json makes it \[96, 64\]"):
        Weights.from_folder(write(tmp_path, wrong)).check(CONFIG)


def test_a_tensor_that_we_would_not_use_is_refused(tmp_path):
    tensors = {**random_tensors(), "model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)}
    with pytest.raises(ModelError, match=r"q_proj.bias has no place in a llama model"):
        Weights.from_folder(write(tmp_path, tensors)).check(CONFIG)


def test_stored_inverse_frequencies_are_let_be(tmp_path):
    tensors = {**random_tensors(), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    Weights.from_folder(write(tmp_path, tensors)).check(CONFIG)


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tmp_path):
    config = parse_config({**LLAMA, "tie_word_embeddings": True}, {})
    tensors = random_tensors()
    with pytest.raises(ModelError, match=r"lm_head.weight differs.*tie_word_embeddings to false"):
        Weights.from_folder(write(tmp_path, tensors)).check(config)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    Weights.from_folder(write(tmp_path, tensors)).check(config)
    del tensors["lm_head.weight"]
    Weights.from_folder(write(tmp_path, tensors)).check(config)


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": entry(0, 8, [2])}, b"1234", "holds 4 bytes of tensors, and its header speaks of 8"),
        ({"a": entry(0, 8, [2])}, b"123456789", "holds 9 bytes"),
        ({"a": entry(4, 12, [2])}, bytes(12), "begins at byte 4, not 0"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12), "begins at byte 4, not 8"),
        ({"a": entry(0, 8, [3])}, bytes(8), r"'a' of shape \(3,\)"),
        ({"a": entry(8, 0, [2])}, bytes(8), "'a' of shape"),
        ({"a": entry(0, 0, [0, 10**30])}, b"", "'a' of shape"),
        ({"a": entry(0, 8, [2, -1])}, bytes(8), "shape is"),
        ({"a": entry(0, 8, ["2"])}, bytes(8), "shape is"),
        ({"a": {**entry(0, 8, [2]), "data_offsets": [0, 4, 8]}}, bytes(8), "'a' of shape"),
        ({"a": {"dtype": "F32"}}, b"", "shape is missing"),
        ({"a": 7}, b"", "a is 7"),
        ({"a": entry(0, 4, [2], "F16")}, bytes(4), "'F16', but F32 and BF16 are read.*float32 or bfloat16"),
        ({"a": entry(0, 16, [2], "I64")}, bytes(16), "'I64'"),
        (b"{not json}", b"", "not valid"),
        (b"\xff\xfe{}", b"", "not valid"),
        (b"[" * 100_000, b"", "not valid"),
        ([1], b"", "not an object"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, header, data, said):
    path = raw_file(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelError, match=said) as caught:
        Weights.from_folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_an_absurd_header_length_is_refused_before_it_is_read(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="its header would be"):
        Weights.from_folder(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_byte_is_changed_the_file_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flipped")
    content = bytearray(
        write(folder, {"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float32)})
        .joinpath("model.safetensors")
        .read_bytes()
    )
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "model.safetensors").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(ModelError):
        Weights.from_folder(folder)


def test_shards_are_put_together(tmp_path):
    tensors = random_tensors()
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    write_shards(tmp_path, {name: file for file, part in halves.items() for name in part})
    weights = Weights.from_folder(tmp_path)
    weights.check(CONFIG)
    assert all(np.array_equal(weights[name].array, tensor) for name, tensor in tensors.items())


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model-2.safetensors is missing"):
        Weights.from_folder(write_shards(tmp_path, {"a": "model-2.safetensors"}))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "x.bin", 7, None])
def test_a_shard_must_be_a_safetensors_file_of_the_same_folder(tmp_path, name):
    with pytest.raises(ModelError, match=r"not a \.safetensors file of the same folder"):
        Weights.from_folder(write_shards(tmp_path, {"a": name}))


@pytest.mark.parametrize("weight_map", [{}, None, [1]])
def test_an_index_without_shards_is_refused(tmp_path, weight_map):
    with pytest.raises(ModelError, match="weight_map"):
        Weights.from_folder(write_shards(tmp_path, weight_map))


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for file in ("1.safetensors", "2.safetensors"):
        save_file({"a": np.ones(1, np.float32)}, tmp_path / file)
    with pytest.raises(ModelError, match="tensor a is in another shard too"):
        Weights.from_folder(write_shards(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}))


def test_pickles_are_refused_by_name_with_the_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        Weights.from_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        Weights.from_folder(tmp_path)


def test_the_fingerprint_changes_with_the_config_and_the_weights(tmp_path):
    tensors = random_tensors()
    first = fingerprint(write(tmp_path, tensors))
    assert fingerprint(tmp_path) == first
    tensors["model.norm.weight"][0] *= -1
    assert fingerprint(write(tmp_path, tensors)) != first
    tensors["model.norm.weight"][0] *= -1
    assert fingerprint(write(tmp_path, tensors)) == first
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "rms_norm_eps": 1e-6}), encoding="utf-8")
    assert fingerprint(tmp_path) != first
