"""Every link leads somewhere."""

from __future__ import annotations

import re

import pytest

from tests.docs.documents import DOCUMENTS, name_of, prose, read

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """What headings are called in links: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken(path) -> list[str]:
    faults = []
    for link in LINK.findall(prose(path)):
        place, _, anchor = link.partition("#")
        if re.match(r"https?:", place):
            continue
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(read(target))):
            faults.append(link)
    return faults


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_to_files_and_headings(path):
    assert not broken(path)


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A head, and more\n[a](page.md#a-head-and-more) [b](#none) [c](gone.md) [d](https://example.com)\n"
    )
    assert broken(page) == ["#none", "gone.md"]


def test_every_page_can_be_reached_from_the_readme():
    readme, *pages = DOCUMENTS
    links = LINK.findall(read(readme))
    assert all(name_of(page) in links for page in pages)
