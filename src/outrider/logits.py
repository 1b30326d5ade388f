"""A row of logits that a device still holds: what greedy decoding needs of it comes alone, the rest when looked at.

Knows neither sampling nor devices: a runtime says how each is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray


class Likeliest(NamedTuple):
    """Of each row the first of the largest logits' ids, and how far it is above all others, in float32.

    The lead is no number where a row's logits cannot be trusted: then the row itself must be looked at.
    """

    token_ids: NDArray[np.int64]  # [rows]
    leads: NDArray[np.float32]  # [rows]


class DeviceRow:
    """One row [vocab]; `np.asarray` brings all of it."""

    def __init__(self, rows: DeviceLogits, index: int) -> None:
        self._rows, self._index = rows, index

    def likeliest(self) -> tuple[int, float] | None:
        """The largest logit's id and its lead; None if the row itself must be looked at."""
        found = self._rows.likeliest()
        lead = float(found.leads[self._index])
        return (int(found.token_ids[self._index]), lead) if np.isfinite(lead) else None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._rows.fetch()[self._index], dtype=dtype, copy=copy)


class DeviceLogits:
    """Rows [rows, vocab], fetched together and once, when the first is looked at; valid as `ModelOutput.logits` is."""

    dtype = np.dtype(np.float32)

    def __init__(
        self, shape: tuple[int, int], fetch: Callable[[], NDArray[np.float32]], likeliest: Callable[[], Likeliest]
    ) -> None:
        self.shape = shape
        self._fetch, self._fetch_likeliest = fetch, likeliest
        self._fetched: NDArray[np.float32] | None = None
        self._likeliest: Likeliest | None = None

    def fetch(self) -> NDArray[np.float32]:
        """All rows, on the host."""
        if self._fetched is None:
            self._fetched = self._fetch()
        return self._fetched

    def likeliest(self) -> Likeliest:
        """Of all rows."""
        if self._likeliest is None:
            self._likeliest = self._fetch_likeliest()
        return self._likeliest

    def copy(self) -> NDArray[np.float32]:
        """All rows, which the next forward leaves alone."""
        return self.fetch().copy()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """A row as it is; of rows, those that are still a device's; of anything else, numbers."""
        if isinstance(index, int):
            return DeviceRow(self, range(self.shape[0])[index])
        if isinstance(index, tuple):
            rows, columns = cast("tuple[Any, slice]", index)
            is_all = columns.start is None and columns.stop >= self.shape[1]
            return self[rows] if is_all else self.fetch()[rows, columns]
        if isinstance(index, slice):
            return [DeviceRow(self, row) for row in range(self.shape[0])[index]]
        return self.fetch()[index]

    def __iter__(self) -> Iterator[DeviceRow]:
        return iter(self[:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.fetch(), dtype=dtype, copy=copy)
