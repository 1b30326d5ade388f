"""So many texts at once from beginning to end: where one is finished, the next begins.

A batch that nobody joins drains: its last texts have it to themselves, and what was called eight at once is two. Here
every step that is counted decodes as many texts as are asked for, until each has been finished once; when all have
begun, they begin again.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.groups import num_decoding_steps
from outrider import LLM, noise
from outrider.predict.agreement import KnownText
from outrider.request import Depth
from outrider.sequence import Sequence as TextSequence
from outrider.stats import Stage

STAGES: tuple[Stage, ...] = ("draft", "target", "sample", "other")
# Of the machine's time, what other processes may take of it while something is timed; and how often it is timed again.
MAX_FOREIGN_SHARE, MAX_ATTEMPTS = 0.03, 3


@dataclass(frozen=True)
class SteadyRun:
    """What the steps that decoded all texts at once took, and what they wrote.

    Attributes:
        seconds: of all steps, prompts not counted.
        num_steps, num_tokens, num_drafted: of all of them.
        num_sequences: that each decoded.
        by_stage: the same seconds.
        foreign_share: of the machine's time, what other processes took meanwhile.
    """

    seconds: float
    num_steps: int
    num_tokens: int
    num_drafted: int
    num_sequences: int
    by_stage: dict[Stage, float]
    foreign_share: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds

    @property
    def tokens_per_step(self) -> float:
        """Of one text."""
        return self.num_tokens / self.num_steps / self.num_sequences

    def __add__(self, other: SteadyRun) -> SteadyRun:
        assert self.num_sequences == other.num_sequences
        return SteadyRun(
            self.seconds + other.seconds,
            self.num_steps + other.num_steps,
            self.num_tokens + other.num_tokens,
            self.num_drafted + other.num_drafted,
            self.num_sequences,
            {stage: self.by_stage[stage] + other.by_stage[stage] for stage in STAGES},
            max(self.foreign_share, other.foreign_share),
        )


class Company:
    """How much of the machine other processes have had since this was made; nothing where the system does not say."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds of all cores, of these busy, and of those our own."""
        own = sum(os.times()[:2])
        try:
            fields = [int(each) for each in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
        except OSError:
            return 0.0, own, own
        tick = os.sysconf("SC_CLK_TCK")
        return sum(fields) / tick, (sum(fields) - fields[3] - fields[4]) / tick, own

    @property
    def share(self) -> float:
        total, busy, own = (now - before for now, before in zip(self._now(), self._began, strict=True))
        return max(busy - own, 0.0) / total if total else 0.0


def run_undisturbed(llm: LLM, texts: Sequence[KnownText], num_sequences: int, depth: Depth) -> SteadyRun:
    """As `run_steadily`, again where others had the machine, too; the least disturbed run counts."""
    least: tuple[float, SteadyRun] | None = None
    for _ in range(MAX_ATTEMPTS):
        company = Company()
        run = run_steadily(llm, texts, num_sequences, depth)
        if least is None or company.share < least[0]:
            least = company.share, run
        if least[0] <= MAX_FOREIGN_SHARE:
            break
    assert least is not None
    return dataclasses.replace(least[1], foreign_share=least[0])


def run_steadily(llm: LLM, texts: Sequence[KnownText], num_sequences: int, depth: Depth) -> SteadyRun:
    """Decode texts, so many at once, until each was finished once.

    Raises:
        SystemExit: a text came out otherwise than it is known, so no speed is worth reporting.
    """
    started: list[tuple[KnownText, TextSequence]] = []
    seconds, num_steps, num_tokens, num_drafted = 0.0, 0, 0, 0
    by_stage = dict.fromkeys(STAGES, 0.0)
    noise.forget()
    try:
        while True:
            running = [pair for pair in started if pair[1].finish_reason is None]
            if len(started) >= len(texts) and all(each.finish_reason for _, each in started[: len(texts)]):
                break
            for _ in range(num_sequences - len(running)):
                text = texts[len(started) % len(texts)]
                (sequence,) = llm.start(text.prompt_token_ids, text.params, depth=depth)
                started.append((text, sequence))
                running.append(started[-1])
            first = running[0][1].stats
            at_work = [sequence for _, sequence in running]
            before, drafted = dict(first.seconds), sum(sequence.stats.num_drafted for sequence in at_work)
            decoded = num_decoding_steps(at_work)
            began = time.perf_counter()
            deltas = llm.engine.step()
            passed = time.perf_counter() - began
            if num_decoding_steps(at_work) < decoded + num_sequences:  # a prompt is being computed
                continue
            seconds += passed
            num_steps += 1
            num_tokens += sum(len(delta.token_ids) for delta in deltas)
            num_drafted += sum(sequence.stats.num_drafted for sequence in at_work) - drafted
            for stage in STAGES:
                by_stage[stage] += first.seconds[stage] - before[stage]
    finally:
        for _, sequence in started:
            llm.engine.cancel(sequence.request.request_id)
    for text, sequence in started[: len(texts)]:
        if tuple(sequence.output_token_ids) != text.token_ids:
            raise SystemExit(f"speculation changed the text of {text.prompt!r}: no speed is worth reporting")
    return SteadyRun(seconds, num_steps, num_tokens, num_drafted, num_sequences, by_stage)
