"""Counts per step and the ratios that the glossary defines. Knows no clocks: seconds are handed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["prefill", "draft", "target", "sample", "policy", "other"]
STAGES: tuple[Stage, ...] = ("prefill", "draft", "target", "sample", "policy", "other")


@dataclass(slots=True)
class SequenceStats:
    """What speculation did for one sequence, and what its decoding steps took.

    The first token is not among those emitted where it came with the prompt, without a decoding step.
    `drafted_at[d]` and `accepted_at[d]` count the decoding steps whose draft had, and whose verdict kept, a node at
    depth d + 1; `num_branching` the drafts that were no chain; `accepted_from` the accepted tokens by who drafted them.
    Seconds are those of the steps that the sequence took part in, whole, whoever else shared them: in drafting, in the
    target's forward, in sampling and verifying, in deciding who runs and drafts how much, and in all else.
    """

    num_steps: int = 0
    num_emitted: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    num_branching: int = 0
    drafted_at: list[int] = field(default_factory=list[int])
    accepted_at: list[int] = field(default_factory=list[int])
    accepted_from: Counter[str] = field(default_factory=Counter[str])
    seconds: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def count_step(self, *, draft_depth: int, num_nodes: int, num_accepted: int, num_emitted: int) -> None:
        """Record one decoding step."""
        self.num_steps += 1
        self.num_emitted += num_emitted
        self.num_drafted += num_nodes
        self.num_accepted += num_accepted
        for depth in range(draft_depth):
            if depth == len(self.drafted_at):
                self.drafted_at.append(0)
                self.accepted_at.append(0)
            self.drafted_at[depth] += 1
            self.accepted_at[depth] += depth < num_accepted

    def add_seconds(self, seconds: Mapping[Stage, float]) -> None:
        for stage, more in seconds.items():
            self.seconds[stage] += more

    @property
    def acceptance_length(self) -> float | None:
        """Tokens emitted per target forward, the next token included."""
        return self.num_emitted / self.num_steps if self.num_steps else None

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted over drafted tokens."""
        return self.num_accepted / self.num_drafted if self.num_drafted else None

    @property
    def survival(self) -> list[float]:
        """Fraction of the drafts that reached depth d + 1 in which it was accepted."""
        return [accepted / drafted for accepted, drafted in zip(self.accepted_at, self.drafted_at, strict=True)]

    @property
    def decode_seconds(self) -> float:
        return sum(seconds for stage, seconds in self.seconds.items() if stage != "prefill")

    @property
    def decode_tokens_per_second(self) -> float | None:
        return self.num_emitted / self.decode_seconds if self.decode_seconds > 0 else None
