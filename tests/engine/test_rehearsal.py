"""A draft model's first drafts are made for nobody, and tell what later ones take."""

from __future__ import annotations

from itertools import count

import pytest

from outrider import LLM, bundled_pair
from outrider.draft.model import ModelDrafter
from outrider.engine.rehearsal import CHUNKS, DEPTHS, NUM_FIRST, rehearse
from outrider.policy.cost import StepCosts


@pytest.fixture(scope="module")
def llm():
    pair = bundled_pair()
    return LLM(pair.target, draft=pair.draft)


def drafter_of(llm: LLM) -> ModelDrafter:
    (drafter,) = (member for member in llm.drafter.members if isinstance(member, ModelDrafter))
    return drafter


def test_it_tells_of_prompts_and_of_all_depths_and_leaves_nothing_behind(llm):
    drafter, ticks = drafter_of(llm), count()
    found = rehearse(llm.target, drafter, lambda: 0.001 * next(ticks))
    assert [work.num_steps for work in found.works if work.num_steps] == [*DEPTHS[NUM_FIRST:]]
    assert [work.num_caught_up for work in found.works if not work.num_steps] == [256 // share for share in CHUNKS[1:]]
    assert {round(seconds, 6) for seconds in found.plain_seconds} == {0.001}
    assert drafter.pool.num_free == drafter.pool.num_blocks


def test_costs_begin_with_it(llm):
    assert llm.policy.costs.num_drafts("model") > 0
    assert llm.policy.costs.chunks("model")[0] > 0
    costs, ticks = StepCosts([(1, 0.001), (5, 0.001)]), count()
    rehearse(llm.target, drafter_of(llm), lambda: 0.002 * next(ticks)).tell(costs)
    assert costs.speed == pytest.approx(2.0, rel=0.05)


def test_a_context_that_is_too_short_for_it_is_done_without(llm, monkeypatch):
    drafter = drafter_of(llm)
    monkeypatch.setattr(drafter.pool, "max_blocks", 1)
    assert rehearse(llm.target, drafter) == ([], [])


def test_it_ends_when_its_time_is_over(llm):
    seconds = count(step=10)
    found = rehearse(llm.target, drafter_of(llm), lambda: float(next(seconds)))
    assert found.works == []
