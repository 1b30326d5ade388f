"""How long the checklist may take, what is still worth beginning, and what was left out. Knows seconds."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable

from outrider.errors import ParameterError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MIN_SECONDS = 5.0


class Budget:
    """Seconds from now on.

    Attributes:
        skipped: what was not measured, and why, in words.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self.seconds = seconds
        self.skipped: list[str] = []

    @property
    def used(self) -> float:
        return self._clock() - self._began

    def is_spent(self, share: float = 1.0) -> bool:
        """Whether this share of the whole has passed."""
        return self.used >= share * self.seconds

    def has_room(self, seconds: float, share: float = 1.0) -> bool:
        """Whether so many seconds more end within this share of the whole."""
        return self.used + seconds <= share * self.seconds

    def part(self, share: float) -> Budget:
        """The same, but that it ends after this share; what is skipped is named in both."""
        found = copy.copy(self)
        found.seconds = share * self.seconds
        return found

    def skip(self, what: str) -> None:
        """Name what is not measured, once."""
        if what not in self.skipped:
            self.skipped.append(what)


def parse_seconds(text: str) -> float:
    """Seconds of "5m", "90s" or "90".

    Raises:
        ParameterError: it is no such time, or too short for anything to be measured.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(s|m|min|h)?", text.strip(), re.ASCII)
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    if seconds < MIN_SECONDS:
        raise ParameterError(f"--budget is {text!r}, but must be a time of {MIN_SECONDS:g} s or more: try 5m or 90s")
    return seconds
