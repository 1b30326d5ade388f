"""Every number of texts at once has its part of the time, and a slow machine is not timed for longer than it may be."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from outrider.check import stand as stands
from outrider.check.budget import Budget
from outrider.check.stand import LEAST_ROUNDS, MAX_ROUNDS, Stand
from outrider.check.texts import Texts, Watch
from outrider.request import SamplingParams


@pytest.fixture
def rounds_timed(monkeypatch):
    """Rounds by number of sequences, in a world where each takes so long."""

    def timed(round_seconds, budget_seconds, share=1.0, concurrencies=(1, 2, 4, 8)):
        now, found = [0.0], Counter()

        def time_round(_llm, _texts, settings, number, _is_wanted):
            now[0] += round_seconds
            found[settings[0].num_sequences] += 1
            return [SimpleNamespace(num_sequences=each.num_sequences, round=number) for each in settings]

        monkeypatch.setattr(stands, "time_round", time_round)
        monkeypatch.setattr(stands.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(Stand, "use", lambda *_: None)
        text = SimpleNamespace(params=SamplingParams(temperature=0.0))
        budget = Budget(budget_seconds, lambda: now[0])
        Stand(SimpleNamespace(), {}, None).time_steps(Texts([text]), concurrencies, budget, share, Watch())
        return dict(found), budget

    return timed


def test_all_numbers_of_texts_at_once_have_equal_parts(rounds_timed):
    found, budget = rounds_timed(1.0, 80.0, share=0.5)
    assert found == {1: 10, 2: 10, 4: 10, 8: 10}
    assert not budget.skipped


def test_where_rounds_take_no_time_there_are_no_more_than_say_something_new(rounds_timed):
    assert rounds_timed(0.01, 80.0)[0] == dict.fromkeys((1, 2, 4, 8), MAX_ROUNDS)


def test_a_slow_machine_times_the_fewest_and_names_what_it_did_not(rounds_timed):
    found, budget = rounds_timed(9.0, 20.0, share=0.5)
    assert found == {1: LEAST_ROUNDS}
    assert budget.skipped == [f"step costs of {number} at once: no time" for number in (2, 4, 8)]
