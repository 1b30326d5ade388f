"""What a forward costs: measured by rows, by sequences and by change, remembered, and doubted when damaged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from outrider.cache.table import BLOCK_SIZE, FIRST_BLOCKS
from outrider.runtime import profile as profile_module
from outrider.runtime.base import ModelOutput, Runtime, RuntimeOptions
from outrider.runtime.profile import (
    NUM_ROUNDS,
    NUM_SETTLING,
    NUM_TIMED,
    TARGET_WIDTHS,
    WARM_LENGTHS,
    Profile,
    measure_profile,
    recalled_profile,
    warm_up,
)


class TimedRuntime(Runtime):
    """Takes virtual seconds: by the row, by the sequence, for another number of rows, and the first time dearly."""

    name = "timed"

    def __init__(self, max_context: int = 4096) -> None:
        self.config: Any = SimpleNamespace(max_context=max_context)
        self.options = RuntimeOptions(num_threads=1)
        self.min_rows, self.exactness, self.num_blocks = 1, "seed", 0
        self.now, self.last_rows, self.num_forwards = 0.0, 0, 0
        self.seen: set[int] = set()
        self.slowness = 1.0

    def forward(self, batch):
        rows = self.computed_rows([len(each.token_ids) for each in batch])
        seconds = 1 + 0.1 * rows + 0.25 * len(batch) + 0.5 * (rows != self.last_rows) + 9.0 * (rows not in self.seen)
        self.now += self.slowness * seconds
        self.last_rows, self.num_forwards = rows, self.num_forwards + 1
        self.seen.add(rows)
        for each in batch:
            assert each.num_past + len(each.token_ids) <= min(BLOCK_SIZE * len(each.blocks), self.config.max_context)
            assert max(each.blocks) < self.num_blocks
        return ModelOutput(np.zeros((0, 1), np.float32), rows)

    def resize(self, num_blocks):
        self.num_blocks = num_blocks

    def move(self, blocks, moves):
        raise NotImplementedError

    def memory(self):
        raise NotImplementedError

    def describe(self):
        return {"name": self.name}


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    timed = TimedRuntime()
    monkeypatch.setattr(profile_module, "time", SimpleNamespace(perf_counter=lambda: timed.now))
    monkeypatch.setattr(profile_module, "MAX_SECONDS", 1e9)
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    return timed


def test_rows_sequences_and_changes_are_told_apart(runtime):
    profile = measure_profile(runtime)
    assert dict(profile.points) == pytest.approx({rows: 1.25 + 0.1 * rows for rows in TARGET_WIDTHS})
    assert dict(profile.together) == pytest.approx({rows: 3.0 + 0.1 * rows for rows in (16, 32, 64, 8)})
    assert profile.change_seconds == pytest.approx(0.5)
    assert profile.change_rows == pytest.approx(5.0)
    assert runtime.num_blocks == 0


def test_what_is_filled_up_to_one_number_is_timed_once_and_full(runtime, monkeypatch):
    monkeypatch.setattr(runtime, "computed_rows", lambda num_rows: max(sum(num_rows), 5))
    widths = []
    forward = runtime.forward
    monkeypatch.setattr(runtime, "forward", lambda batch: widths.append(len(batch[0].token_ids)) or forward(batch))
    assert [rows for rows, _ in measure_profile(runtime, (1, 2, 5, 9)).points] == [5, 9]
    assert set(widths[-12:]) <= {5, 9}


def test_a_slow_machine_is_timed_at_fewer_widths(runtime, monkeypatch):
    monkeypatch.setattr(profile_module, "MAX_SECONDS", 0.1)
    profile = measure_profile(runtime)
    assert (len(profile.points), len(profile.together)) == (3, 3)


def test_a_tiny_context_still_gives_something(runtime):
    runtime.config.max_context = 20
    assert [rows for rows, _ in measure_profile(runtime).points] == [1]


def test_it_is_measured_once(runtime):
    first = recalled_profile(runtime, "a checkpoint")
    num_forwards = runtime.num_forwards
    assert recalled_profile(runtime, "a checkpoint") == first
    assert runtime.num_forwards <= num_forwards + 1 + NUM_ROUNDS * (1 + NUM_TIMED) + (NUM_ROUNDS - 1) * NUM_SETTLING
    recalled_profile(runtime, "another")
    assert runtime.num_forwards > num_forwards


@pytest.mark.parametrize(
    "damage",
    [None, [], [[[5, 1.0]]], [[[5, -1.0]], 0.1, []], [[[5, "x"]], 0.1, []], [[[5, 1.0]], -1.0, []], [[], 0.1, []]],
)
def test_a_damaged_memory_is_measured_anew(runtime, damage, monkeypatch):
    monkeypatch.setattr(profile_module, "recall", lambda name: damage)
    assert len(recalled_profile(runtime, "a checkpoint").points) == len(TARGET_WIDTHS)


def test_a_change_is_never_worth_more_rows_than_a_few():
    assert Profile([(5, 1.0), (9, 1.0)], 9.0, []).change_rows == 64.0


def test_warming_up_computes_prompts_of_all_usual_lengths_and_leaves_the_first_blocks(runtime, monkeypatch):
    monkeypatch.setattr(profile_module, "MAX_WARM_SECONDS", 1e9)
    warm_up(runtime)
    assert {*WARM_LENGTHS} <= runtime.seen
    assert runtime.num_blocks == FIRST_BLOCKS


def test_a_context_shorter_than_any_of_these_is_warmed_up_all_the_same(runtime):
    runtime.config.max_context = 12
    warm_up(runtime)
    assert runtime.num_forwards == 3


def test_a_slow_model_is_not_warmed_up_for_long(runtime):
    warm_up(runtime)
    assert runtime.num_forwards == 3 + 1


def test_a_profile_of_a_bad_moment_is_measured_anew(runtime):
    runtime.slowness = 3.0
    slow = recalled_profile(runtime, "a checkpoint")
    runtime.slowness = 1.0
    fast = recalled_profile(runtime, "a checkpoint")
    assert fast.points[0][1] < 0.5 * slow.points[0][1]
    runtime.slowness = 2.0
    assert recalled_profile(runtime, "a checkpoint") == fast
