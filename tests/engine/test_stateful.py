"""Anything may happen in any order, and every text is still the one that plain decoding writes.

Hypothesis makes up histories: requests come and are cancelled, memory is short, and the drafter does whatever a
drafter must not do. All invariants are checked after every event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outrider.cache.table import BLOCK_SIZE
from outrider.draft.base import Draft, Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.runtime.base import RowClass
from outrider.tree import DraftBudget, TokenTree
from tests.engine.fakes import (
    VOCAB_SIZE,
    FakeRuntime,
    TreeDrafter,
    assert_nothing_is_held,
    make_engine,
    plain_text,
    request,
)

DEADLINE = 10.0


def in_other_tokens(tree: TokenTree) -> TokenTree:
    return TokenTree(tuple(token + VOCAB_SIZE for token in tree.tokens), tree.parents)


def upside_down(tree: TokenTree) -> TokenTree:
    return TokenTree(tree.tokens, tree.parents[::-1])


# What becomes of the trees of a drafter in this mood.
DRAFTS: dict[str, Callable[[list[TokenTree], Sequence[DraftBudget]], Draft | None]] = {
    "one short": lambda trees, budgets: Draft(trees[1:]),
    "no draft": lambda trees, budgets: None,
    "other tokens": lambda trees, budgets: Draft([in_other_tokens(tree) for tree in trees]),
    "no numbers": lambda trees, budgets: Draft(trees, [(math.nan,) * len(tree) for tree in trees]),
    "no trees": lambda trees, budgets: Draft([upside_down(tree) for tree in trees]),
    "too deep": lambda trees, budgets: Draft([TokenTree.chain((1,) * (budget.limit + 1)) for budget in budgets]),
    "always wrong": lambda trees, budgets: Draft([TokenTree.chain((2,) * budget.limit) for budget in budgets]),
}
MOODS = ["good", "raises", "late", "deaf", "clinging", *DRAFTS]


class Moody(Drafter):
    """A drafter that works as long as its mood allows."""

    name = "moody"

    def __init__(self, drafter: Drafter, pass_time: Callable[[float], None]) -> None:
        self.drafter = drafter
        self.mood = "good"
        self.pass_time = pass_time

    def propose(self, sequences, budgets):
        if self.mood == "raises":
            raise RuntimeError("broken")
        if self.mood == "late":
            self.pass_time(DEADLINE + 1)
        draft = self.drafter.propose(sequences, budgets)
        return DRAFTS[self.mood](draft.trees, budgets) if self.mood in DRAFTS else draft

    def observe(self, sequence, tree, verdict) -> None:
        if self.mood == "deaf":
            raise ValueError("what?")
        self.drafter.observe(sequence, tree, verdict)

    def release(self, sequence) -> None:
        self.drafter.release(sequence)
        if self.mood == "clinging":
            raise KeyError("mine")

    def check(self) -> None:
        self.drafter.check()


@st.composite
def prompts(draw) -> list[int]:
    """Equal beginnings and equal wholes are likely."""
    beginning = [kind for kind in draw(st.lists(st.integers(0, 1), max_size=2)) for _ in range(BLOCK_SIZE)]
    return beginning + [5] * draw(st.sampled_from([1, 2, 20, 33]))


PARAMS = st.fixed_dictionaries(
    {"max_tokens": st.sampled_from([100, 30, 1]), "temperature": st.sampled_from([0.0, 0.8])},
    optional={
        "stop_token_ids": st.tuples(st.integers(0, VOCAB_SIZE - 1)),
        "top_k": st.just(5),
        "repetition_penalty": st.just(1.3),
        "frequency_penalty": st.just(0.4),
    },
)


class EngineHistory(RuleBasedStateMachine):
    @initialize(
        drafter=st.sampled_from(["trees", "suffix", "model", "cascade"]),
        prefill_chunk=st.sampled_from([16, 32]),
        num_blocks=st.sampled_from([7, 8, 12]),  # the longest text takes 7
        max_sequences=st.sampled_from([6, 3, 1]),
        max_prefill_tokens=st.sampled_from([1, 64, 512]),
        max_prefix_tokens=st.sampled_from([0, 64, 4096]),
        max_root_rows=st.sampled_from([0, 40, 512]),
    )
    def start(self, drafter, num_blocks, max_root_rows, **config):
        self.target = FakeRuntime()
        self.target.row_class = RowClass(max_root_rows=max_root_rows)
        self.now = 0.0
        made = {
            "trees": lambda: TreeDrafter(0, lambda text: int(self.target.logits(text).argmax())),
            "suffix": SuffixDrafter,
            "model": lambda: ModelDrafter(FakeRuntime(min_rows=1), num_blocks, VOCAB_SIZE),
            "cascade": lambda: ModelDrafter(FakeRuntime(min_rows=1), num_blocks // 2, VOCAB_SIZE),
        }[drafter]()
        self.drafter = Moody(made, self.pass_time)
        drafters = Cascade([SuffixDrafter(), self.drafter]) if drafter == "cascade" else self.drafter
        self.engine = make_engine(
            self.target,
            drafters,
            clock=lambda: self.now,
            max_cache_tokens=num_blocks * BLOCK_SIZE,
            draft_deadline=DEADLINE,
            **config,
        )
        self.sequences = []
        self.emitted: dict[int, list[int]] = {}

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(prompt=prompts(), depth=st.sampled_from([0, 3, 9, 64]), count=st.sampled_from([4, 1, 2]), params=PARAMS)
    def add(self, prompt, depth, count, params):
        for _ in range(count):
            index = len(self.sequences)
            self.sequences.append(self.engine.add(request(index, prompt, depth=depth, seed=index, **params)))
            self.emitted[index] = []

    @rule(count=st.sampled_from([1, 3, 30]))
    def step(self, count):
        for _ in range(count):
            for delta in self.engine.step():
                self.emitted[delta.request_id] += delta.token_ids
            self.engine.check()

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data):
        index = data.draw(st.integers(0, len(self.sequences) - 1))
        had_finished = self.sequences[index].finish_reason is not None
        assert (self.engine.cancel(index) is None) == had_finished

    @precondition(lambda self: len(self.engine.scheduler.running) > 1)
    @rule()
    def run_out_of_memory(self):
        preempted = self.engine.scheduler.running[-1]
        self.engine.scheduler._preempt_last()
        assert self.engine.scheduler.waiting[0] is preempted

    @rule(mood=st.sampled_from(MOODS))
    def change_mood(self, mood):
        self.drafter.mood = mood

    @invariant()
    def holds(self):
        if self.sequences:
            self.engine.check()

    def teardown(self):
        if not hasattr(self, "engine"):
            return
        num_steps_left = 20_000
        while not self.engine.is_idle:
            self.step(1)
            num_steps_left -= 1
            assert num_steps_left, "a sequence waits for ever"
        for index, sequence in enumerate(self.sequences):
            wanted = plain_text(self.target, sequence.request)
            assert self.emitted[index] == sequence.output_token_ids == wanted[: sequence.num_output_tokens]
            assert sequence.finish_reason == "cancelled" or len(sequence.output_token_ids) == len(wanted)
        assert_nothing_is_held(self.engine)


# Finding the smallest history that fails may take minutes.
TestEngineHistory = pytest.mark.timeout(600)(EngineHistory.TestCase)
TestEngineHistory.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
