"""One safetensors file, read in place. Knows no model.

    [0, 8)           length of the header, little-endian
    [8, start)       the header, JSON: name -> dtype, shape, [first, end) of its bytes counted from `start`
    [start, size)    the tensors' bytes, all of them, without gaps or overlaps

The safetensors library has no bfloat16 without torch, so the few lines that it takes to read one are here.
"""

from __future__ import annotations

import math
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ModelError
from outrider.model.fields import Fields

StoredDtype = Literal["F32", "BF16", "I8"]

MAX_HEADER_BYTES = 100_000_000  # the format's own limit

# numpy has no bfloat16: its bits are seen as uint16
_NUMPY_DTYPES: dict[StoredDtype, type[np.generic]] = {"F32": np.float32, "BF16": np.uint16, "I8": np.int8}


class RawTensor(NamedTuple):
    """A tensor as stored: a read-only view of the file: float32, int8, or the bits of bfloat16 as uint16."""

    dtype: StoredDtype
    array: NDArray[Any]


def as_float32(raw: RawTensor) -> NDArray[np.float32]:
    """The numbers of a float32 tensor, as they stand; of a bfloat16 one, which is the upper half of that, a copy."""
    assert raw.dtype != "I8", "an int8 matrix is nothing without its scales"
    return raw.array if raw.dtype == "F32" else (raw.array.astype(np.uint32) << 16).view(np.float32)


class Entry(NamedTuple):
    """A tensor's line in the header."""

    name: str
    dtype: StoredDtype
    shape: tuple[int, ...]
    first: int
    end: int


class Header(NamedTuple):
    """The tensors of a file in the order of their bytes, which begin at `start`."""

    entries: list[Entry]
    start: int


def read_shard(path: Path) -> dict[str, RawTensor]:
    """Map the tensors of a file; their bytes are read when they are used.

    Raises:
        ModelError: the file is truncated, damaged, or holds another dtype than float32, bfloat16 and int8.
    """
    header = read_header(path)
    if not header.entries:
        return {}
    data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r", offset=header.start))
    tensors: dict[str, RawTensor] = {}
    for name, dtype, shape, first, end in header.entries:
        array = data[first:end].view(_NUMPY_DTYPES[dtype]).reshape(shape)
        # the format does not promise alignment; a tensor off it is copied
        tensors[name] = RawTensor(dtype, np.require(array, requirements="A"))
    return tensors


def read_header(path: Path) -> Header:
    """Read and check what a file says of its tensors, without touching them."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _damaged(path, f"its header would be {length} bytes long in a file of {size}")
            fields = Fields.parse(path, file.read(length))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    entries = [_read_entry(fields, name) for name in fields.values if name != "__metadata__"]
    entries.sort(key=lambda entry: (entry.first, entry.end))
    _check_layout(path, entries, size - 8 - length)
    return Header(entries, 8 + length)


def _read_entry(header: Fields, name: str) -> Entry:
    fields = header.section(name)
    dtype, shape, offsets = fields.values.get("dtype"), fields.counts("shape"), fields.counts("data_offsets")
    for stored, numpy_dtype in _NUMPY_DTYPES.items():
        if dtype == stored:
            num_bytes = math.prod(shape) * np.dtype(numpy_dtype).itemsize
            if len(offsets) != 2 or offsets[1] - offsets[0] != num_bytes or not num_bytes:
                raise _damaged(header.path, f"{short_repr(name)} of shape {shape} stands at bytes {offsets}")
            return Entry(name, stored, shape, *offsets)
    raise ModelError(
        f"{header.path}: tensor {short_repr(name)} has dtype {short_repr(dtype)}, but F32 and BF16 are read: "
        "load the model with transformers and save_pretrained it in float32 or bfloat16"
    )


def _check_layout(path: Path, entries: list[Entry], num_bytes: int) -> None:
    position = 0
    for entry in entries:
        if entry.first != position:
            raise _damaged(path, f"tensor {short_repr(entry.name)} begins at byte {entry.first}, not {position}")
        position = entry.end
    if position != num_bytes:
        raise _damaged(path, f"it holds {num_bytes} bytes of tensors, and its header speaks of {position}")


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is truncated or damaged, download it again: {what}")
