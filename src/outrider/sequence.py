"""A text in the making and what a step does with it. Knows no arrays, no models and no text, only token ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from outrider.request import FinishReason, Request
from outrider.stats import SequenceStats
from outrider.tree import DraftBudget


@dataclass(slots=True, eq=False)
class Sequence:
    """One request's tokens and counters: the only value of the loop that changes.

    Once past prefill exactly one token is not in the target's cache: the root of the next tree.
    """

    request: Request
    token_ids: list[int]
    num_computed: int = 0
    finish_reason: FinishReason | None = None
    stats: SequenceStats = field(default_factory=SequenceStats)

    @classmethod
    def start(cls, request: Request) -> Sequence:
        return cls(request, list(request.prompt_token_ids))

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def root_token(self) -> int:
        """The last emitted token, not yet in the cache."""
        return self.token_ids[-1]

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    @property
    def is_prefilling(self) -> bool:
        return self.num_uncomputed > 1

    @property
    def num_tokens_left(self) -> int:
        return self.request.params.max_tokens - self.num_output_tokens

    def check(self) -> None:
        assert 0 <= self.num_computed < len(self.token_ids), "the root must be outside the cache"
        assert self.num_tokens_left >= 0


class ScheduledSequence(NamedTuple):
    """One sequence's part in a step: so many of its uncomputed tokens, then a draft within the budget.

    A chunk of a prompt leaves the root for later and takes no draft; a decoding sequence computes its root.
    """

    sequence: Sequence
    num_tokens: int
    budget: DraftBudget

    @property
    def reaches_root(self) -> bool:
        """Whether this part ends the text, so that the target's next token is wanted."""
        return self.num_tokens == self.sequence.num_uncomputed


class ScheduledBatch(NamedTuple):
    """Who runs in one step. Prefill chunks and decoding rows never share one, so rounding cannot depend on load."""

    kind: Literal["prefill", "decode"]
    items: list[ScheduledSequence]
