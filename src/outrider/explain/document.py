"""Which result a file holds, and its story. Reads JSON that may have been written by anything.

Results are told apart by what only they have. What looks like one and then lacks what every one of its kind has is
refused like any other file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from outrider.errors import UsageError
from outrider.explain.of_bench import explain_bench
from outrider.explain.of_check import explain_check
from outrider.explain.of_run import explain_run
from outrider.explain.story import KINDS, Kind, Story

MAX_BYTES = 256 * 1024 * 1024
_KEYS: dict[Kind, frozenset[str]] = {
    "run": frozenset({"engine", "sequences"}),
    "bench": frozenset({"engine", "rows", "measurements", "plan"}),
    "check": frozenset({"verdict", "items", "predictions", "plan"}),
}
_OTHERS = {
    frozenset({"verdict", "replay", "sequential"}): "the result of an audit, which says why itself",
    frozenset({"verifier", "distance", "num_cases"}): "the certificate of a verifier",
    frozenset({"to", "command", "files"}): "an export",
    frozenset({"servers", "rows", "plan"}): "the result of `outrider bench --url`, and a server does not say where its "
    "time goes, so there is nothing to explain",
}
_EXPLAIN: dict[Kind, Callable[[dict[str, Any]], Story]] = {
    "run": explain_run,
    "bench": explain_bench,
    "check": explain_check,
}


def explain_file(path: Path) -> Story:
    """The story of a result.

    Raises:
        UsageError: it cannot be read, is no JSON, or is no result that can be explained.
    """
    document = _read(path)
    kind = kind_of(document)
    if kind is None:
        known = ", ".join(KINDS.values())
        raise UsageError(f"{path} is {_looks_like(document)}: name one of these: {known}")
    try:
        return _EXPLAIN[kind](document)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # Whoever edits a result by hand may have broken it anywhere.
        raise UsageError(
            f"{path} has the keys of {KINDS[kind]}, but is not whole ({type(error).__name__}: {error}): make it again"
        ) from error


def kind_of(document: object) -> Kind | None:
    """Which result it is; None if it is none."""
    if not isinstance(document, dict):
        return None
    names = set(cast("dict[str, object]", document))
    return next((kind for kind, keys in _KEYS.items() if keys <= names), None)


def _looks_like(document: object) -> str:
    if not isinstance(document, dict):
        return f"JSON, but {type(document).__name__} and no object"
    names = list(cast("dict[str, object]", document))
    other = next((words for keys, words in _OTHERS.items() if keys <= set(names)), None)
    if other is not None:
        return other
    shown = ", ".join(name[:40] for name in names[:5]) or "no keys at all"
    return f"a JSON object of another kind, with {shown}"


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the result {path} ({error.strerror}): name a readable file") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes, the most that are read: explain a smaller result")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is no JSON that can be read ({error}): name a result that was saved with --json"
        ) from error
