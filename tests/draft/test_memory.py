"""What drafters keep of texts is within what is declared for it, counted in real bytes."""

from __future__ import annotations

import gc
import random
import tracemalloc
from contextlib import contextmanager

import pytest

from outrider.draft.cascade import Cascade
from outrider.draft.prediction import PredictionDrafter
from outrider.draft.suffix import SuffixDrafter
from tests.draft.drafting import budget, start

NUM_TOKENS = 6_000
RANDOM = random.Random(0)
# Ids above 256, which Python does not keep anyway; as many states as there can be, as many transitions, and text.
TEXTS = {
    "all different": list(range(1_000, 1_000 + NUM_TOKENS)),
    "of two tokens": [RANDOM.randrange(1_000, 1_002) for _ in range(NUM_TOKENS)],
    "of a thousand": [RANDOM.randrange(1_000, 2_000) for _ in range(NUM_TOKENS)],
    "one and then another": [1_000] + [2_000] * (NUM_TOKENS - 2) + [3_000],
    "like text": [min(150_000, 300 + int(37 * RANDOM.paretovariate(0.8))) for _ in range(NUM_TOKENS)],
}


@contextmanager
def counted():
    """Bytes taken inside, now and at most."""
    found = {}
    gc.collect()
    tracemalloc.start()
    try:
        yield found
        gc.collect()
        found["now"], found["most"] = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def ask(drafter, sequences):
    drafter.propose(sequences, [budget(4)] * len(sequences))
    drafter.check()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_an_automaton_takes_what_is_declared_at_most_and_what_is_said_nearly(text):
    drafter, sequences = SuffixDrafter(), [start(0, text)]
    with counted() as found:
        drafter.hold(NUM_TOKENS)
        ask(drafter, sequences)
    assert found["most"] <= drafter.max_memory(NUM_TOKENS)
    assert 0.85 * drafter.memory() <= found["now"] <= 1.1 * drafter.memory()
    assert drafter.max_memory(NUM_TOKENS) <= 2.3 * found["now"], "declared in vain"


@pytest.mark.parametrize("num_remembered", [5_000, 5_600, 12_000])  # tables that just grew, and that are full
def test_remembered_outputs_take_what_is_declared_at_most(num_remembered):
    sequences = [start(index, [1]) for index in range(20)]
    for sequence in sequences:
        sequence.token_ids += [RANDOM.randrange(1_000, 100_000) for _ in range(1_000)]
        sequence.finish_reason = "length"
    with counted() as found:
        drafter = SuffixDrafter(num_remembered)
        for sequence in sequences:
            drafter.release(sequence)
    assert 0.4 * drafter.max_memory(0) <= found["most"] <= drafter.max_memory(0)
    assert 0.6 * drafter.memory() <= found["now"] <= 1.1 * drafter.memory()


def test_an_index_of_a_prediction_takes_what_is_declared_at_most():
    drafter = PredictionDrafter()
    sequences = [start(0, [1], prediction=TEXTS["all different"])]
    with counted() as found:
        drafter.hold(NUM_TOKENS)
        ask(drafter, sequences)
    assert 0.5 * drafter.max_memory(NUM_TOKENS) <= found["most"] <= drafter.max_memory(NUM_TOKENS)


def test_who_was_not_asked_longest_is_forgotten_first_and_who_finds_no_room_is_not_drafted_for():
    drafter = SuffixDrafter()
    texts = [start(index, [1, 2, 3, 4] * 5) for index in range(4)]
    drafter.hold(60)
    granted = [budget(3)]
    for text in texts[:3]:
        assert drafter.propose([text], granted).trees[0].tokens == (1, 2, 3)
    ask(drafter, texts[:1])
    assert drafter.propose(texts[3:], granted).trees[0].tokens == (1, 2, 3)
    assert list(drafter._automata) == [2, 0, 3]
    drafts = drafter.propose(texts, granted * 4)
    assert sorted(tree.tokens for tree in drafts.trees) == [(), *[(1, 2, 3)] * 3]
    drafter.check()
    for text in texts:
        drafter.release(text)
    drafter.check()
    assert drafter.memory() == 0
    assert drafter.propose(texts[:1], granted).trees[0].tokens == (1, 2, 3)
    texts[0].token_ids += [1, 2, 3, 4] * 20
    assert not len(drafter.propose(texts[:1], granted).trees[0])
    drafter.check()


def test_predictions_of_several_texts_share_the_room_for_their_indexes():
    drafter = PredictionDrafter()
    drafter.hold(100)
    ask(drafter, [start(index, [1], prediction=range(1_000 * index, 1_000 * index + 70)) for index in (1, 2, 3)])
    assert drafter._num_indexed() == 100
    assert len(drafter.propose([start(3, [1], prediction=range(3_000, 3_070))], [budget(4)]).trees[0]) == 4


def test_a_cascade_is_held_and_declares_as_its_members_do():
    members = [PredictionDrafter(), SuffixDrafter(100)]
    cascade = Cascade(members)
    assert cascade.max_memory(50) == sum(member.max_memory(50) for member in members)
    cascade.hold(7)
    assert [member._max_tokens for member in members] == [7, 7]
