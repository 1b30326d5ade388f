"""Tables of plain values, checked when they are made, and their TOML. Knows nothing of what they are about.

A table is a dataclass that extends `Part`; what a field may be is in its metadata. The TOML is written by hand, because
the standard library only reads it.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from outrider.errors import ParameterError

MAX_TEXT_LENGTH = 4096
MAX_ENTRIES = 64
MAX_WHOLE = 2**63 - 1  # where TOML's integers end

Metadata = dict[str, Any]
SomePart = TypeVar("SomePart", bound="Part")


def metadata(wanted: str, holds: Callable[[Any], bool]) -> Metadata:
    """What a field's value must be, in words and as a test."""
    return {"wanted": wanted, "holds": holds}


def whole(least: int, most: int = MAX_WHOLE) -> Metadata:
    """A whole number within these, both included."""
    wanted = f"a whole number, {least} or more" if most == MAX_WHOLE else f"a whole number between {least} and {most}"
    return metadata(wanted, lambda value: _is_whole(value, least, most))


def number(least: float, most: float = math.inf) -> Metadata:
    """A finite number within these, both included."""
    wanted = f"a number, {least} or more" if most == math.inf else f"a number between {least} and {most}"
    return metadata(wanted, lambda value: _is_number(value, least, most))


def numbers(least: float, most: float = math.inf) -> Metadata:
    """Several of them, or none."""
    wanted = f"a list of at most {MAX_ENTRIES} numbers, each {least} or more" + f" and {most} or less" * (
        most < math.inf
    )
    return metadata(wanted, lambda values: _are_numbers(values, least, most))


def one_of(*choices: str) -> Metadata:
    """One of these texts."""
    return metadata("one of " + ", ".join(choices), lambda value: isinstance(value, str) and value in choices)


# To Python a truth value is a number; here it is a slip.
def _is_whole(value: object, least: int, most: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and least <= int(value) <= most


def _is_number(value: object, least: float, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return math.isfinite(value) and least <= float(value) <= most


def _are_numbers(values: object, least: float, most: float) -> bool:
    if not isinstance(values, tuple):
        return False
    entries = cast("tuple[object, ...]", values)
    return len(entries) <= MAX_ENTRIES and all(_is_number(entry, least, most) for entry in entries)


def _is_interval(value: object) -> bool:
    if not _are_numbers(value, 0, math.inf):
        return False
    ends = cast("tuple[float, ...]", value)
    return len(ends) == 2 and ends[0] <= ends[1]


def _is_text(value: object) -> bool:
    # half of a surrogate pair is no character and cannot be saved
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TEXT_LENGTH
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )


def _are_texts(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(_is_text(name) and _is_text(text) for name, text in cast("Mapping[Any, Any]", value).items())


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


TEXT = metadata(f"a text of 1 to {MAX_TEXT_LENGTH} characters", _is_text)
TEXTS_BY_NAME = metadata("a table of texts", _are_texts)
SHA256 = metadata("64 digits of 0 to 9 and a to f", _is_sha256)
SWITCH = metadata("true or false", lambda value: isinstance(value, bool))
INTERVAL = metadata("two numbers, 0 or more, the lower first", _is_interval)


class Part:
    """A table: what its fields' metadata ask for holds from the start.

    Raises:
        ParameterError: a value is of the wrong type or out of its range, or two contradict each other.
    """

    __slots__ = ()
    place: ClassVar[str]

    def __post_init__(self) -> None:
        for each in fields(cast("Any", self)):
            value = getattr(self, each.name)
            is_absent = value is None and each.default is None
            if each.metadata and not is_absent and not each.metadata["holds"](value):
                refuse(f"{self.place}.{each.name}", value, each.metadata["wanted"])
        self.check_together()

    def check_together(self) -> None:
        """Raise ParameterError if values that are right alone do not go together."""


def refuse(name: str, value: object, wanted: str) -> NoReturn:
    """Raise ParameterError: what it is, and what it must be."""
    raise ParameterError(f"{name} is {value!r:.200}, but must be {wanted}")


def refuse_unknown(place: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ParameterError for a name that is not known, with the one that it resembles most."""
    for name in names:
        if name in (choices := list(known)):
            continue
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(choices)}"
        raise ParameterError(f"{place}{name!r:.80} is unknown: {remedy}")


def part_of(kind: type[SomePart], table: object) -> SomePart:
    """A part from what TOML gives.

    Raises:
        ParameterError: a name is unknown or missing, or a value is not as it must be.
    """
    if not isinstance(table, dict):
        refuse(kind.place, table, "a table")
    values = cast("dict[str, Any]", table)
    known = fields(cast("Any", kind))
    refuse_unknown(f"{kind.place}: ", values, [each.name for each in known])
    for each in known:
        if each.default is MISSING and each.default_factory is MISSING and each.name not in values:
            raise ParameterError(f"{kind.place}.{each.name} is missing: it must be {each.metadata['wanted']}")
    return kind(
        **{
            name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )


def parts_of(kind: type[SomePart], tables: object) -> tuple[SomePart, ...]:
    """Each of an array of tables. Raises as `part_of`."""
    if not isinstance(tables, list):
        refuse(kind.place, tables, f"tables, each under [[{kind.place}]]")
    return tuple(part_of(kind, table) for table in cast("list[object]", tables))


def lines_of(part: Part) -> list[str]:
    """A part as lines of TOML, in the order of its fields; what is None or holds other parts is left out."""
    found: list[str] = []
    for each in fields(cast("Any", part)):
        value = getattr(part, each.name)
        if each.metadata and value is not None and value != ():
            found.append(f"{each.name} = {_toml(value)}")
    return found


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Integral():
            return str(int(value))
        case Real():
            return repr(float(value))
        case str():
            # JSON's texts are TOML's, but for the character that only TOML wants written as a number
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            entries = cast("Mapping[str, Any]", value).items()
            return (
                "{ " + ", ".join(f"{_toml(name)} = {_toml(entry)}" for name, entry in entries) + " }"
                if entries
                else "{}"
            )
        case _:
            return "[" + ", ".join(map(_toml, value)) + "]"
