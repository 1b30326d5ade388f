"""What was found as a page. Knows documents, no engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outrider.bench.page import render_page


def page_of(document: Mapping[str, Any]) -> str:
    """The page's HTML. Without matplotlib it has no plots."""
    plots: dict[str, str] = {}
    if importlib.util.find_spec("matplotlib") is not None:
        # It takes longer to import than a checklist without a report has to wait.
        from outrider.check.plots import plots_of  # noqa: PLC0415

        plots = plots_of(document)
    return render_page(Path(__file__).with_name("report.html"), document, plots)
