"""The page is one file that needs no other, says what the document says, and takes nothing in it for markup."""

from __future__ import annotations

import importlib.util
import re
from html.parser import HTMLParser

import pytest

from outrider.bench.report import page_of, write_report
from outrider.errors import UsageError
from tests.bench.documents import make_document, make_plan, make_run, make_text, make_written

# These name what an element is; nobody asks the network for them.
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
LOADING = {"script", "link", "img", "image", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}
EVIL = "<script>alert('$x_1$')</script>&\"'"


class Elements(HTMLParser):
    """Tags, references and text of a page; fails where they are not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.void = {"meta", "br", *LOADING}
        self.open, self.tags, self.references, self.text = [], set(), [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def full_document(name="code", **facts):
    plan = make_plan({name: "ab", "prose": "c"}, temperatures=(0.0, 1.0), concurrencies=(1, 4))
    texts = [
        make_text(workload, prompt, temperature=temperature)
        for workload, prompt in ((name, "a"), (name, "b"), ("prose", "c"))
        for temperature in (0.0, 1.0)
    ]
    runs = [
        make_run(text, 4.0, 1.0 if text.prompt.name == "b" else 2.0, concurrency=concurrency)
        for text in texts
        for concurrency in (1, 4)
    ]
    runs.append(make_run(texts[0], 4.0, make_written(1.0, token_ids=range(5))))
    texts.append(make_text(name, "d", fault="ends after 3 tokens"))
    return make_document(plan, runs, texts, **facts)


@pytest.fixture(scope="module")
def page():
    return page_of(full_document())


def test_the_page_needs_nothing_else(page):
    elements = Elements(page)
    assert not elements.tags & LOADING
    assert all(reference.startswith("#") for reference in elements.references)
    assert set(re.findall(r"https?://[^\s\"'<>)]+", page)) <= NAMESPACES
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_the_page_shows_plots_in_colours_of_its_own(page):
    assert page.count("<svg") == 4
    assert "var(--series-1)" in page
    drawn = page[page.index("<svg") :]
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn), "a colour that does not follow light and dark"
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_the_document_says(page):
    text = " ".join(" ".join(Elements(page).text).split())
    assert "3.00 [2.00, 4.00]" in text
    assert "4.0 7.5 1.88" in text  # tokens a second of all texts together
    assert "ends after 3 tokens" in text
    assert "came out different" in text
    assert "from token 5 on, against what this engine promises" in text
    assert "target weights 21.0" in text
    assert "outrider bench" in text
    assert "Interrupted" not in text
    assert "Interrupted" in page_of(make_document(make_plan({"code": "a"}), [], is_partial=True))


def test_names_are_text_wherever_they_stand():
    page = page_of(full_document(EVIL, provenance={"command": EVIL}, memory_bytes={EVIL: 1}))
    assert "script" not in Elements(page).tags
    text = "".join(Elements(page).text)
    assert text.count(EVIL) > 4
    assert page.count("<svg") == 4


def test_a_page_about_nothing_is_a_page():
    page = page_of(make_document(make_plan({"code": "a"}), []))
    Elements(page)
    assert "nothing measured" in page
    assert "<svg" not in page


def test_a_page_is_written_whole(tmp_path):
    write_report(tmp_path / "bench.html", make_document(make_plan({"code": "a"}), []))
    assert [path.name for path in tmp_path.iterdir()] == ["bench.html"]
    assert (tmp_path / "bench.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    with pytest.raises(UsageError, match=r"pip install 'outrider\[report\]'"):
        write_report(tmp_path / "bench.html", make_document(make_plan({"code": "a"}), []))
    assert not list(tmp_path.iterdir())
