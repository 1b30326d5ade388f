"""What servers count of their drafts, in our words: one set of ratios for the counters of several engines.

Two places are read. An answer may bring counts of its own text: llama.cpp's `timings`, vLLM's `metrics` (where it was
started with --per-request-spec-decode-metrics). And /metrics counts everything that the server ever did, so that what a
measurement did is a difference; whoever else asks the server meanwhile is in it. Knows names, no connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from operator import add, sub
from typing import Any, NamedTuple, cast

MAX_METRICS_BYTES = 16 * 1024 * 1024
MAX_COUNT = 10**15
MAX_POSITIONS = 1024
# What others may have made of the tokens that were counted, before it is said: a last step may be counted late.
TOLERANCE = 0.03
_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?[ \t]+([-+.\deE]+)(?:[ \t]+-?\d+)?\s*", re.ASCII)
_LABEL = re.compile(r'(\w+)="([^"]*)"', re.ASCII)


class Counts(NamedTuple):
    """Of drafts and what became of them; None is what a server does not count.

    Attributes:
        num_steps: that verified a draft; SGLang and llama.cpp's answers: any forwards of the target.
        num_drafted, num_accepted: tokens.
        accepted_at: how often each depth was accepted; empty where unknown.
        num_emitted: tokens that the server wrote meanwhile.
    """

    num_steps: int | None
    num_drafted: int | None
    num_accepted: int | None
    accepted_at: tuple[int, ...]
    num_emitted: int | None

    @property
    def acceptance_length(self) -> float | None:
        """Tokens emitted a step, the next token included."""
        if not self.num_steps:
            return None
        if self.num_accepted is not None:
            return 1 + self.num_accepted / self.num_steps
        return None if self.num_emitted is None else self.num_emitted / self.num_steps

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted over drafted tokens."""
        return self.num_accepted / self.num_drafted if self.num_drafted and self.num_accepted is not None else None

    @property
    def survival(self) -> list[float]:
        """How often each depth was accepted, in all steps that verified a draft, however short it was."""
        return [count / self.num_steps for count in self.accepted_at] if self.num_steps else []


@dataclass(frozen=True, slots=True)
class Family:
    """One engine's names of its counters."""

    engine: str
    steps: str
    emitted: str
    drafted: str | None = None
    accepted: str | None = None
    accepted_at: str | None = None


def _family(engine: str, emitted: str) -> Family:
    names = [f"{engine}:spec_decode_num_{what}_total" for what in
             ("drafts", "draft_tokens", "accepted_tokens", "accepted_tokens_per_pos")]  # fmt: skip
    return Family(engine, names[0], f"{engine}:{emitted}", *names[1:])


# vLLM and llama.cpp name them alike. SGLang has gauges beside its counters, but a gauge is of the last moment only.
FAMILIES = (
    _family("vllm", "generation_tokens_total"),
    _family("llamacpp", "tokens_predicted_total"),
    Family("sglang", "sglang:spec_verify_calls_total", "sglang:generation_tokens_total"),
)


def read_metrics(content: bytes) -> tuple[str, Counts] | None:
    """Which engine's counters these are, and what they stand at; None where nothing is counted of drafts.

    Args:
        content: in the text format of Prometheus; lines that are not are passed over.
    """
    sums: dict[str, int] = {}
    positions: dict[str, dict[int, int]] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        match = _SAMPLE.fullmatch(line)
        value = _count(match[3]) if match else None
        if match is None or value is None:
            continue
        labels: dict[str, str] = dict(_LABEL.findall(match[2] or ""))
        if labels.get("tp_rank", "0") != "0":  # every rank counts the same steps
            continue
        sums[match[1]] = sums.get(match[1], 0) + value
        if labels.get("position", "").isdecimal() and int(labels["position"]) < MAX_POSITIONS:
            at = positions.setdefault(match[1], {})
            at[int(labels["position"])] = at.get(int(labels["position"]), 0) + value
    for family in FAMILIES:
        if family.steps in sums:
            at = positions.get(family.accepted_at or "", {})
            return family.engine, Counts(
                num_steps=sums[family.steps],
                num_drafted=sums.get(family.drafted or ""),
                num_accepted=sums.get(family.accepted or ""),
                accepted_at=tuple(at.get(depth, 0) for depth in range(max(at, default=-1) + 1)),
                num_emitted=sums.get(family.emitted),
            )
    return None


def difference(before: Counts, after: Counts) -> Counts | None:
    """What was counted in between; None if a counter fell, as it does when a server begins anew."""
    found = _each(after, before, sub)
    values = [*found.accepted_at, *(value for value in found if isinstance(value, int))]
    return None if min(values, default=0) < 0 else found


def total(counts: Iterable[Counts]) -> Counts | None:
    """Of several texts or times; None of none."""
    found: Counts | None = None
    for each in counts:
        found = each if found is None else _each(found, each, add)
    return found


def counts_in(answer: Mapping[str, Any]) -> Counts | None:
    """What a server says of one text in its answer; None where it says nothing."""
    timings, metrics = _part(answer, "timings"), _part(_part(answer, "metrics"), "speculative_decoding")
    if "draft_n" in timings:
        drafted, accepted = whole(timings, "draft_n"), whole(timings, "draft_n_accepted")
        emitted = whole(timings, "predicted_n")
        # The prompt's forward emits the first token, every other one a token of the target's own.
        steps = None if emitted is None or accepted is None else max(emitted - 1 - accepted, 0)
        return Counts(steps, drafted, accepted, (), emitted)
    if "num_spec_steps" in metrics:
        return Counts(
            num_steps=whole(metrics, "num_spec_steps"),
            num_drafted=whole(metrics, "num_draft_tokens"),
            num_accepted=whole(metrics, "num_accepted_draft_tokens"),
            accepted_at=_histogram(metrics),
            num_emitted=None,
        )
    return None


def _histogram(metrics: Mapping[str, Any]) -> tuple[int, ...]:
    """How often each depth was accepted, from how many steps accepted 0, 1, 2 tokens and so on."""
    counted = metrics.get("acceptance_histogram")
    if not isinstance(counted, list) or not all(type(each) is int for each in cast("list[Any]", counted)):
        return ()
    steps = cast("list[int]", counted)[:MAX_POSITIONS]
    return tuple(sum(steps[depth:]) for depth in range(1, len(steps)))


def _each(one: Counts, other: Counts, of: Callable[[int, int], int]) -> Counts:
    def both(first: int | None, second: int | None) -> int | None:
        return None if first is None or second is None else of(first, second)

    at = [of(*pair) for pair in zip_longest(one.accepted_at, other.accepted_at, fillvalue=0)]
    return Counts(
        both(one.num_steps, other.num_steps),
        both(one.num_drafted, other.num_drafted),
        both(one.num_accepted, other.num_accepted),
        tuple(at),
        both(one.num_emitted, other.num_emitted),
    )


def _count(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if 0 <= value <= MAX_COUNT else None


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = values.get(name)
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def whole(values: object, name: str) -> int | None:
    """A count of a server's; None where it is not there, or is none."""
    value = cast("dict[str, Any]", values).get(name) if isinstance(values, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None
