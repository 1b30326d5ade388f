"""The draft model where it draws: from what it says, by chance of its own, in a shape that tokens do not decide."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from outrider import noise
from outrider.draft.drawn import DrawnChain
from outrider.draft.making import Memory
from outrider.draft.model import ModelDrafter
from outrider.sampling import History, choose, log_probs
from outrider.sequence import Sequence
from tests.draft.drafting import budget, start
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime


def tokens(num_tokens: int, first: int = 0) -> list[int]:
    return [(first + 3 * index * index) % VOCAB_SIZE for index in range(num_tokens)]


def drawing(**options) -> ModelDrafter:
    return ModelDrafter(FakeRuntime(min_rows=1, **options), 1000, VOCAB_SIZE, draws=True)


PARAMS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
    {"temperature": 1.3, "min_p": 0.05, "repetition_penalty": 1.6, "frequency_penalty": 0.8, "logit_bias": {4: 3.0}},
]


@pytest.mark.parametrize("params", PARAMS)
def test_what_is_recorded_is_the_processed_distribution_that_was_drawn_from(params):
    drafter = drawing()
    for index in range(20):
        sequence = start(index, tokens(30, first=index), **params)
        draft = drafter.propose([sequence], [budget(5)])
        tree, probabilities = draft.trees[0], draft.probabilities[0]
        assert probabilities.shape == (5, VOCAB_SIZE)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert probabilities[np.arange(5), tree.tokens].all()
        history = History(sequence.request)
        history.follow(sequence.token_ids)
        for depth in range(5):
            logits = drafter.runtime.logits([*sequence.token_ids, *tree.tokens[:depth]])
            processed = history.process(logits, tree.tokens[:depth])
            np.testing.assert_array_equal(probabilities[depth], np.exp(log_probs(processed, sequence.request.params)))


def test_a_smaller_vocabulary_gives_no_probability_to_what_it_lacks():
    drafter = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE + 4, draws=True)
    (probabilities,) = drafter.propose([start(0, [1, 2], temperature=1.0)], [budget(2)]).probabilities
    assert probabilities.shape == (2, VOCAB_SIZE + 4)
    assert not probabilities[:, VOCAB_SIZE:].any()


def test_tokens_are_drawn_as_often_as_recorded_and_not_by_the_targets_noise():
    """Chi-square of first tokens over 4,000 roots of one distribution; passed by chance less than once in 10^4."""
    drafter = drawing(order=1)
    text = [index % 3 for index in range(50)]
    counts, num_same = np.zeros(VOCAB_SIZE), 0
    for seed in range(4000):
        logits = drafter.runtime.logits(text)
        request_ = dataclasses.replace(start(0, text, temperature=1.0).request, seed=seed)
        chain = DrawnChain(
            Sequence.start(request_), budget(1), 1, Memory(drafter.pool, request_), vocab_size=VOCAB_SIZE
        )
        chain.grow(logits[np.newaxis])
        counts[chain.guesses[0]] += 1
        num_same += chain.guesses[0] == choose(logits, request_.params, noise.Address(seed, 0, len(text)))
    (probabilities,) = chain.probabilities
    expected = probabilities * 4000
    likely = expected > 5
    observed, wanted = [*counts[likely], counts[~likely].sum()], [*expected[likely], expected[~likely].sum()]
    statistic = sum((seen - mean) ** 2 / mean for seen, mean in zip(observed, wanted, strict=True))
    assert statistic < len(wanted) + 4.5 * (2 * len(wanted)) ** 0.5
    # Whoever draws on his own agrees as often as chance has it.
    assert abs(num_same / 4000 - (probabilities**2).sum()) < 4 * 0.5 / 4000**0.5


def test_a_drawn_token_stays_however_little_it_is_worth_and_scores_know_nothing_of_it():
    worthless = {"intercept": -9.0, "slope": 0.0, "mean": 1.0, "node_price": 0.5}
    sequence = start(0, tokens(20), temperature=1.0)
    guessed = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE).propose([sequence], [budget(4, **worthless)])
    drawn = drawing().propose([sequence], [budget(4, **worthless)])
    assert (len(guessed.trees[0]), len(drawn.trees[0])) == (3, 4)
    by_seed = {}
    for seed in range(8):
        request_ = dataclasses.replace(sequence.request, seed=seed)
        draft = drawing().propose([Sequence.start(request_)], [budget(1)])
        by_seed[draft.trees[0].tokens] = draft.scores[0]
    assert len(by_seed) > 1
    assert len(set(by_seed.values())) == 1


def test_a_drafter_that_guesses_has_a_twin_that_draws_on_the_same_cache():
    guessing = ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE)
    twin = guessing.drawing()
    assert (twin.draws_in_order, twin.makes_trees) == (True, False)
    assert (guessing.draws_in_order, guessing.makes_trees) == (False, True)
    sequence = start(0, [1, 2, 3], temperature=1.0)
    found, wanted = (drafter.propose([sequence], [budget(4)]) for drafter in (twin, drawing()))
    assert found.trees == wanted.trees
    assert guessing.propose([sequence], [budget(4)]).probabilities == [None]
    twin.release(sequence)
    guessing.check()
    assert guessing.pool.num_free == guessing.pool.num_blocks
