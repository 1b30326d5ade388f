"""Prompts into an engine, a bounded number at a time, and finished texts out of it in order. Shows nothing itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from outrider.cli.interrupt import noted_interrupt
from outrider.cli.jobs import Job
from outrider.cli.prompt import encode_prompt
from outrider.engine.llm import LLM, Generation
from outrider.engine.stream import Delta
from outrider.errors import UsageError
from outrider.sequence import Sequence


class Sink(Protocol):
    """Where texts go."""

    def write(self, stream: int, piece: str) -> None:
        """Some more of one of a prompt's texts, as soon as it is there."""
        ...

    def finish(self, job: Job, generation: Generation) -> None:
        """A whole text: in the order of the prompts, and of the texts of each."""
        ...


class _Live(NamedTuple):
    """An unfinished text and its place in the order."""

    job: Job
    sequence: Sequence
    order: int
    pieces: list[str]


class Drive:
    """Runs prompts to their ends. A finished text waits until all before it are finished."""

    def __init__(self, llm: LLM, sink: Sink) -> None:
        self._llm = llm
        self._sink = sink
        # As many again as run at once wait in the engine, so that whoever leaves is replaced at once.
        self._max_live = 2 * llm.config.max_sequences
        self._live: dict[int, _Live] = {}
        self._finished: dict[int, tuple[Job, Generation]] = {}
        self._num_started = 0
        self._num_told = 0

    def run(self, jobs: Iterable[Job]) -> bool:
        """Whether all ran to their ends. Ctrl-C cancels those that have begun, and begins no others."""
        waiting = iter(jobs)
        with noted_interrupt() as interrupted:
            while not interrupted.is_set():
                while len(self._live) < self._max_live and (job := next(waiting, None)):
                    self._start(job)
                if not self._live:
                    return True
                self._take(self._llm.engine.step())
            cancelled = [self._llm.engine.cancel(request_id) for request_id in self._live]
            self._take([delta for delta in cancelled if delta])
        return False

    def _start(self, job: Job) -> None:
        for sequence in start(self._llm, job):
            self._live[sequence.request.request_id] = _Live(job, sequence, self._num_started, [])
            self._num_started += 1

    def _take(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            live = self._live[delta.request_id]
            live.pieces.append(delta.text)
            self._sink.write(live.sequence.request.stream, delta.text)
            if delta.finish_reason:
                generation = self._llm.generation(live.sequence, "".join(live.pieces))
                self._finished[live.order] = (live.job, generation)
                del self._live[delta.request_id]
        while self._num_told in self._finished:
            self._sink.finish(*self._finished.pop(self._num_told))
            self._num_told += 1


def start(llm: LLM, job: Job) -> list[Sequence]:
    """Queue a prompt's texts.

    Raises:
        UsageError: the target cannot take it.
    """
    prompt = encode_prompt(llm, job.prompt)
    return llm.start([prompt], job.params, depth=job.depth, predictions=[job.prediction])


def refuse_unfit(llm: LLM, jobs: Iterable[Job]) -> None:
    """Raise UsageError, naming the place, for the first prompt that the loaded target cannot take; nothing is run."""
    for job in jobs:
        try:
            sequences = start(llm, job)
        except UsageError as error:
            raise type(error)(f"{job.place}: {error}") from error
        for sequence in sequences:
            llm.engine.cancel(sequence.request.request_id)
