"""Steps are counted as an engine takes them."""

from __future__ import annotations

import pytest

from outrider.predict.trace import Root, Trace, runs_of, survival_of, walk
from tests.predict.simulator import seeded, trace_of


def test_runs_are_counted_up_to_the_depth():
    assert runs_of([True, True, True, False, True], 2) == [2, 2, 1, 0, 1]


def test_a_walk_goes_on_behind_the_first_wrong_guess():
    # two kept and the next token; three kept and the next token; and the last, with nothing left to draft
    found = walk(trace_of([True, True, False, True, True, True, True, True]), depth=3)
    assert found.num_emitted == 8
    assert found.num_steps == 3
    assert found.accepted_at == [2, 2, 1]
    assert 1 + sum(found.survival) == pytest.approx(found.num_emitted / found.num_steps, abs=1e-12)


def test_no_more_is_drafted_than_the_text_has_left():
    found = walk(trace_of([True, True, True]), depth=8)
    assert found.steps == [(2, True)]


def test_depth_zero_is_plain_decoding():
    found = walk(trace_of([True] * 5), depth=0)
    assert (found.num_steps, found.survival) == (5, [])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_tokens_a_step_are_one_and_the_sum_of_survivals(depth, seed):
    generator = seeded(seed)
    found = walk(trace_of([generator.random() < 0.7 for _ in range(300)]), depth)
    assert 1 + sum(found.survival) == pytest.approx(300 / found.num_steps, abs=1e-12)


def test_guesses_that_come_in_runs_are_not_averaged_over_positions():
    # Half of the positions lie in long runs, which steps leap over: most steps begin in the bad half.
    matches = ([True] * 40 + [False] * 40) * 5
    found = walk(trace_of(matches), depth=4)
    assert survival_of([found])[0] < 0.25 < sum(matches) / len(matches)


def test_a_drafter_with_few_guesses_drafts_no_more():
    trace = Trace(
        prompt="a", category="c", temperature=0.0, num_prompt_tokens=1,
        roots=(Root(0, 0, is_modelled=False), Root(2, 1, is_modelled=False), Root(8, 0, is_modelled=True),
               Root(8, 2, is_modelled=True), Root(8, 1, is_modelled=True), Root(0, 0, is_modelled=False)),
    )  # fmt: skip
    found = walk(trace, depth=4)
    assert found.steps == [(0, False), (2, False), (2, True)]
    assert found.asks_model
