"""Many prompts: a line of JSON for each text, in order, and how far it is. Knows no options but those of output."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from outrider.cli.drive import Drive, refuse_unfit
from outrider.cli.explain import explain, explain_costs
from outrider.cli.jobs import Job, JobFile
from outrider.cli.options import OutputOptions
from outrider.cli.output import STDOUT, as_document, asked_document, log_probs_document, run_document, save_json, say
from outrider.engine.llm import LLM, Generation
from outrider.engine.memory import Ledger
from outrider.errors import NumericsError


def run_batch(llm: LLM, ledger: Ledger, jobs: JobFile, output: OutputOptions) -> bool:
    """Run the prompts, write their texts, and say in one line how it went.

    Returns:
        Whether all ran to their ends; after Ctrl-C, those that had begun are written as far as they came.

    Raises:
        UsageError: the target cannot take one of the prompts; none was run.
        NumericsError: the target computed no numbers for some of the texts; all are written, these as far as they came.
    """
    refuse_unfit(llm, jobs)
    began = time.perf_counter()
    with _progress(jobs.num_jobs, is_muted=output.json == STDOUT) as advance:
        lines = _Lines(llm, output, advance)
        is_complete = Drive(llm, lines).run(jobs)
    if output.json is not None:
        save_json(output.json, run_document(llm, ledger, lines.documents, time.perf_counter() - began))
    for line in explain_costs(llm.policy.describe()) if output.explain else ():
        say(line)
    say(lines.totals.summary(jobs.num_jobs, time.perf_counter() - began))
    if lines.totals.num_errors:
        raise NumericsError(
            f"{lines.totals.num_errors} texts ended early, the first because {lines.totals.first_error}"
        )
    return is_complete


class _Totals:
    """What the texts come to together."""

    def __init__(self) -> None:
        self.num_prompts = 0
        self.num_errors = 0
        self.first_error: str | None = None
        self._reasons: Counter[str] = Counter()
        self._levels: set[str] = set()
        self._counts: Counter[str] = Counter()

    def add(self, generation: Generation) -> None:
        stats = generation.stats
        self._reasons[generation.finish_reason] += 1
        self._levels.add(generation.exactness)
        self._counts["tokens"] += len(generation.token_ids)
        self.num_errors += generation.error is not None
        self.first_error = self.first_error or generation.error
        self._counts["faults"] += generation.draft_fault is not None
        for name in ("num_steps", "num_emitted", "num_drafted", "num_accepted"):
            self._counts[name] += getattr(stats, name)

    def summary(self, num_jobs: int, seconds: float) -> str:
        counts = self._counts
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common()) or "none"
        facts = [
            f"{self.num_prompts} of {num_jobs} prompts, {self._reasons.total()} texts ({reasons})",
            f"{counts['tokens']} tokens in {seconds:.1f} s ({counts['tokens'] / seconds:.1f} tokens/s)",
        ]
        if counts["num_drafted"]:
            length, rate = counts["num_emitted"] / counts["num_steps"], counts["num_accepted"] / counts["num_drafted"]
            facts.append(f"acceptance length {length:.2f}, rate {rate:.2f}")
        if counts["faults"]:
            facts.append(f"{counts['faults']} texts with a draft fault")
        return ", ".join([*facts, f"exactness {' and '.join(sorted(self._levels)) or 'unknown'}"])


class _Lines:
    """Each text as a line of JSON on stdout, and kept for the file where there is to be one."""

    def __init__(self, llm: LLM, output: OutputOptions, advance: Callable[[], None]) -> None:
        self.documents: list[dict[str, Any]] = []
        self.totals = _Totals()
        self._tokenizer = llm.tokenizer
        self._output = output
        self._advance = advance

    def write(self, stream: int, piece: str) -> None:
        """Nothing yet: a line is written when its text is whole."""

    def finish(self, job: Job, generation: Generation) -> None:
        names = {"id": job.id, "index": job.index}
        if self._output.json is not None:
            self.documents.append(names | asked_document(job) | as_document(generation, self._tokenizer))
        if self._output.json != STDOUT:
            # in ASCII, which is right in every encoding and no command to any terminal
            print(json.dumps(names | self._line(generation)), flush=True)  # noqa: T201 - to the user
        if self._output.explain:
            which = f"index {job.index}" + (f", stream {generation.stream}" if job.params.n > 1 else "")
            for line in explain(generation):
                say(f"{which}: {line}")
        self.totals.add(generation)
        if generation.stream == job.params.n - 1 and generation.finish_reason != "cancelled":
            self.totals.num_prompts += 1
            self._advance()

    def _line(self, generation: Generation) -> dict[str, Any]:
        line: dict[str, Any] = {
            "stream": generation.stream,
            "text": generation.text,
            "finish_reason": generation.finish_reason,
            "seed": generation.seed,
            "num_prompt_tokens": len(generation.prompt_token_ids),
            "num_tokens": len(generation.token_ids),
        }
        if generation.error is not None:
            line["error"] = generation.error
        log_probs = log_probs_document(generation, self._tokenizer)
        return line if log_probs is None else line | {"log_probs": log_probs}


@contextmanager
def _progress(num_jobs: int, *, is_muted: bool) -> Generator[Callable[[], None]]:
    """A bar where somebody watches, unless the lines themselves come by there."""
    if not sys.stderr.isatty() or (sys.stdout.isatty() and not is_muted):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("prompts", total=num_jobs)
        yield lambda: bar.advance(task)
