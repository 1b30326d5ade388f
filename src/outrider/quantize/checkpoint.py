"""Writes a checkpoint anew with int8 matrices, one scale for each output. Knows files and numbers; runs no model.

An int8 matrix here has 127 levels, from -63 to 63, half of what its type has room for. A processor without VNNI adds
pairs of products in 16 bits, where 255 * 63 * 2 fits and 255 * 127 * 2 does not: so sums are exact on all of them.
Matrices are read, rounded and written some rows at a time, so that a file larger than memory can be written.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ModelError, UsageError
from outrider.model.config import QUANT_METHOD, QUANT_VERSION, ModelConfig, read_config
from outrider.model.fields import Fields
from outrider.model.weights import SINGLE_NAME, RawTensor, Weights, as_float32, expected_shapes, scale_name

NUM_WEIGHT_STEPS = 63
CHUNK_VALUES = 2**24
COPIED = ("generation_config.json", "tokenizer*.json", "special_tokens_map.json", "chat_template*", "LICENSE*")

QUANTIZATION = {
    "quant_method": QUANT_METHOD,
    "version": QUANT_VERSION,
    "weights": f"int8, {-NUM_WEIGHT_STEPS} to {NUM_WEIGHT_STEPS}, a float32 scale for each output",
    "activations": "int8, -127 to 127, each row scaled by its largest when it is computed",
}


class Rounded(NamedTuple):
    """Some rows of a matrix as whole numbers, and what each row's are to be multiplied with."""

    levels: NDArray[np.int8]  # [rows, inputs]
    scales: NDArray[np.float32]  # [rows]


def round_rows(values: NDArray[np.float32]) -> Rounded:
    """Each row to the nearest of its 127 levels; a row of zeros stays one."""
    largest = np.abs(values).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(NUM_WEIGHT_STEPS), np.float32(1)).astype(np.float32)
    levels = np.rint(values / scales[:, None])
    return Rounded(np.clip(levels, -NUM_WEIGHT_STEPS, NUM_WEIGHT_STEPS).astype(np.int8), scales)


class Original:
    """The checkpoint that is to be quantised.

    Args:
        folder: of a float32 or bfloat16 checkpoint.

    Raises:
        ModelError: it holds no model that we compute.
        UsageError: it is quantised already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, read_config(folder)
        if self.config.is_quantised:
            raise UsageError(f"{folder} is quantized already: give the checkpoint that it was made from")
        self.weights = Weights.from_folder(folder)
        self.weights.check(self.config)

    @property
    def num_bytes(self) -> int:
        return self.weights.num_bytes

    @property
    def quantised_config(self) -> ModelConfig:
        return replace(self.config, is_quantised=True, dtype="float32")

    @property
    def num_quantised_bytes(self) -> int:
        """Of all tensors, once they are quantised."""
        shapes = expected_shapes(self.quantised_config).values()
        return sum(math.prod(shape) * (1 if len(shape) == 2 else 4) for shape in shapes)

    def write_quantised(self, folder: Path, report: Callable[[str], None]) -> None:
        """Write the whole checkpoint into an empty folder.

        Args:
            folder: to write into.
            report: is told how far it is.

        Raises:
            ModelError: a weight is not finite.
        """
        for pattern in COPIED:
            for path in self.folder.glob(pattern):
                shutil.copyfile(path, folder / path.name)
        values = dict(Fields.read(self.folder / "config.json").values)
        values.pop("torch_dtype", None)
        values |= {"dtype": "float32", "quantization_config": QUANTIZATION}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        with (folder / SINGLE_NAME).open("xb") as file:
            self._write_tensors(file, report)

    def _write_tensors(self, file: BinaryIO, report: Callable[[str], None]) -> None:
        """What is float32 comes first, so that all of it is aligned; its scales are filled in with their matrices."""
        shapes = expected_shapes(self.quantised_config)
        matrices = [name for name, shape in shapes.items() if len(shape) == 2]
        vectors = [name for name in shapes if name not in matrices]
        header: dict[str, Any] = {}
        position = 0
        for name in (*vectors, *matrices):
            dtype, size = ("I8", 1) if name in matrices else ("F32", 4)
            end = position + size * math.prod(shapes[name])
            header[name] = {"dtype": dtype, "shape": shapes[name], "data_offsets": [position, end]}
            position = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name in vectors:
            if name in self.weights.names:
                file.seek(start + header[name]["data_offsets"][0])
                file.write(_finite(self.weights[name], name).tobytes())
        for done, name in enumerate(matrices):
            report(f"rounding matrix {done + 1} of {len(matrices)}")
            file.seek(start + header[name]["data_offsets"][0])
            scales: list[NDArray[np.float32]] = []
            for rows in _chunks(self.weights[name], name):
                rounded = round_rows(rows)
                file.write(rounded.levels.tobytes())
                scales.append(rounded.scales)
            file.seek(start + header[scale_name(name)]["data_offsets"][0])
            file.write(np.concatenate(scales).tobytes())


def _chunks(raw: RawTensor, name: str) -> Iterator[NDArray[np.float32]]:
    num_rows = max(CHUNK_VALUES // raw.array.shape[1], 1)
    for first in range(0, len(raw.array), num_rows):
        yield _finite(RawTensor(raw.dtype, raw.array[first : first + num_rows]), name)


def _finite(raw: RawTensor, name: str) -> NDArray[np.float32]:
    values = as_float32(raw)
    if not np.isfinite(values).all():
        raise ModelError(f"tensor {name} holds numbers that are not finite: download the checkpoint again")
    return values
