"""Trees that the draft model draws: of a shape that is settled first, and with the verifier exact to the fraction."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from outrider import noise
from outrider.cache.table import BlockPool
from outrider.draft import drawn
from outrider.draft.drawn import DrawnTree
from outrider.draft.growth import settled_shape
from outrider.draft.making import Memory
from outrider.draft.model import ModelDrafter
from outrider.sampling import History, probabilities
from outrider.tree import ROOT, DraftBudget, TokenTree
from outrider.verify.cases import KINDS, make_models
from outrider.verify.enumerate import Case, Proposal, certify
from outrider.verify.traversal import TraversalVerifier
from tests.draft.drafting import start
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime

BUDGETS = {"[2; 1]": DraftBudget(2, 3, max_children=2), "[2; 1; 1]": DraftBudget(3, 4, max_children=3)}


def exact(logits: np.ndarray) -> np.ndarray:
    """The small fractions that were made logits of."""
    shares = [Fraction(float(share)).limit_denominator(100) for share in np.exp(logits.astype(np.float64))]
    return np.array([share / sum(shares) for share in shares])


def drawn_case(monkeypatch, kind: str, budget: DraftBudget, seed: int = 0, *, forgets_siblings: bool = False) -> Case:
    """The drafter's own code, with the enumeration's chance in place of noise."""
    models = make_models(kind, 3, seed)

    def propose(text, chance):
        def choose(left, _, row):
            return chance.pick(exact(left), (row.purpose, row.position, row.path))

        def recorded(left, _):
            return exact(np.log(models.draft(text).astype(float)) if forgets_siblings else left).astype(float)

        monkeypatch.setattr(
            drawn, "sampling", SimpleNamespace(choose=choose, probabilities=recorded, sureness=lambda *_: 0.0)
        )
        sequence = start(0, [0, *text], temperature=1.0)
        memory = Memory(BlockPool(8, lambda _: None), sequence.request)
        tree = DrawnTree(sequence, budget, budget.limit, memory, vocab_size=3)
        while tree.is_growing:
            contexts = [(*text, *tree.tree.tokens_to(node)) for node in tree._frontier]
            with np.errstate(divide="ignore"):
                tree.grow(np.log(np.array([models.draft(each) for each in contexts], dtype=np.float32)))
        found = [[Fraction(share).limit_denominator(100) for share in row] for row in tree.probabilities]
        return Proposal(tree.finish()[0], [np.array(row) for row in found])

    return Case(f"{kind} {seed}", models.target, propose, budget.max_depth + 1)


@pytest.mark.parametrize("shape", BUDGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_and_verified_has_exactly_the_targets_distribution(monkeypatch, kind, shape):
    assert certify(TraversalVerifier(), [drawn_case(monkeypatch, kind, BUDGETS[shape])]).distance == 0


def test_to_forget_in_the_books_that_siblings_differ_is_found(monkeypatch):
    budget = DraftBudget(1, 2, max_children=2)
    for forgets in (False, True):
        cases = [drawn_case(monkeypatch, "general", budget, seed, forgets_siblings=forgets) for seed in range(6)]
        assert (certify(TraversalVerifier(), cases).distance > 0) is forgets


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 9, 30])
@pytest.mark.parametrize("max_depth", [1, 3, 30])
@pytest.mark.parametrize("max_children", [1, 2, 5])
def test_a_shape_is_a_tree_within_its_limits(num_nodes, max_depth, max_children):
    parents = settled_shape(num_nodes, max_depth, max_children)
    tree = TokenTree((0,) * len(parents), parents)
    assert tree.is_valid(1)
    assert tree.depth <= max_depth
    assert len(tree) == min(num_nodes, sum(max_children**depth for depth in range(1, min(max_depth, num_nodes) + 1)))
    assert max(parents.count(parent) for parent in parents) <= max_children
    assert list(tree.depths()) == sorted(tree.depths())
    if max_children > 1 and num_nodes > 2:
        assert not tree.is_chain


PARAMS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 2, "top_p": 0.9},
    {"temperature": 1.3, "repetition_penalty": 1.6, "frequency_penalty": 0.8, "logit_bias": {4: 3.0}},
]


@pytest.mark.parametrize("params", PARAMS)
def test_what_is_recorded_is_what_was_drawn_from_and_the_shape_is_the_budgets(params):
    drafter = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, draws=True)
    budget = DraftBudget(8, 8, max_children=3)
    for index in range(10):
        sequence = start(index, [(index + 3 * place * place) % VOCAB_SIZE for place in range(30)], **params)
        draft = drafter.propose([sequence], [budget])
        (tree,), (recorded,) = draft.trees, draft.probabilities
        assert tree.parents == settled_shape(8, 8, 3)
        history = History(sequence.request)
        history.follow(sequence.token_ids)
        for node, parent in enumerate(tree.parents):
            path = tree.tokens_to(parent)
            left = np.array(history.process(drafter.runtime.logits([*sequence.token_ids, *path]), path))
            tried = [tree.tokens[other] for other in range(node) if tree.parents[other] == parent]
            left[tried] = -np.inf
            np.testing.assert_array_equal(recorded[node], probabilities(left, sequence.request.params))
            assert recorded[node, tree.tokens[node]] > 0
            assert tree.tokens[node] not in tried
    drafter.check()


def test_no_two_nodes_look_at_one_row_and_none_at_the_targets(monkeypatch):
    used = []
    row_key = noise.row_key
    monkeypatch.setattr(noise, "row_key", lambda address: used.append(address) or row_key(address))
    drafter = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, draws=True)
    (tree,) = drafter.propose([start(0, [1, 2], temperature=1.0)], [DraftBudget(8, 8, max_children=3)]).trees
    assert {row.purpose for row in used} == {"proposal"}
    assert {row.position for row in used} == {1}
    assert sorted(row.path for row in used) == sorted(tree.ranks_to(node) for node in range(8))


def test_where_nothing_is_left_to_draw_the_shape_is_filled_by_what_nobody_drew():
    sequence = start(0, [1, 2], temperature=1.0)
    drafter = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, draws=True)
    budget = DraftBudget(1, VOCAB_SIZE + 2, max_children=VOCAB_SIZE + 2)
    draft = drafter.propose([sequence], [budget])
    (tree,), (recorded,) = draft.trees, draft.probabilities
    assert sorted(tree.tokens[:VOCAB_SIZE]) == list(range(VOCAB_SIZE))
    assert recorded[VOCAB_SIZE:, 0].tolist() == [1, 1]
    np.testing.assert_allclose(recorded.sum(axis=1), 1)
    assert set(tree.parents) == {ROOT}
