"""One server, or two against each other, measured by what it writes: any that speaks OpenAI's API.

First every text is written once and not timed. What it ends in decides how much of it is measured, as for our own
engine: a text that falls into a loop is measured up to where it begins to repeat itself, and one that is too short not
at all. A server's tokens are not known, so a loop is looked for in words, marks and white space. Then the texts are
written again, several at a time; two servers take turns, group by group, in random order. A server need not write the
same text again, so each is judged anew, and what is not fit is in no figure.
Knows texts and turns; what a server is asked, and how, is in `server`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from outrider.bench.groups import Interruption, filled, parts
from outrider.bench.remote.completion import Asked, Streamed
from outrider.bench.remote.counters import Counts, difference
from outrider.bench.remote.server import Patience, Server
from outrider.bench.remote.together import GivenUpError
from outrider.bench.workloads import MIN_TOKENS, Loop, Prompt, Workload, find_loop
from outrider.errors import UsageError

Role = Literal["server", "against"]
# A server may count a step shortly after it has sent what came of it.
SETTLE_SECONDS = 0.1
_WORDS = re.compile(r"\w+|[^\w\s]|\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePlan:
    """What to measure.

    Args:
        workloads: what to continue or to answer.
        temperatures: 0 is greedy.
        concurrencies: how many texts are written at once.
        num_runs: how often everything is measured.
        max_tokens: length of a text at most.
        seed: sent with each text, and of the order.
        timeout: seconds that texts written at once may take.
    """

    workloads: tuple[Workload, ...]
    temperatures: tuple[float, ...]
    concurrencies: tuple[int, ...]
    num_runs: int = 1
    max_tokens: int = 160
    seed: int = 0
    timeout: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteText:
    """A text to be written.

    Attributes:
        workload: that its prompt is of.
        asked: ends the text before it loops.
        loop: in which it would have ended, in tokens as far as can be told, and in words that it repeats.
        fault: why it is not measured; None if it is.
    """

    workload: str
    asked: Asked
    loop: Loop | None = None
    fault: str | None = None

    @property
    def prompt(self) -> Prompt:
        return self.asked.prompt

    @property
    def temperature(self) -> float:
        return self.asked.temperature


class RemoteRun(NamedTuple):
    """Texts that were written at once, on each server.

    Attributes:
        concurrency: how many.
        texts: in the order of what was written.
        written: by each server.
        seconds: from the first request to the last piece of a text, on each server.
        counts: of drafts meanwhile, by a server's own counters.
    """

    concurrency: int
    texts: tuple[RemoteText, ...]
    written: Mapping[Role, list[Streamed]]
    seconds: Mapping[Role, float]
    counts: Mapping[Role, Counts | None]


@dataclass(slots=True)
class RemoteComparison:
    """All that was measured; `is_partial` if it ended early, with `error` if it was not the user who ended it."""

    texts: list[RemoteText] = field(default_factory=list[RemoteText])
    runs: list[RemoteRun] = field(default_factory=list[RemoteRun])
    is_partial: bool = False
    error: UsageError | None = None


def compare_servers(
    servers: Mapping[Role, Server],
    plan: RemotePlan,
    interruption: Interruption,
    rest: Callable[[float], None] = time.sleep,
) -> RemoteComparison:
    """Measure everything, or as much as there is time for.

    Raises:
        UsageError: a server failed before anything was measured; later, it is in the result.
    """
    bench = _Bench(servers, plan, interruption, rest)
    comparison = RemoteComparison()
    try:
        comparison.texts = bench.write_texts()
        bench.warm_up(comparison.texts)
        for run in bench.measure(comparison.texts):
            comparison.runs.append(run)
    except GivenUpError:
        comparison.is_partial = True
    except UsageError as error:
        if not comparison.runs:
            raise
        comparison.is_partial, comparison.error = True, error
    return comparison


def judge(written: Streamed) -> tuple[str | None, Loop | None]:
    """Why a text cannot be measured, if so; and the loop in which it ends."""
    loop = find_repetition(written)
    if loop and loop.start < MIN_TOKENS:
        return f"repeats {loop.period} words from about token {loop.start} on", loop
    if written.num_tokens < MIN_TOKENS:
        return f"ends after {written.num_tokens} {'tokens' if written.is_counted else 'pieces'}", loop
    if len(written.times) < 2:
        return "came in one piece, so that nothing is known of its tokens' times", loop
    return None, loop


def find_repetition(written: Streamed) -> Loop | None:
    """The loop in which a text ends: where it starts in tokens, as its characters tell, and its period in words."""
    words = _WORDS.findall(written.text)
    numbers: dict[str, int] = {}
    loop = find_loop([numbers.setdefault(word, len(numbers)) for word in words])
    if loop is None:
        return None
    num_before = sum(map(len, words[: loop.start]))
    return Loop(round(written.num_tokens * num_before / len(written.text)), loop.period)


class _Bench:
    def __init__(
        self,
        servers: Mapping[Role, Server],
        plan: RemotePlan,
        interruption: Interruption,
        rest: Callable[[float], None],
    ) -> None:
        self.servers = servers
        self.plan = plan
        self.interruption = interruption
        self.rest = rest
        self.patience = Patience(plan.timeout, interruption.is_wanted)
        self.random = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated

    def write_texts(self) -> list[RemoteText]:
        """Every text, with what of it is to be measured."""
        plan = self.plan
        texts = [
            RemoteText(workload=workload.name, asked=Asked(prompt, temperature, plan.seed + number, plan.max_tokens))
            for temperature in plan.temperatures
            for workload in plan.workloads
            for number, prompt in enumerate(workload.prompts)
        ]
        for role, server in self.servers.items():
            judged: list[RemoteText] = []
            for part in parts(texts, max(plan.concurrencies)):
                self.interruption.report(f"writing the texts: {len(judged)} of {len(texts)}, {server.endpoint}")
                written = server.write([text.asked for text in part], self.patience)
                judged += [self._fitted(role, *pair) for pair in zip(part, written, strict=True)]
            texts = judged
        return texts

    def warm_up(self, texts: Sequence[RemoteText]) -> None:
        """Write at every concurrency once: what is done only once is nobody's to pay for."""
        valid = [text.asked for text in texts if text.fault is None]
        # The texts were written at the highest already.
        for concurrency in sorted(self.plan.concurrencies)[:-1] if valid else ():
            self.interruption.report(f"warming up, {concurrency} at once")
            for server in self.servers.values():
                server.write(filled(valid, concurrency)[0], self.patience)

    def measure(self, texts: Sequence[RemoteText]) -> Iterator[RemoteRun]:
        """All groups of all runs, in random order."""
        groups: list[tuple[int, tuple[RemoteText, ...]]] = []
        for _ in range(self.plan.num_runs):
            for temperature in self.plan.temperatures:
                valid = [text for text in texts if text.fault is None and text.temperature == temperature]
                for concurrency in self.plan.concurrencies if valid else ():
                    self.random.shuffle(valid)
                    groups += [(concurrency, group) for group in filled(valid, concurrency)]
        self.random.shuffle(groups)
        for number, (concurrency, group) in enumerate(groups):
            self.interruption.report(f"measuring: {number} of {len(groups)}")
            yield self._run(concurrency, group)

    def _run(self, concurrency: int, group: tuple[RemoteText, ...]) -> RemoteRun:
        written: dict[Role, list[Streamed]] = {}
        counts: dict[Role, Counts | None] = {}
        roles = list(self.servers)
        for role in self.random.sample(roles, len(roles)):
            server = self.servers[role]
            before = server.counts(self.patience)
            written[role] = server.write([text.asked for text in group], self.patience)
            if before is not None:
                self.rest(SETTLE_SECONDS)
            after = server.counts(self.patience)
            counts[role] = difference(before, after) if before and after else None
        seconds: dict[Role, float] = {
            role: max((each.last_seconds for each in texts if each.times), default=0.0)
            for role, texts in written.items()
        }
        return RemoteRun(concurrency, group, written, seconds, counts)

    def _fitted(self, role: Role, text: RemoteText, written: Streamed) -> RemoteText:
        """As much of a text as both servers can be asked for."""
        fault, loop = judge(written)
        if fault and len(self.servers) > 1:
            fault = f"{fault} ({self.servers[role].endpoint})"
        most = text.asked.max_tokens
        if loop is not None:
            # What is asked for is in tokens, also where pieces were counted.
            share = 1.0 if written.is_counted else most / max(written.num_tokens, 1)
            most = min(most, max(round(share * loop.start), 1))
        return replace(
            text, asked=text.asked._replace(max_tokens=most), loop=text.loop or loop, fault=text.fault or fault
        )
