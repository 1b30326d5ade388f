"""Facts read from a JSON file with their types checked. Knows no model: the names come from the callers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, cast

from outrider.errors import ModelError
from outrider.files import read_bytes

MAX_COUNT = 2**31 - 1
# The largest of these lists the tensors of a model, and has a tenth of that.
MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A JSON object, and the file that it came from for the messages."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Fields:
        """Read a JSON file.

        Raises:
            ModelError: it is not there, cannot be read, is too long, or is not a JSON object.
        """
        try:
            with path.open("rb") as stream:
                return cls.parse(path, read_bytes(stream, MAX_JSON_BYTES, str(path), ModelError))
        except FileNotFoundError:
            raise ModelError(f"{path} is missing: give a folder that transformers' save_pretrained wrote") from None
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}): check its permissions") from error

    @classmethod
    def parse(cls, path: Path, text: bytes) -> Fields:
        """Read the JSON that stands in a file."""
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} is damaged, its JSON is not valid ({error}): download it again") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path} is damaged, its JSON is {short_repr(values)}, not an object: download it again")
        return cls(path=path, values=cast("dict[str, Any]", values))

    def with_defaults(self, defaults: Mapping[str, Any]) -> Fields:
        return Fields(path=self.path, values={**defaults, **self.values})

    def section(self, key: str) -> Fields:
        """The object under `key`; an absent or null one is empty."""
        values: Any = self.values.get(key) or {}
        if not isinstance(values, dict):
            raise self.wrong(key, "an object or null")
        return Fields(path=self.path, values=cast("dict[str, Any]", values))

    def count(self, key: str, *, minimum: int = 1) -> int:
        value = self.values.get(key)
        # JSON's true is an int to Python
        if type(value) is not int or not minimum <= value <= MAX_COUNT:
            raise self.wrong(key, f"a whole number from {minimum} to {MAX_COUNT}")
        return value

    def optional_count(self, key: str, *, minimum: int = 1) -> int | None:
        return None if self.values.get(key) is None else self.count(key, minimum=minimum)

    def counts(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers, or one."""
        values: list[Any] = self.elements(key) if isinstance(self.values.get(key), list) else [self.values.get(key)]
        if not all(type(value) is int and value >= 0 for value in values):
            raise self.wrong(key, "a list of whole numbers from 0")
        return tuple(values)

    def elements(self, key: str) -> list[Any]:
        """A list; an absent or null one is empty."""
        values: Any = self.values.get(key) or []
        if not isinstance(values, list):
            raise self.wrong(key, "a list or null")
        return cast("list[Any]", values)

    def number(self, key: str, *, above: float = 0.0) -> float:
        value: Any = self.values.get(key)
        # comparing a huge int with a float is exact, converting it would overflow; nan is never in between
        if type(value) not in (int, float) or not above < value < sys.float_info.max:
            raise self.wrong(key, f"a number above {above:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def wrong(self, key: str, wanted: str) -> ModelError:
        """The error for a value that cannot be."""
        found = f"is {short_repr(self.values[key])}" if key in self.values else "is missing"
        return ModelError(f"{self.path}: {key} {found}, but must be {wanted}: check the file or download it again")
