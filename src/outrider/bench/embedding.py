"""A small trained model inside a large one, and the small one made weaker: checkpoints from a checkpoint.

The large one's first layers hold the small model as blocks of their matrices, in the first dimensions of the residual;
everything beside the blocks is noise too small to matter, and never zero: a product with zeros could be cheaper than
one with weights. The layers after them are random, as a fresh model's are, but what they add to the residual is scaled
by epsilon. Normalising over more dimensions divides by another number, which the norms' weights make good.

Tensors are made one at a time from (seed, name), so that a file larger than memory can be written, and the same seed
and epsilon give the same bytes. Knows files and numbers; runs no model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ParameterError
from outrider.model.config import ModelConfig, read_config
from outrider.model.weights import SINGLE_NAME, Weights, as_float32, expected_shapes

# Of a fresh model's scale: lost in the rounding of bfloat16, whose step is 4e-3.
QUIET = 1e-6
GROUP_SIZE = 4
OUTPUTS = ("o_proj.weight", "down_proj.weight")
COPIED_FILES = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a target is to be; vocabulary, head width and context are the small model's."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int


class Embedding:
    """A small model inside a larger one.

    Args:
        source: folder of the small model: Qwen3, bf16, with a tied head.
        shape: of the larger one.
        seed: of all random numbers.

    Raises:
        ParameterError: the shape has no room for the small model.
    """

    def __init__(self, source: Path, shape: Shape, seed: int) -> None:
        self.source, self.shape, self.seed = source, shape, seed
        self.inner = read_config(source)
        self._inner_weights = Weights.from_folder(source)
        _check_room(self.inner, shape)

    @property
    def num_inner_parameters(self) -> int:
        return sum(math.prod(shape) for shape in expected_shapes(self.inner).values())

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self._shapes().values())

    def write(self, folder: Path, epsilon: float) -> None:
        """Write the whole checkpoint into an empty folder."""
        _copy(self.source, folder, COPIED_FILES)
        (folder / "config.json").write_text(json.dumps(self.model_config(), indent=2) + "\n", encoding="utf-8")
        shapes = self._shapes()
        _write_tensors(folder, shapes, lambda name: self._tensor(name, shapes[name], epsilon))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return expected_shapes(dataclasses.replace(self.inner, **dataclasses.asdict(self.shape)))

    def _tensor(self, name: str, shape: tuple[int, ...], epsilon: float) -> NDArray[np.float32]:
        if not self.holds(name):
            if len(shape) == 1:
                return np.ones(shape, np.float32)
            scale = epsilon if name.endswith(OUTPUTS) else 1.0
            return self._random(name, shape) * np.float32(scale)
        inner = self.inner_values(name, shape)
        if len(shape) == 1:
            return inner
        outer = self._random(name, shape) * np.float32(QUIET)
        outer[np.ix_(*self.places(name, inner.shape))] = inner
        return outer

    def inner_values(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The small model's tensor of this name; of a norm, its weights over the larger shape."""
        inner = as_float32(self._inner_weights[name])
        return self._norm_weights(inner, shape[0]) if len(shape) == 1 else inner

    def holds(self, name: str) -> bool:
        """Whether the small model has a part in this tensor; else it is random."""
        layer = _layer_of(name)
        return layer is None or layer < self.inner.num_layers

    def _norm_weights(self, inner: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        if len(inner) == size:  # over a head, whose width is the same
            return inner
        outer = np.ones(size, np.float32)  # where the residual is quiet
        outer[: len(inner)] = inner * np.float32(math.sqrt(len(inner) / size))
        return outer

    def places(self, name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """In which rows and columns of the larger matrix the small one's stand."""
        rows, columns = (np.arange(size) for size in shape)
        if name.endswith("q_proj.weight"):
            rows = self._head_places()
        if name.endswith("o_proj.weight"):
            columns = self._head_places()
        return rows, columns

    def _head_places(self) -> NDArray[np.int64]:
        """Places of the small model's query heads: each must find its own key-value head in its group."""
        inner_group = self.inner.num_heads // self.inner.num_kv_heads
        group = self.shape.num_heads // self.shape.num_kv_heads
        heads = np.arange(self.inner.num_heads)
        outer_heads = heads // inner_group * group + heads % inner_group
        return (outer_heads[:, None] * self.inner.head_dim + np.arange(self.inner.head_dim)).ravel()

    def _random(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Normal numbers that keep the size of what they are multiplied with."""
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        return generator.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)

    def model_config(self) -> dict[str, Any]:
        """What config.json says."""
        values = json.loads((self.source / "config.json").read_text(encoding="utf-8"))
        shape = self.shape
        return values | {
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_kv_heads,
            "layer_types": ["full_attention"] * shape.num_layers,
            "rms_norm_eps": self.inner.rms_norm_eps * self.inner.hidden_size / shape.hidden_size,
        }


def write_damped(source: Path, folder: Path, damping: float) -> None:
    """Write a model into an empty folder in which the last layers do less.

    What the last four layers add to the residual is multiplied by `1 - damping`; when that is nothing, it is the turn
    of the four before. Nothing becomes zero, so that the model costs what it did.

    Args:
        source: folder of the model: bf16, with a tied head.
        folder: to write into.
        damping: from 0, which changes nothing, up to a quarter of the number of layers.
    """
    config, weights = read_config(source), Weights.from_folder(source)

    def damped(name: str) -> NDArray[np.float32]:
        values = as_float32(weights[name])
        if not name.endswith(OUTPUTS):
            return values
        group = (config.num_layers - 1 - (_layer_of(name) or 0)) // GROUP_SIZE
        return values * np.float32(max(1 - min(max(damping - group, 0.0), 1.0), QUIET))

    _copy(source, folder, ("config.json", *COPIED_FILES))
    _write_tensors(folder, expected_shapes(config), damped)


def as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite numbers rounded to the nearest, ties to even; as bits, since numpy has no such type."""
    bits = values.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def _layer_of(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[1] == "layers" else None


def _copy(source: Path, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        shutil.copyfile(source / name, folder / name)


def _write_tensors(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], make: Callable[[str], NDArray[np.float32]]
) -> None:
    """Write a safetensors file in bf16, one tensor after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with (folder / SINGLE_NAME).open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            file.write(as_bfloat16(make(name)).tobytes())


def _check_room(inner: ModelConfig, shape: Shape) -> None:
    if shape.num_heads % shape.num_kv_heads:
        raise ParameterError(f"{shape.num_heads} heads do not share {shape.num_kv_heads} key-value heads evenly")
    group, inner_group = shape.num_heads // shape.num_kv_heads, inner.num_heads // inner.num_kv_heads
    room = {
        "hidden_size": (shape.hidden_size, inner.hidden_size),
        "intermediate_size": (shape.intermediate_size, inner.intermediate_size),
        "num_layers": (shape.num_layers, inner.num_layers + 1),
        "num_kv_heads": (shape.num_kv_heads, inner.num_kv_heads),
        "heads of a key-value head": (group, inner_group),
    }
    for name, (size, least) in room.items():
        if size < least:
            raise ParameterError(f"{name} of the target is {size}, but the model inside it needs {least}")
