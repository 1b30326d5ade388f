"""A comparison as a page. Knows documents, no engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outrider.bench.page import render_page
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
    """The page's HTML."""
    # matplotlib takes longer to import than a comparison without a report has to wait, and is optional.
    from outrider.bench.plots import plots_of  # noqa: PLC0415

    return render_page(Path(__file__).with_name("report.html"), document, plots_of(document), FILTERS)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


FILTERS = {"milliseconds": _milliseconds, "share": _share, "number": _number}
