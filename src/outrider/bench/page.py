"""Pages that need nothing else: no scripts, no network, no other files. Knows templates; nothing of what they say.

`page.html` is what pages have in common: colours, tables, plots, and where the numbers come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FACTS = ("provenance", "models", "engine", "servers", "plan")


def render_page(
    template: Path,
    document: Mapping[str, Any],
    plots: Mapping[str, str],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """A page's HTML; whatever a document holds is text in it.

    Args:
        template: a file that extends `page.html`.
        document: what it is about.
        plots: SVG by title.
        filters: how the template writes values.
    """
    # It takes longer to import than a command without a page has to wait.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    folders = [template.parent, Path(__file__).parent]
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(folders),
    )
    environment.filters |= filters or {}
    facts = {key: document[key] for key in FACTS if key in document}
    return environment.get_template(template.name).render(
        document=document, plots=plots, facts=json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    )
