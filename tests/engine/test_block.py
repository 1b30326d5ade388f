"""The loop under block verification: the target's distribution, chance used once, and plain decoding as ever."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from outrider import noise
from outrider.draft.base import Draft, Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.config import EngineConfig
from outrider.errors import ParameterError
from outrider.policy.fixed import FixedPolicy
from outrider.sampling import History, log_probs
from outrider.tree import TokenTree
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, TreeDrafter, make_engine, plain_text, request, run

PROMPTS = [[1], [2, 3], list(range(17)), [5, 6] * 20, [index % 7 for index in range(70)]]


class Near(FakeRuntime):
    """A model that thinks much like the fake target, but not the same; all of its answers are remembered."""

    def __init__(self) -> None:
        super().__init__(min_rows=1)
        self.other = FakeRuntime(salt=9, order=2)
        self.logits = functools.cache(self._answer)  # asked with tuples

    def _answer(self, context: tuple[int, ...]) -> np.ndarray:
        return (FakeRuntime.logits(self, list(context)) + 0.6 * self.other.logits(list(context))).astype(np.float32)

    def _sequence(self, rows):
        asked, self.logits = self.logits, lambda context: asked(tuple(context))
        try:
            return super()._sequence(rows)
        finally:
            self.logits = asked


def make_drafter(name: str, target: FakeRuntime) -> Drafter:
    return {
        "none": NoDrafter,
        "suffix": SuffixDrafter,
        "trees": lambda: TreeDrafter(0, lambda text: int(target.logits(text).argmax())),
        "itself": lambda: ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, draws=True),
        "near": lambda: ModelDrafter(Near(), 1000, VOCAB_SIZE, draws=True),
        "cascade": lambda: Cascade([SuffixDrafter(), make_drafter("near", target)]),
    }[name]()


NAMES = ("none", "suffix", "trees", "itself", "near", "cascade")


def texts(name: str, *, together: bool = True, depth: int = 4, **params) -> list[list[int]]:
    wanted = [
        request(index, prompt, depth=depth, seed=index, max_tokens=40, **params) for index, prompt in enumerate(PROMPTS)
    ]
    found: list[list[int]] = []
    for group in [wanted] if together else [[each] for each in wanted]:
        target = FakeRuntime()
        engine = make_engine(target, make_drafter(name, target), verify="block")
        found += [sequence.output_token_ids for sequence in run(engine, group)]
    return found


def plain(**params) -> list[list[int]]:
    return [
        plain_text(FakeRuntime(), request(index, prompt, seed=index, max_tokens=40, **params))
        for index, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 8])
def test_greedy_decoding_is_what_it_is_without_drafts(name, depth):
    penalised = {"repetition_penalty": 1.4, "frequency_penalty": 0.5}
    for params in ({}, penalised):
        assert texts(name, depth=depth, temperature=0.0, **params) == plain(temperature=0.0, **params)


def test_without_speculation_a_seeds_text_is_what_it_always_was():
    assert texts("near", depth=0, temperature=1.0) == plain(temperature=1.0)


@pytest.mark.parametrize("name", ["suffix", "near", "cascade"])
def test_one_seed_and_configuration_one_text_alone_and_in_company(name):
    first = texts(name, temperature=1.0)
    assert texts(name, temperature=1.0) == first
    assert [len(text) for text in first] == [40] * len(PROMPTS)
    assert texts(name, temperature=1.0, together=False) == first
    assert first != plain(temperature=1.0)


def test_texts_of_one_prompt_differ():
    target = FakeRuntime()
    wanted = [
        dataclasses.replace(request(stream, [1, 2], temperature=1.0, max_tokens=20), stream=stream)
        for stream in range(8)
    ]
    sequences = run(make_engine(target, make_drafter("near", target), verify="block"), wanted)
    assert len({tuple(sequence.output_token_ids) for sequence in sequences}) == 8


@pytest.mark.parametrize("name", ["trees", "near", "cascade"])
def test_texts_that_share_a_small_cache_are_finished_and_nothing_is_held(name):
    """Preempted, shortened near the end, stopped inside an accepted draft: the invariants hold after every step."""
    target = FakeRuntime()
    engine = make_engine(target, make_drafter(name, target), verify="block", max_cache_tokens=6 * 32, max_sequences=6)
    params = {"temperature": 0.9, "max_tokens": 70, "stop_token_ids": (11,), "min_tokens": 50}
    sequences = run(
        engine, [request(index, prompt, depth=6, seed=index, **params) for index, prompt in enumerate(PROMPTS)]
    )
    assert sum(sequence.num_preempted for sequence in sequences) > 0
    for sequence in sequences:
        assert sequence.draft_fault is None
        ends_by_token = sequence.output_token_ids[-1] == 11
        assert ends_by_token or sequence.num_output_tokens == 70


def test_a_drafter_that_is_the_target_penalises_node_by_node_and_has_everything_accepted():
    params = {"repetition_penalty": 1.7, "frequency_penalty": 0.9, "presence_penalty": 0.4, "temperature": 0.7}
    wanted = request(0, [3, 1, 4] * 6, depth=5, max_tokens=60, logit_bias={3: 2.5}, top_k=9, **params)
    wanted = dataclasses.replace(wanted, bad_token_ids=((4,), (5, 6), (7, 8, 9)))
    target = FakeRuntime()
    (sequence,) = run(make_engine(target, make_drafter("itself", target), verify="block"), [wanted])
    assert sequence.stats.acceptance_rate == 1.0
    assert sequence.stats.num_accepted == 50


def test_more_is_accepted_than_under_coupled_verification():
    lengths = {}
    for verify in ("coupled", "block"):
        target = FakeRuntime()
        drafter = ModelDrafter(Near(), 1000, VOCAB_SIZE, draws=verify == "block")
        wanted = [request(index, [index], depth=8, seed=index, temperature=1.0, max_tokens=150) for index in range(10)]
        sequences = run(make_engine(target, drafter, verify=verify), wanted)
        lengths[verify] = 1500 / sum(sequence.stats.num_steps for sequence in sequences)
    assert lengths["block"] > 1.03 * lengths["coupled"]


def test_chance_is_used_once(monkeypatch):
    """Proposals, coins and residuals of all rounds, streams and nodes have rows of their own, and none the target's."""
    used: list[noise.Address] = []
    row_key = noise.row_key
    monkeypatch.setattr(noise, "row_key", lambda address: used.append(address) or row_key(address))
    target = FakeRuntime()
    wanted = [
        dataclasses.replace(request(stream, [1, 2], depth=3, temperature=1.0, max_tokens=30), stream=stream)
        for stream in range(3)
    ]
    sequences = run(make_engine(target, make_drafter("near", target), verify="block"), wanted)
    keys = list(map(row_key, used))
    assert len(set(keys)) == len(keys)
    purposes = {
        purpose: [row for row in used if row.purpose == purpose] for purpose in ("proposal", "coin", "residual")
    }
    # A text's last token has nothing drafted for it, so it may be plain decoding's.
    assert all(row.position == 31 for row in used if row.purpose == "target")
    assert len(purposes["proposal"]) == sum(sequence.stats.num_drafted for sequence in sequences)
    num_rounds = len({(row.stream, row.position) for row in purposes["proposal"]})
    assert len(purposes["residual"]) == num_rounds
    assert num_rounds < len(purposes["coin"])
    assert {row.path for row in purposes["proposal"]} == {(0,), (0, 0), (0, 0, 0)}


def test_log_probs_are_those_of_the_target_as_processed():
    params = {"temperature": 0.8, "frequency_penalty": 0.7, "top_k": 12, "log_probs": 3}
    target = FakeRuntime()
    wanted = request(0, [1, 2, 3], depth=4, max_tokens=50, **params)
    (sequence,) = run(make_engine(target, make_drafter("near", target), verify="block"), [wanted])
    assert sequence.stats.num_accepted > 10
    for place, found in enumerate(sequence.log_probs):
        text = sequence.token_ids[: 3 + place]
        history = History(wanted)
        history.follow(text)
        expected = log_probs(history.process(target.logits(text), ()), wanted.params)
        assert found.processed == expected[sequence.token_ids[3 + place]] > -np.inf
        assert len(found.top_processed) == 3


class Claiming(Drafter):
    """Proposes one token, and says what it was drawn from."""

    name = "claiming"
    draws_in_order = True

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities = probabilities

    def propose(self, sequences, budgets):
        trees = [TokenTree.chain((2,)) for _ in budgets]
        return Draft(trees, probabilities=[self.probabilities for _ in trees])


def row(**shares: float) -> np.ndarray:
    probabilities = np.zeros((1, VOCAB_SIZE))
    for token, share in shares.items():
        probabilities[0, int(token[1:])] = share
    return probabilities


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        (row(t2=0.5), "must give some of 0 or more that add up to 1"),
        (row(t2=1.5, t3=-0.5), "must give some of 0 or more that add up to 1"),
        (row(t2=float("nan")), "must give some of 0 or more that add up to 1"),
        (row(t3=1.0), "with tokens that it gave no probability"),
        (row(t2=1.0)[:, :-1], r"gave probabilities of shape \(1, 22\), but must give \(1, 23\)"),
        (row(t2=1.0)[0], r"gave probabilities of shape \(23,\)"),
        ("nonsense", r"gave probabilities of shape \(\)"),
    ],
)
def test_probabilities_that_cannot_be_are_a_fault_and_the_text_goes_on(probabilities, words):
    wanted = request(0, [1, 2], temperature=1.0, max_tokens=12)
    (sequence,) = run(make_engine(FakeRuntime(), Claiming(probabilities), verify="block"), [wanted])
    assert sequence.num_output_tokens == 12
    with pytest.raises(ValueError, match=words):
        raise ValueError(sequence.draft_fault)


def test_of_a_drafter_that_does_not_draw_probabilities_do_not_count():
    """It could give wrong ones: were they believed, its token would always be accepted here."""
    drafter = Claiming(row(t2=1e-9, t3=1 - 1e-9))
    drafter.draws_in_order = False
    wanted = request(0, [1, 2], temperature=1.0, max_tokens=60)
    (sequence,) = run(make_engine(FakeRuntime(), drafter, verify="block"), [wanted])
    assert sequence.draft_fault is None
    assert sequence.stats.acceptance_rate < 0.5


class Keeping(FixedPolicy):
    """Would verify nothing of what was drafted."""

    def select(self, batch, trees, scores, sources):
        return [0] * len(trees)


@pytest.mark.parametrize(("name", "is_verified"), [("near", True), ("suffix", False)])
def test_what_was_drawn_is_verified_whole_whatever_the_policy_would_keep(name, is_verified):
    """To leave out a token for what it is would change the distribution."""
    target = FakeRuntime()
    engine = make_engine(target, make_drafter(name, target), verify="block")
    engine.parts = dataclasses.replace(engine.parts, policy=Keeping())
    wanted = request(0, [5, 6] * 9, depth=3, temperature=1.0, max_tokens=30)
    (sequence,) = run(engine, [wanted])
    stats = sequence.stats
    assert (stats.num_drafted > 2 * stats.num_steps) is is_verified
    assert (stats.num_drafted == 0) is not is_verified


def test_bits_are_not_promised_of_texts_that_are_drawn_otherwise():
    with pytest.raises(ParameterError, match=r"exactness is 'bitwise', but verify is 'block'.*leave one of them out"):
        EngineConfig(exactness="bitwise", verify="block")


def test_an_unknown_rule_is_refused():
    with pytest.raises(ParameterError, match="verify is 'ratio', but must be one of coupled, block"):
        make_engine(FakeRuntime(), NoDrafter(), verify="ratio")


# Texts of three tokens from four that are left, penalised so that what may come depends on the path.
FEW = dict.fromkeys(range(4, VOCAB_SIZE), -100.0)
PARAMS = {"temperature": 1.2, "logit_bias": FEW, "frequency_penalty": 1.5, "repetition_penalty": 1.3, "max_tokens": 3}
NUM_TEXTS = 6000
ALL_TEXTS = list(itertools.product(range(4), repeat=3))


def g_statistic(drafter: Drafter, max_children: int = 1) -> tuple[float, float]:
    """Twice the log-likelihood ratio of the counts of texts' first three tokens, and a bound (63 cells).

    By chance it is exceeded once in 10^4.
    """
    target = FakeRuntime()
    params = PARAMS if max_children == 1 else PARAMS | {"max_tokens": 4}  # the first draft may have a node more
    wanted = [
        dataclasses.replace(request(index, [1, 2], depth=3, seed=index, **params), max_children=max_children)
        for index in range(NUM_TEXTS)
    ]
    counts = dict.fromkeys(ALL_TEXTS, 0)
    for sequence in run(make_engine(target, drafter, verify="block", max_sequences=64), wanted):
        counts[tuple(sequence.output_token_ids[:3])] += 1
        assert sequence.stats.num_branching == 1 or max_children == 1
    statistic = 0.0
    for text, count in counts.items():
        log_probability = 0.0
        for place, token in enumerate(text):
            history = History(wanted[0])
            history.follow([1, 2, *text[:place]])
            processed = history.process(target.logits([1, 2, *text[:place]]), ())
            log_probability += log_probs(processed, wanted[0].params)[token]
        if count:
            statistic += 2 * count * (np.log(count / NUM_TEXTS) - log_probability)
    # Wilson and Hilferty's approximation of the chi-square quantile, z = 3.72.
    return statistic, 63 * (1 - 2 / (9 * 63) + 3.72 * (2 / (9 * 63)) ** 0.5) ** 3


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["near", "trees", "cascade"])
def test_texts_have_the_targets_distribution(name):
    statistic, bound = g_statistic(make_drafter(name, FakeRuntime()))
    assert statistic < bound


@pytest.mark.statistical
def test_texts_of_drawn_trees_have_the_targets_distribution():
    statistic, bound = g_statistic(make_drafter("near", FakeRuntime()), max_children=3)
    assert statistic < bound


def test_drawn_trees_branch_and_siblings_are_accepted():
    target = FakeRuntime()
    wanted = [
        dataclasses.replace(request(index, prompt, depth=8, max_tokens=60, temperature=1.5), max_children=3)
        for index, prompt in enumerate(PROMPTS)
    ]
    observed = []
    drafter = make_drafter("near", target)
    drafter.observe = lambda _, tree, verdict: observed.append([tree.ranks_to(node) for node in verdict.path])
    for sequence in run(make_engine(target, drafter, verify="block"), wanted):
        assert sequence.draft_fault is None
        assert sequence.stats.num_branching > 0
    assert any(max(ranks[-1]) > 0 for ranks in observed if ranks)


@pytest.mark.statistical
def test_the_test_of_the_distribution_finds_probabilities_that_were_not_drawn_from():
    """A drafter that records its distribution at another temperature: a total variation of a few hundredths."""

    class Raw(ModelDrafter):
        def propose(self, sequences, budgets):
            draft = super().propose(sequences, budgets)
            hot = [None if each is None else each**0.7 for each in draft.probabilities]
            hot = [None if each is None else each / each.sum(axis=1, keepdims=True) for each in hot]
            return draft._replace(probabilities=hot)

    statistic, bound = g_statistic(Raw(Near(), 1000, VOCAB_SIZE, draws=True))
    assert statistic > bound
