"""What the documents say of the code's shape is its shape."""

from __future__ import annotations

import re
import tomllib
from typing import get_args
from xml.etree import ElementTree as ET

from outrider.engine import engine
from outrider.request import Exactness
from outrider.stats import SequenceStats
from outrider.tree import DraftBudget, TokenTree, Verdict
from tests.architecture.sources import ROOT, project_files
from tests.architecture.test_words import BANNED_WORDS
from tests.docs.documents import ARCHITECTURE, GLOSSARY, LOOP, LOSSLESSNESS, README, blocks, code_spans, read, table

PACKAGE = ROOT / "src/outrider"
STAGES = re.findall(r"[a-z]+", engine.__doc__.partition(".")[0].partition(": ")[2])


def rooms() -> set[str]:
    """Modules and folders at the package's root."""
    parts = [path.relative_to(PACKAGE).parts for path in project_files("src/outrider/*.py")]
    return {first.removesuffix(".py") for first, *_ in parts} - {"__init__"}


def layers(lines: list[str]) -> list[set[str]]:
    return [{name.strip(" ()") for name in line.split("|")} for line in lines]


def test_rooms_are_those_of_the_import_contract_and_of_the_package():
    (block,) = blocks(ARCHITECTURE, "layers")
    shown = layers(block.content.splitlines())
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "layers"]
    assert shown == layers(contract["layers"])
    assert set().union(*shown) == rooms()


def test_the_stages_are_those_of_the_loop_in_its_order():
    assert len(STAGES) == 8
    in_table = [cells[0] for cells in table(ARCHITECTURE)][: len(STAGES)]
    names = [text.text for text in ET.parse(LOOP).iter() if text.get("class") == "stage"]  # noqa: S314 - ours
    assert in_table == STAGES
    assert names == ["the text so far", *STAGES]


def test_files_in_the_picture_exist():
    texts = [text.text for text in ET.parse(LOOP).iter() if text.get("class") == "file"]  # noqa: S314 - ours
    assert all((PACKAGE / name).exists() for text in texts for name in text.split(", "))


def test_the_file_tree_has_everything_and_nothing_else():
    (block,) = blocks(README, "text")
    shown = [(line.startswith("  "), *line.split(maxsplit=1)) for line in block.content.splitlines()]
    paths = {(PACKAGE / name if inside else ROOT / name) for inside, name, _ in shown}
    assert all(path.exists() for path in paths)
    assert {path.name.removesuffix(".py") for path in paths if path.parent == PACKAGE} == rooms() - {"__main__"}
    at_root = {path.relative_to(ROOT).parts[0] for path in project_files()}
    missing = at_root - {path.relative_to(ROOT).parts[0] for path in paths}
    assert {name for name in missing if not name.startswith(".")} == {"README.md"}


def test_the_tour_has_six_files():
    tour = read(README).partition("## A tour")[2].partition("## ")[0]
    assert re.findall(r"^(\d)\. \[", tour, re.MULTILINE) == list("123456")


def test_words_of_the_glossary_are_the_codes_own():
    sources = "\n".join(
        read(path) for folder in ("src", "scripts", "benchmarks") for path in project_files(f"{folder}/*.py")
    )
    in_code = set(re.findall(r"\w+", sources))
    for word, identifiers, meaning in table(GLOSSARY):
        for identifier in re.findall(r"`(\w+)`", identifiers):
            assert (identifier in in_code) != meaning.startswith("Reserved: "), word


def test_what_is_counted_and_decided_is_in_the_glossary():
    ratios = {name for name, value in vars(SequenceStats).items() if isinstance(value, property)}
    wanted = {*Verdict._fields, "num_accepted", *ratios, TokenTree.__name__, DraftBudget.__name__}
    assert wanted <= set(code_spans(GLOSSARY))


def test_words_that_are_refused_are_named_in_the_glossary():
    assert all(word in read(GLOSSARY) for word in BANNED_WORDS)


def test_every_level_of_exactness_is_explained():
    assert [cells[0].strip("`") for cells in table(LOSSLESSNESS)] == list(get_args(Exactness))
