"""A comparison with peers as a page. Knows documents, no engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outrider.bench.page import render_page
from outrider.bench.provenance import write_text
from outrider.bench.report import FILTERS


def write_peers_report(path: Path, document: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    write_text(path, peers_page(document))


def peers_page(document: Mapping[str, Any]) -> str:
    """The page's HTML."""
    return render_page(Path(__file__).with_name("report.html"), document, {}, FILTERS)
