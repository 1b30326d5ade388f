"""The tensors of a checkpoint: where they are stored, and whether they are those of its config. Converts nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import KeysView, Sequence
from pathlib import Path
from reprlib import repr as short_repr

import numpy as np

from outrider.errors import ModelError
from outrider.model.config import ModelConfig
from outrider.model.fields import Fields
from outrider.model.shard import RawTensor, as_float32, read_header, read_shard

__all__ = [
    "RawTensor",
    "Weights",
    "as_float32",
    "expected_shapes",
    "fingerprint",
    "matrix_bytes",
    "num_matrix_values",
    "scale_name",
]

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
FINGERPRINT_BYTES = 64 * 1024
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Weights:
    """The stored tensors by name; nothing is read from the disk before it is used."""

    def __init__(self, tensors: dict[str, RawTensor], folder: Path) -> None:
        self._tensors = tensors
        self._folder = folder

    @classmethod
    def from_folder(cls, folder: Path) -> Weights:
        """Map `model.safetensors`, or the shards that `model.safetensors.index.json` names.

        Raises:
            ModelError: a file is missing, damaged, a pickle, or holds another dtype than float32, bfloat16 and int8.
        """
        tensors: dict[str, RawTensor] = {}
        for shard in _shards(folder):
            more = read_shard(shard)
            if twice := tensors.keys() & more.keys():
                raise ModelError(f"{shard}: tensor {min(twice)} is in another shard too: download the checkpoint again")
            tensors |= more
        return cls(tensors, folder)

    @property
    def names(self) -> KeysView[str]:
        return self._tensors.keys()

    def __getitem__(self, name: str) -> RawTensor:
        return self._tensors[name]

    @property
    def num_bytes(self) -> int:
        """Of all tensors, as stored."""
        return sum(raw.array.nbytes for raw in self._tensors.values())

    def check(self, config: ModelConfig) -> None:
        """Raise ModelError unless the tensors are those of the model, by name, shape and kind of number."""
        expected = expected_shapes(config)
        missing = [name for name in expected if name not in self._tensors]
        if missing:
            raise ModelError(f"{self._folder}: tensor {_listed(missing)} is missing: download the checkpoint again")
        for name, shape in expected.items():
            if self._tensors[name].array.shape != shape:
                found = list(self._tensors[name].array.shape)
                raise ModelError(f"{self._folder}: tensor {name} is {found}, but config.json makes it {list(shape)}")
            self._check_kind(name, is_integer=config.is_quantised and len(shape) == 2)
        # old Llama checkpoints store the inverse frequencies, which follow from the config
        unknown = [name for name in self._tensors if name not in expected and not name.endswith("rotary_emb.inv_freq")]
        if config.tie_word_embeddings and "lm_head.weight" in unknown:
            self._check_tied_head()
            unknown.remove("lm_head.weight")
        if unknown:
            raise ModelError(f"{self._folder}: tensor {_listed(unknown)} has no place in a {config.family} model")

    def _check_kind(self, name: str, *, is_integer: bool) -> None:
        dtype = self._tensors[name].dtype
        if (dtype == "I8") != is_integer:
            wanted = "I8, since config.json says outrider quantized it" if is_integer else "F32 or BF16"
            raise ModelError(f"{self._folder}: tensor {name} has dtype {dtype}, but must have {wanted}")

    def _check_tied_head(self) -> None:
        head, embedding = self["lm_head.weight"], self["model.embed_tokens.weight"]
        if not np.array_equal(head.array, embedding.array):
            raise ModelError(
                f"{self._folder}: lm_head.weight differs from model.embed_tokens.weight, but config.json ties them: "
                "set tie_word_embeddings to false"
            )


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a model and their shapes, a matrix as [outputs, inputs]; of a quantised one, its scales too."""
    hidden, vocab = config.hidden_size, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(config.num_layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    if config.is_quantised:
        shapes |= {scale_name(name): shape[:1] for name, shape in shapes.items() if len(shape) == 2}
    return shapes


def num_matrix_values(config: ModelConfig) -> int:
    """Of all that rows are multiplied with; an embedding is, if it is the head too."""
    return sum(
        math.prod(shape)
        for name, shape in expected_shapes(config).items()
        if len(shape) == 2 and (config.tie_word_embeddings or name != "model.embed_tokens.weight")
    )


def matrix_bytes(config: ModelConfig, num_bytes: int, dtype: str, *, is_widened: bool) -> int:
    """Of all matrices as they are multiplied with, of a checkpoint of so many bytes: as stored, unless they are wider.

    Args:
        config: of the model.
        num_bytes: of its tensors.
        dtype: computed in.
        is_widened: whether the matrices are copied to that.
    """
    stored = num_bytes / sum(map(math.prod, expected_shapes(config).values()))
    computed = 2 if dtype == "bfloat16" else 4
    return int(num_matrix_values(config) * (computed if is_widened else min(stored, computed)))


def scale_name(matrix: str) -> str:
    """Of the tensor with a quantised matrix's scales, one for each output."""
    return f"{matrix}_scale"


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, intermediate = config.hidden_size, config.intermediate_size
    query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    projections = {
        "self_attn.q_proj": (query, hidden, config.qkv_bias),
        "self_attn.k_proj": (key_value, hidden, config.qkv_bias),
        "self_attn.v_proj": (key_value, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, query, config.output_bias),
        "mlp.gate_proj": (intermediate, hidden, config.mlp_bias),
        "mlp.up_proj": (intermediate, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, intermediate, config.mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for name, (outputs, inputs, has_bias) in projections.items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        if has_bias:
            shapes[f"{name}.bias"] = (outputs,)
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    return shapes


def fingerprint(folder: Path) -> str:
    """A checkpoint's identity, cheaply: its config, and each shard's size, header and ends."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for shard in _shards(folder):
        size = shard.stat().st_size
        digest.update(f"{shard.name} {size} ".encode())
        with shard.open("rb") as file:
            digest.update(file.read(read_header(shard).start + FINGERPRINT_BYTES))
            file.seek(max(size - FINGERPRINT_BYTES, 0))
            digest.update(file.read())
    return digest.hexdigest()


def _listed(names: Sequence[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _shards(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in a fixed order."""
    if (folder / SINGLE_NAME).exists():
        return [folder / SINGLE_NAME]
    if not (folder / INDEX_NAME).exists():
        raise _no_weights(folder)
    index = Fields.read(folder / INDEX_NAME)
    shard_of = index.section("weight_map").values
    names = sorted(set(map(str, shard_of.values())))
    for name in names:
        # a name with a folder in it could point anywhere on the disk
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{index.path}: shard {short_repr(name)} is not a .safetensors file of the same folder")
        if not (folder / name).exists():
            raise ModelError(f"{folder / name} is missing, but {INDEX_NAME} names it: download the checkpoint again")
    if not names:
        raise index.wrong("weight_map", "an object that names a file for each tensor")
    return [folder / name for name in names]


def _no_weights(folder: Path) -> ModelError:
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        return ModelError(
            f"{folder / pickles[0]} is a pickle, which can run code and is never read: "
            "save the model as safetensors with transformers' save_pretrained"
        )
    return ModelError(f"{folder} has no {SINGLE_NAME} and no {INDEX_NAME}: give a folder with safetensors weights")
