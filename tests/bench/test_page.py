"""Pages of a kind: one style, one frame, and whatever a document holds is text."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

import outrider
from outrider.bench.page import render_page

PACKAGE = Path(outrider.__file__).parent
EVIL = "<script>alert(1)</script>"
PLOTS = {EVIL: "<svg></svg>"}
CHECKED = {
    "is_partial": True,
    "verdict": {"sentences": [EVIL], "next_steps": [{"do": EVIL, "might_be_wrong": EVIL}], "uncertain": [EVIL]},
    "items": [dict.fromkeys(("name", "status", "value", "threshold", "why", "remedy"), EVIL)],
    "plan": EVIL,
}
TEMPLATES = [path for path in PACKAGE.rglob("*.html") if path.name != "page.html"]


def test_the_style_is_in_one_place():
    assert {path.parent.name for path in TEMPLATES} == {"bench", "remote", "peers", "check"}
    for path in TEMPLATES:
        source = path.read_text(encoding="utf-8")
        assert source.startswith('{% extends "page.html" %}')
        assert "style" not in source
        assert "<head" not in source


def test_a_page_frames_what_its_template_says():
    page = render_page(PACKAGE / "check/report.html", CHECKED, PLOTS)
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>Outrider: does speculation pay here?</title>" in page
    assert "prefers-color-scheme: dark" in page
    assert "Interrupted" in page
    assert page.count("<svg></svg>") == 1
    assert "<script" not in page
    # four of the verdict, six of the item with its status said twice, a plot's title and the plan
    assert page.count("&lt;script&gt;") == 4 + 7 + 1 + 1


def test_a_document_without_what_a_template_asks_for_is_no_page():
    with pytest.raises(UndefinedError):
        render_page(PACKAGE / "check/report.html", {"is_partial": False}, {})
