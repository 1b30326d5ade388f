"""Speculation against plain decoding of the same engine: same prompts, same seeds, one after the other in random order.

First every text is written plainly and not timed. What it ends in decides how much of it is measured: a text that falls
into a loop is measured up to where it begins to repeat itself, and one that is too short, or whose prompt is random,
not at all. Then each text is written again, several at a time, on both sides. All must come out as the first time, but
those of which only the distribution is promised.
Knows engines and clocks; what the measurements say together is in `results`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from outrider import noise
from outrider.bench.groups import Interruption, filled, parts
from outrider.bench.workloads import MIN_TOKENS, Loop, Prompt, Workload, find_loop, is_random
from outrider.engine.llm import LLM, Generation, raise_errors
from outrider.errors import UsageError
from outrider.request import Depth, SamplingParams

Side = Literal["plain", "speculative"]
SIDES: tuple[Side, Side] = ("plain", "speculative")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What to measure.

    Args:
        workloads: what to continue.
        temperatures: 0 is greedy.
        concurrencies: how many texts are written at once.
        depth: of the speculative side.
        num_runs: how often everything is measured.
        max_tokens: length of a text at most.
        seed: of the texts' noise, and of the order.
    """

    workloads: tuple[Workload, ...]
    temperatures: tuple[float, ...]
    concurrencies: tuple[int, ...]
    depth: Depth = "auto"
    num_runs: int = 1
    max_tokens: int = 160
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchText:
    """A text to be written, as plain decoding wrote it.

    Attributes:
        workload, prompt, temperature: what it goes on from, and how.
        params: end the text before it loops.
        token_ids: that must come out.
        loop: in which it would have ended.
        fault: why it is not measured; None if it is.
    """

    workload: str
    prompt: Prompt
    temperature: float
    params: SamplingParams
    token_ids: tuple[int, ...]
    loop: Loop | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A text as it was written once more.

    Attributes:
        generation: the text, and where its time went.
        first_seconds: from the request to its first token.
        last_seconds: from the request to its last token.
        gaps: seconds between steps that emitted some of it.
    """

    generation: Generation
    first_seconds: float
    last_seconds: float
    gaps: tuple[float, ...]

    @property
    def seconds_per_token(self) -> float:
        """Of decoding, in steps that may be shared with other texts."""
        return self.generation.stats.decode_seconds / self.generation.stats.num_emitted

    @property
    def seconds_per_further_token(self) -> float:
        """What is called TPOT: from the first token to the last, by the tokens after the first."""
        return (self.last_seconds - self.first_seconds) / max(len(self.generation.token_ids) - 1, 1)


class GroupRun(NamedTuple):
    """Texts that were written at once, on both sides.

    Attributes:
        concurrency: how many.
        texts: in the order of what was written.
        written: on each side.
        seconds: from the first request to the last token, on each side.
    """

    concurrency: int
    texts: tuple[BenchText, ...]
    written: dict[Side, list[Written]]
    seconds: dict[Side, float]


@dataclass(slots=True)
class Comparison:
    """All that was measured; `is_partial` if it was interrupted."""

    texts: list[BenchText] = field(default_factory=list[BenchText])
    runs: list[GroupRun] = field(default_factory=list[GroupRun])
    is_partial: bool = False


class _InterruptedError(Exception):
    """The group at hand was given up."""


def compare(
    llm: LLM, plan: BenchPlan, interruption: Interruption, clock: Callable[[], float] = time.perf_counter
) -> Comparison:
    """Measure everything, or as much as there is time for.

    Raises:
        UsageError: a prompt does not fit the model; nothing was measured.
    """
    bench = _Bench(llm, plan, interruption, clock)
    bench.refuse_unfit()
    comparison = Comparison()
    try:
        comparison.texts = bench.write_texts()
        bench.warm_up(comparison.texts)
        for run in bench.measure(comparison.texts):
            comparison.runs.append(run)
    except _InterruptedError:
        comparison.is_partial = True
    return comparison


class _Bench:
    def __init__(self, llm: LLM, plan: BenchPlan, interruption: Interruption, clock: Callable[[], float]) -> None:
        self.llm = llm
        self.plan = plan
        self.interruption = interruption
        self.clock = clock
        self.random = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated

    def refuse_unfit(self) -> None:
        """Raise UsageError, naming it, for the first prompt that the model cannot take."""
        params = SamplingParams(max_tokens=self.plan.max_tokens, seed=self.plan.seed)
        for workload in self.plan.workloads:
            for prompt in workload.prompts:
                try:
                    sequences = self.llm.start([prompt.text], params, predictions=[prompt.prediction])
                except UsageError as error:
                    raise type(error)(f"{workload.name}, {prompt.name}: {error}") from error
                for sequence in sequences:
                    self.llm.engine.cancel(sequence.request.request_id)

    def write_texts(self) -> list[BenchText]:
        """Every text, written plainly, with what of it is to be measured."""
        asked = [
            BenchText(
                workload=workload.name,
                prompt=prompt,
                temperature=temperature,
                params=SamplingParams(
                    temperature=temperature, seed=self.plan.seed + number, max_tokens=self.plan.max_tokens
                ),
                token_ids=(),
            )
            for temperature in self.plan.temperatures
            for workload in self.plan.workloads
            for number, prompt in enumerate(workload.prompts)
        ]
        texts: list[BenchText] = []
        for part in parts(asked, self.llm.config.max_sequences):
            self.interruption.report(f"writing the texts: {len(texts)} of {len(asked)}")
            written = self.write(part, "plain")
            texts += [self._judge(*pair) for pair in zip(part, written, strict=True)]
        return texts

    def warm_up(self, texts: Sequence[BenchText]) -> None:
        """Speculate at every concurrency once: what is done only once is nobody's to pay for."""
        valid = [text for text in texts if text.fault is None]
        for concurrency in self.plan.concurrencies if valid else ():
            self.interruption.report(f"warming up, {concurrency} at once")
            self.write(filled(valid, concurrency)[0], "speculative")

    def measure(self, texts: Sequence[BenchText]) -> Iterator[GroupRun]:
        """All groups of all runs, in random order."""
        groups: list[tuple[int, tuple[BenchText, ...]]] = []
        for _ in range(self.plan.num_runs):
            for temperature in self.plan.temperatures:
                valid = [text for text in texts if text.fault is None and text.temperature == temperature]
                for concurrency in self.plan.concurrencies if valid else ():
                    self.random.shuffle(valid)
                    groups += [(concurrency, group) for group in filled(valid, concurrency)]
        self.random.shuffle(groups)
        for number, (concurrency, group) in enumerate(groups):
            self.interruption.report(f"measuring: {number} of {len(groups)}")
            written: dict[Side, list[Written]] = {}
            seconds: dict[Side, float] = {}
            for side in self.random.sample(SIDES, len(SIDES)):
                began = self.clock()
                written[side] = self.write(group, side)
                seconds[side] = self.clock() - began
            yield GroupRun(concurrency, group, written, seconds)

    def write(self, texts: Sequence[BenchText], side: Side) -> list[Written]:
        """Write texts at once, noting when something came."""
        noise.forget()
        began = self.clock()
        sequences = self.llm.start(
            [text.prompt.text for text in texts],
            [text.params for text in texts],
            depth=0 if side == "plain" else self.plan.depth,
            predictions=None if side == "plain" else [text.prompt.prediction for text in texts],
        )
        times: dict[int, list[float]] = {sequence.request.request_id: [] for sequence in sequences}
        pieces: dict[int, str] = dict.fromkeys(times, "")
        while not all(sequence.finish_reason for sequence in sequences):
            if self.interruption.is_wanted():
                for request_id in times:
                    self.llm.engine.cancel(request_id)
                raise _InterruptedError
            deltas = self.llm.engine.step()
            now = self.clock() - began
            for delta in deltas:
                times[delta.request_id].append(now)
                pieces[delta.request_id] += delta.text
        raise_errors(sequences)
        return [
            _written(
                self.llm.generation(sequence, pieces[sequence.request.request_id]), times[sequence.request.request_id]
            )
            for sequence in sequences
        ]

    def _judge(self, text: BenchText, written: Written) -> BenchText:
        generation = written.generation
        token_ids, loop = generation.token_ids, find_loop(generation.token_ids)
        if is_random(generation.prompt_token_ids, self.llm.target.config.vocab_size):
            fault = "the prompt's tokens look randomly drawn"
        elif loop and loop.start < MIN_TOKENS:
            fault = f"repeats {loop.period} tokens from token {loop.start} on"
        elif len(token_ids) < MIN_TOKENS:
            fault = f"ends after {len(token_ids)} tokens"
        else:
            fault = None
        token_ids = token_ids[: loop.start] if loop else token_ids
        params = replace(text.params, max_tokens=max(len(token_ids), 1))
        return replace(text, params=params, token_ids=token_ids, loop=loop, fault=fault)


def _written(generation: Generation, times: Sequence[float]) -> Written:
    return Written(
        generation=generation,
        first_seconds=times[0],
        last_seconds=times[-1],
        gaps=tuple(later - earlier for earlier, later in pairwise(times)),
    )
