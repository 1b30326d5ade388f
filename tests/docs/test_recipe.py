"""The recipe in the documents is one, and for the pair that it names."""

from __future__ import annotations

from outrider import bundled_pair
from outrider.export.engines import EXPORTS
from outrider.model.weights import fingerprint
from outrider.recipe import parse_recipe
from tests.architecture.sources import ROOT
from tests.docs.documents import blocks, table

PAGE = ROOT / "docs/export.md"


def test_the_recipe_is_for_the_bundled_pair():
    (block,) = blocks(PAGE, "toml")
    recipe = parse_recipe(block.content)
    recipe.check_target(fingerprint(bundled_pair().target))
    recipe.check_draft(0, fingerprint(bundled_pair().draft))
    assert all(export(recipe).depth > 0 for export in EXPORTS.values())


def test_the_table_has_every_engine_by_its_version():
    (block,) = blocks(PAGE, "toml")
    recipe = parse_recipe(block.content)
    assert {cells[0] for cells in table(PAGE)} == {export(recipe).engine for export in EXPORTS.values()}
