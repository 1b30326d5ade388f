"""The draft model: where its chains stop, what it says that it did, and a cache that is full."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from outrider import noise, sampling
from outrider.cache.table import BLOCK_SIZE
from outrider.draft.model import MAX_PREFILL_ROWS, ModelDrafter
from outrider.policy.fixed import FixedPolicy
from outrider.tree import NO_DRAFT, DraftBudget
from tests.draft.drafting import budget, constant_worth, start
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, make_engine, plain_text, request, run


def make_drafter(max_blocks: int = 1000, **options) -> ModelDrafter:
    return ModelDrafter(FakeRuntime(min_rows=1, **options), max_blocks, VOCAB_SIZE)


def tokens(num_tokens: int, first: int = 0) -> list[int]:
    return [(first + 3 * index * index) % VOCAB_SIZE for index in range(num_tokens)]


@pytest.mark.parametrize(
    ("node_price", "step_price", "num_forwards", "num_nodes"),
    [
        (0.0, 0.0, 6, 6),
        (0.0, 0.2, 3, 3),  # survival is 1/2, 1/4, 1/8
        (0.2, 0.2, 3, 2),
        (0.1, 0.2, 3, 3),
        (0.0, 0.5, 2, 2),
        (0.9, 0.9, 1, 1),
    ],
)
def test_a_chain_stops_where_going_on_does_not_pay_and_drops_a_last_guess_that_does_not(
    node_price, step_price, num_forwards, num_nodes
):
    drafter = make_drafter()
    worth = constant_worth(0.5, node_price=node_price, step_price=step_price)
    draft = drafter.propose([start(0, [1, 2])], [DraftBudget(6, 6, worth)])
    assert len(drafter.runtime.batches) == draft.num_steps == num_forwards
    assert len(draft.trees[0]) == len(draft.scores[0]) == num_nodes


def test_a_guess_that_is_not_made_yet_is_judged_by_the_mean():
    drafter = make_drafter()
    worth = constant_worth(0.9, mean=0.2, step_price=0.15)  # 0.9 * 0.2 pays, 0.81 * 0.2 pays, 0.729 * 0.2 does not
    assert drafter.propose([start(0, [1, 2])], [DraftBudget(6, 6, worth)]).num_steps == 3


def test_chances_come_from_the_scores_of_the_guesses_and_sequences_stop_each_for_itself(monkeypatch):
    scores = iter([5.0, -5.0, 5.0, 0.0])  # both texts' first guesses, then the first text's others
    monkeypatch.setattr(sampling, "guess", lambda logits, params, row: (1, next(scores)))
    granted = budget(4, intercept=0.0, slope=1.0, step_price=0.5)
    draft = make_drafter().propose([start(0, [1, 2]), start(1, [3])], [granted, granted])
    assert draft.scores == [(5.0, 5.0, 0.0), (-5.0,)]
    assert draft.num_steps == 3


def test_what_had_to_be_caught_up_is_counted_and_no_more_than_that():
    drafter = make_drafter()
    sequence = start(0, tokens(100))
    assert drafter.propose([sequence], [budget(4)]).num_caught_up == 98
    sequence.token_ids += tokens(1, first=5)  # nothing was accepted
    assert drafter.propose([sequence], [budget(4)]).num_caught_up == 0
    sequence.token_ids += (*drafter.propose([sequence], [budget(4)]).trees[0].tokens, 1)  # everything was
    assert drafter.propose([sequence], [budget(4)]).num_caught_up == 0
    sequence.token_ids += tokens(10, first=7)
    assert drafter.propose([sequence], [NO_DRAFT]).num_caught_up == 0
    assert drafter.propose([sequence], [budget(4)]).num_caught_up == 8


def test_prompts_are_caught_up_with_together_in_forwards_as_full_as_may_be():
    drafter = make_drafter()
    lengths = [300, 700, 5, 400]
    sequences = [start(index, tokens(length, first=index)) for index, length in enumerate(lengths)]
    draft = drafter.propose(sequences, [budget(3)] * 4)
    rows = [[len(part.token_ids) for part in batch] for batch in drafter.runtime.batches]
    assert rows == [[299, 213], [486, 4, 22], [377], [1] * 4, [1] * 4, [1] * 4]
    assert all(sum(parts) == MAX_PREFILL_ROWS for parts in rows[:2])
    assert (draft.num_steps, draft.num_caught_up) == (3, sum(lengths) - 8)
    alone = [make_drafter().propose([sequence], [budget(3)]).trees[0] for sequence in sequences]
    assert draft.trees == alone


@pytest.mark.parametrize(("num_tokens", "rows"), [(16, [16, 1, 1]), (17, [16, 1, 1, 1]), (300, [299, 1, 1, 1])])
def test_a_long_text_is_read_apart_from_the_first_guess(num_tokens, rows):
    drafter = make_drafter()
    drafter.propose([start(0, tokens(num_tokens))], [budget(3)])
    assert [len(batch[0].token_ids) for batch in drafter.runtime.batches] == rows


def test_what_may_not_be_caught_up_with_at_once_is_caught_up_with_in_chunks_that_are_kept():
    drafter, whole = make_drafter(), make_drafter()
    sequence = start(0, tokens(100))
    granted = budget(4)._replace(max_catch_up=30)
    drafts = [drafter.propose([sequence], [granted]) for _ in range(4)]
    assert [draft.num_caught_up for draft in drafts] == [30, 30, 30, 8]
    assert [draft.num_steps for draft in drafts] == [0, 0, 0, 4]
    assert [len(draft.trees[0]) for draft in drafts] == [0, 0, 0, 4]
    assert drafts[-1].trees == whole.propose([sequence], [budget(4)]).trees
    assert [len(batch[0].token_ids) for batch in drafter.runtime.batches[:5]] == [30, 30, 30, 10, 1]
    drafter.check()


@pytest.mark.parametrize("options", [{}, {"draws": True}])
def test_a_text_that_must_wait_keeps_nobody_waiting(options):
    drafter = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, **options)
    sequences = [start(0, tokens(1000)), start(1, tokens(9)), start(2, tokens(700, first=1))]
    draft = drafter.propose(sequences, [budget(3)._replace(max_catch_up=each) for each in (600, 7, 0)])
    assert [len(tree) for tree in draft.trees] == [0, 3, 0]
    assert [len(scores) for scores in draft.scores] == [0, 3, 0]
    assert (draft.num_caught_up, draft.num_steps) == (607, 3)
    assert [probabilities is None for probabilities in draft.probabilities] == [True, not options, True]
    assert max(sum(len(rows.token_ids) for rows in batch) for batch in drafter.runtime.batches) <= MAX_PREFILL_ROWS
    drafter.check()


def test_texts_are_plain_decodings_though_the_draft_model_reads_them_in_chunks():
    class Sparing(FixedPolicy):
        def plan(self, sequences):
            return [granted._replace(max_catch_up=7) for granted in super().plan(sequences)]

    target = FakeRuntime()
    engine = make_engine(target, make_drafter())
    engine.parts = dataclasses.replace(engine.parts, policy=Sparing())
    engine.scheduler.policy = engine.parts.policy
    wanted = [request(index, tokens(40, first=index), temperature=0.8, max_tokens=30) for index in range(3)]
    sequences = run(engine, wanted)
    assert [sequence.output_token_ids for sequence in sequences] == [plain_text(target, each) for each in wanted]
    assert not any(sequence.draft_fault for sequence in sequences)
    assert not engine.guard.faults
    assert all(sequence.stats.num_accepted > 10 for sequence in sequences)


def test_a_full_cache_forgets_who_was_not_asked_longest_unused_first():
    drafter = make_drafter(max_blocks=6)
    sequences = [start(index, tokens(2 * BLOCK_SIZE - 8, first=index)) for index in range(5)]
    for index in (0, 1, 2, 0):
        assert len(drafter.propose([sequences[index]], [budget(4)]).trees[0]) == 4
        drafter.check()
    drafter.propose([sequences[3]], [budget(4)])
    assert list(drafter._memories) == [2, 0, 3]
    drafter.propose([sequences[4], sequences[2]], [budget(4)] * 2)
    assert list(drafter._memories) == [3, 4, 2]
    drafter.check()


def test_who_finds_no_room_gets_no_draft_computes_nothing_and_is_in_nobodys_way():
    drafter = make_drafter(max_blocks=6)
    sequences = [start(index, tokens(length, first=index)) for index, length in enumerate([60, 5000, 60, 60, 60])]
    draft = drafter.propose(sequences, [budget(4)] * 5)
    drafter.check()
    assert [len(tree) for tree in draft.trees] == [4, 0, 4, 4, 0]
    assert [len(scores) for scores in draft.scores] == [4, 0, 4, 4, 0]
    assert all(len(batch) == 3 for batch in drafter.runtime.batches)
    assert list(drafter._memories) == [0, 2, 3]
    drafter.release(sequences[2])
    assert len(drafter.propose(sequences[4:], [budget(4)]).trees[0]) == 4


def test_a_text_beyond_what_the_draft_model_can_read_holds_none_of_its_cache():
    for drafter in (make_drafter(max_context=32), ModelDrafter(FakeRuntime(min_rows=1), 100, VOCAB_SIZE + 10)):
        sequence = start(0, tokens(20))
        assert len(drafter.propose([sequence], [budget(4)]).trees[0]) == 4
        sequence.token_ids += [VOCAB_SIZE + 1] * 30
        assert drafter.propose([sequence], [budget(4)]).trees[0].tokens == ()
        assert drafter.pool.num_free == drafter.pool.num_blocks


def test_texts_are_plain_decodings_though_the_draft_models_cache_holds_few_of_them():
    target = FakeRuntime()
    wanted = [request(index, tokens(40, first=index), seed=index, temperature=0.8, max_tokens=30) for index in range(6)]
    drafter = make_drafter(max_blocks=5)
    sequences = run(make_engine(target, drafter), wanted)
    assert [sequence.output_token_ids for sequence in sequences] == [plain_text(target, each) for each in wanted]
    assert not any(sequence.draft_fault for sequence in sequences)
    assert sum(sequence.stats.num_accepted for sequence in sequences) > 50
    assert drafter.pool.num_free == drafter.pool.num_blocks


def test_a_draft_model_that_is_the_target_penalises_and_bans_as_it_does_node_by_node():
    target = FakeRuntime()
    params = {"repetition_penalty": 1.7, "frequency_penalty": 0.9, "presence_penalty": 0.4, "temperature": 0.7}
    wanted = request(0, tokens(20), depth=5, max_tokens=60, logit_bias={3: 2.5}, **params)
    wanted = dataclasses.replace(wanted, bad_token_ids=((4,), (5, 6), (7, 8, 9)))
    (sequence,) = run(make_engine(target, make_drafter()), [wanted])
    assert sequence.stats.acceptance_rate == 1.0
    assert sequence.stats.num_accepted == 50


class TestTrees:
    def propose(self, *, max_nodes: int, max_children: int = 3, max_depth: int = 5):
        drafter, text = make_drafter(), [1, 2, 3]
        granted = DraftBudget(max_depth, max_nodes, max_children=max_children)
        draft = drafter.propose([start(0, text, temperature=0.9)], [granted])
        drafter.check()
        return drafter, draft, text

    def test_children_are_the_best_tokens_under_the_noise_of_their_position(self):
        drafter, draft, text = self.propose(max_nodes=12)
        (tree,), (scores,) = draft.trees, draft.scores
        assert len(tree) == len(scores) == 12
        assert not tree.is_chain
        for node in {-1, *tree.parents}:
            path = tree.tokens_to(node)
            row = noise.row_key(noise.Address(7, 0, len(text) + len(path)))
            values = drafter.runtime.logits([*text, *path]) / 0.9 + noise.gumbel_at(row, np.arange(VOCAB_SIZE))
            children = [tree.tokens[child] for child, parent in enumerate(tree.parents) if parent == node]
            assert children == np.argsort(-values)[: len(children)].tolist()

    def test_nodes_of_one_depth_are_computed_together_and_nothing_of_them_stays(self):
        drafter, draft, text = self.propose(max_nodes=12)
        assert len(drafter.runtime.batches) == draft.num_steps >= max(draft.trees[0].depths())
        assert any(len(rows.output_rows) > 1 for batch in drafter.runtime.batches for rows in batch)
        (memory,) = drafter._memories.values()
        assert memory.token_ids == text
        assert memory.table.num_committed == len(text)

    def test_a_text_near_the_end_of_the_context_gets_a_shallow_tree(self):
        drafter = make_drafter(max_context=32)
        draft = drafter.propose([start(0, tokens(30))], [DraftBudget(6, 12, max_children=3)])
        assert 0 < max(draft.trees[0].depths()) <= 2

    def test_a_tree_whose_drafter_is_the_target_is_accepted_to_its_end(self):
        drafter = make_drafter()
        wanted = request(0, [3, 1, 4], depth=6, temperature=0.8, max_tokens=80)
        wanted = dataclasses.replace(wanted, max_children=3)
        (sequence,) = run(make_engine(FakeRuntime(), drafter), [wanted])
        stats = sequence.stats
        assert stats.num_branching > 5
        assert stats.survival[0] == 1.0
        assert stats.acceptance_length > 2

    def test_after_a_tree_the_draft_model_sees_the_text_and_nothing_else(self):
        """Its cache, were a sibling left in it, would show another text than the target's."""
        target = FakeRuntime(order=50)
        drafter = ModelDrafter(FakeRuntime(order=50, min_rows=1), 1000, VOCAB_SIZE)
        wanted = dataclasses.replace(request(0, [1, 2, 3], depth=7, temperature=1.0, max_tokens=60), max_children=2)
        (sequence,) = run(make_engine(target, drafter), [wanted])
        assert sequence.stats.num_branching > 3
        assert sequence.stats.survival[0] == 1.0

    def test_penalties_and_bans_follow_each_branch(self):
        params = {"repetition_penalty": 1.7, "frequency_penalty": 0.9, "temperature": 0.7, "logit_bias": {3: 2.5}}
        wanted = request(0, tokens(20), depth=6, max_tokens=60, **params)
        wanted = dataclasses.replace(wanted, max_children=3, bad_token_ids=((4,), (5, 6), (7, 8, 9)))
        target = FakeRuntime()
        (sequence,) = run(make_engine(target, make_drafter()), [wanted])
        assert sequence.output_token_ids == plain_text(target, wanted)
        assert sequence.stats.survival[0] == 1.0


class TestCombs:
    def test_a_comb_is_a_chain_with_the_next_best_beside_it_at_a_chains_rows(self):
        rows, trees = [], []
        for max_nodes, max_children in ((3, 1), (9, 3)):
            drafter = make_drafter()
            granted = DraftBudget(3, max_nodes, max_children=max_children, is_comb=True)
            draft = drafter.propose([start(0, [1, 2, 3], temperature=0.9)], [granted])
            drafter.check()
            trees += draft.trees
            rows.append([len(each.token_ids) for batch in drafter.runtime.batches for each in batch])
            (memory,) = drafter._memories.values()
            assert memory.token_ids[:3] == [1, 2, 3]
            assert len(memory.token_ids) == 5  # all guesses but the last
        chain, comb = trees
        assert rows[0] == rows[1]
        inner = {parent for parent in comb.parents if parent >= 0}
        firsts = [comb.parents.index(parent) for parent in sorted({*comb.parents})]
        assert inner <= set(firsts)  # only first guesses are gone on from
        assert sorted(comb.tokens[node] for node in firsts) == sorted(chain.tokens)
        assert len(comb) == 9

    def test_a_comb_whose_drafter_is_the_target_is_accepted_to_its_end(self):
        drafter, text = make_drafter(), [3, 1, 4]
        granted = DraftBudget(4, 8, max_children=2, is_comb=True)
        (tree,) = drafter.propose([start(0, text)], [granted]).trees
        expected = plain_text(FakeRuntime(), request(0, text, max_tokens=4))
        assert tree.depth == 4
        assert any(list(tree.tokens_to(node)) == expected for node in range(len(tree)))
