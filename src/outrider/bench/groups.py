"""Who is written together, and how a measurement is ended early. Knows nothing of what writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Interruption(NamedTuple):
    """How a measurement hears that it should end, and how it says where it is."""

    is_wanted: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda _: None


def parts(items: Sequence[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """All of them in order, this many at a time; the last part may be smaller."""
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))


def filled(items: Sequence[Item], size: int) -> list[tuple[Item, ...]]:
    """Groups of this size; the last is filled up from the beginning, if need be with an item twice."""
    groups = list(parts(items, size))
    while len(groups[-1]) < size:
        groups[-1] += tuple(items[: size - len(groups[-1])])
    return groups
