"""Rows and their ancestry."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.runtime.base import SequenceRows


def rows(parents, num_rows=4):
    return SequenceRows(range(num_rows), 40, (0, 1), (), parents)


def test_a_row_descends_from_itself_and_its_ancestors():
    tree = rows([-1, 0, 0, 2])
    assert tree.depths() == [0, 1, 1, 2]
    np.testing.assert_array_equal(tree.lineage(), [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]])


@pytest.mark.parametrize("parents", [None, range(-1, 3)], ids=["nobody told", "told"])
def test_in_a_chain_each_row_follows_the_one_before(parents):
    assert rows(parents).depths() == [0, 1, 2, 3]
    np.testing.assert_array_equal(rows(parents).lineage(), np.tri(4))


@pytest.mark.parametrize(
    ("parents", "is_chain"), [(None, True), ([-1, 0, 1, 2], True), ([-1, 0, 0, 2], False), ([-1, 0, 1, 1], False)]
)
def test_a_tree_with_one_branch_is_a_chain(parents, is_chain):
    assert rows(parents).is_chain == is_chain
