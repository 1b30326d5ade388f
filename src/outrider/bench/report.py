"""A comparison as one page that needs nothing else: no scripts, no network, no other files. Knows no engines."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outrider.bench.provenance import write_text
from outrider.errors import UsageError


def check_report(path: Path) -> None:
    """Make sure that a report can be made.

    Raises:
        UsageError: what draws its plots is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"{path.name} needs matplotlib for its plots: pip install 'outrider[report]'")


def write_report(path: Path, document: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Raises:
        UsageError: it cannot be written, or matplotlib is not installed.
    """
    check_report(path)
    write_text(path, page_of(document))


def page_of(document: Mapping[str, Any]) -> str:
    """The page's HTML; whatever a document holds is text in it."""
    # Both take longer to import than a comparison without a report has to wait, and matplotlib is optional.
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    from outrider.bench.plots import plots_of  # noqa: PLC0415

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"milliseconds": _milliseconds, "share": _share, "number": _number}
    template = environment.from_string((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    facts = {key: document.get(key) for key in ("provenance", "models", "engine", "plan")}
    return template.render(
        document=document, plots=plots_of(document), facts=json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
