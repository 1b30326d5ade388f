"""What was found as one page that needs nothing else: no scripts, no network, no other files. Knows no engines."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def page_of(document: Mapping[str, Any]) -> str:
    """The page's HTML; whatever a document holds is text in it. Without matplotlib it has no plots."""
    # Both take longer to import than a checklist without a report has to wait, and matplotlib is optional.
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    plots: dict[str, str] = {}
    if importlib.util.find_spec("matplotlib") is not None:
        from outrider.check.plots import plots_of  # noqa: PLC0415

        plots = plots_of(document)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    facts = {key: document.get(key) for key in ("provenance", "models", "engine", "plan")}
    return template.render(
        document=document, plots=plots, facts=json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    )
