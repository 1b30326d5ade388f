"""One line of the checklist: what was found, against what, why that matters and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A finding.

    Attributes:
        name: of what was looked at.
        status: pass; warn, if something is worth knowing; fail, if speculation cannot work so, or must not be judged.
        value: as measured, with its unit, in words; "not measured" says why in `why`.
        threshold: what it is held against.
        why: it matters.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    value: str
    threshold: str
    why: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
