"""The documents and their parts, for the tests that read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.architecture.sources import ROOT, project_files

README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
GLOSSARY = ROOT / "docs/glossary.md"
LOSSLESSNESS = ROOT / "docs/losslessness.md"
LOOP = ROOT / "docs/loop.svg"
DOCUMENTS = [README, *project_files("docs/*.md")]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block, and the line on which its content begins."""

    language: str
    content: str
    line: int


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[Block]:
    text = read(path)
    found = [Block(match[1], match[2], text[: match.start(2)].count("\n") + 1) for match in FENCE.finditer(text)]
    return [block for block in found if block.language == language]


def prose(path: Path) -> str:
    return FENCE.sub("", read(path))


def code_spans(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def table(path: Path) -> list[list[str]]:
    """Cells of the document's first table, without its head."""
    lines = [line for line in read(path).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
