"""Timed runs wait for each other."""

from __future__ import annotations

import multiprocessing
import tempfile

from outrider.bench.machine import machine_to_ourselves


def hold(connection):
    with machine_to_ourselves():
        connection.send("held")
        connection.recv()


def test_a_second_run_says_that_it_waits_and_begins_when_the_first_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    other = context.Process(target=hold, args=(theirs,))
    other.start()
    assert ours.recv() == "held"
    with machine_to_ourselves(lambda: ours.send("go on")):
        other.join(timeout=30)
        assert other.exitcode == 0, "the first run was let go by the one that waited"


def test_nobody_waits_for_nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        with machine_to_ourselves(lambda: 1 / 0):
            pass
