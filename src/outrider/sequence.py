"""A text in the making and what a step does with it. Knows no arrays, no models and no text, only token ids."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from outrider.request import FinishReason, Request, TokenLogProbs
from outrider.stats import SequenceStats
from outrider.tree import DraftBudget, TokenTree, Verdict

# Of a text that is read, the last places that are looked back on; and of all texts of a forward together.
MAX_TOLD, MAX_TOLD_TOGETHER = 16, 64


class Decision(NamedTuple):
    """What a policy changed its mind about, and why.

    Attributes:
        at_token: length of the output when it was decided.
        depth: tokens to draft a step from here on, as planned; 0 is plain decoding.
        source: the drafter meant.
        agreement: of the drafter on this text, as estimated.
        break_even: the least agreement at which drafting would pay; None where no agreement would.
        num_beside: further guesses beside these that a step may draft, as planned; 0 makes chains.
    """

    at_token: int
    depth: int
    source: str
    agreement: float
    break_even: float | None
    num_beside: int = 0


@dataclass(slots=True, eq=False)
class Sequence:
    """One request's tokens and counters: the only value of the loop that changes.

    Once past prefill exactly one token is not in the target's cache: the root of the next tree. A preempted sequence
    has lost its cache and computes its tokens again.

    Attributes:
        num_computed: tokens, from the first on, whose keys and values the target's cache holds.
        log_probs: of the output's tokens, where asked for.
        decisions: of the policy, oldest first.
        draft_fault: what a drafter did wrong first; from then on the text goes on without that one.
        num_preempted: how often its cache was taken away.
        error: why the text cannot go on, if the target's numbers for it cannot be trusted.
    """

    request: Request
    token_ids: list[int]
    num_computed: int = 0
    finish_reason: FinishReason | None = None
    stats: SequenceStats = field(default_factory=SequenceStats)
    log_probs: list[TokenLogProbs] = field(default_factory=list[TokenLogProbs])
    decisions: list[Decision] = field(default_factory=list[Decision])
    draft_fault: str | None = None
    num_preempted: int = 0
    error: str | None = None

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
        """Whether tokens of the prompt are left to compute, other than its last, which is the first root."""
        return self.num_computed < self.num_prompt_tokens - 1

    @property
    def num_tokens_left(self) -> int:
        return self.request.params.max_tokens - self.num_output_tokens

    def check(self) -> None:
        assert 0 <= self.num_computed < len(self.token_ids), "the root must be outside the cache"
        assert self.num_tokens_left >= 0


class ScheduledSequence(NamedTuple):
    """One sequence's part in a step: so many of its uncomputed tokens, then a draft within the budget.

    Chunks of a prompt take no draft, and leave the root for later unless it is computed with the last; a decoding
    sequence computes its root.
    """

    sequence: Sequence
    num_tokens: int
    budget: DraftBudget

    @property
    def reaches_root(self) -> bool:
        """Whether this part ends the text, so that the target's next token is wanted."""
        return self.num_tokens == self.sequence.num_uncomputed


class ScheduledBatch(NamedTuple):
    """Who runs in one step. Prefill chunks and decoding rows never share one, so rounding cannot depend on load.

    A root in its prompt's step is no exception: that is done only where its bits are those of decoding.
    """

    kind: Literal["prefill", "decode"]
    items: list[ScheduledSequence]


class DraftWork(NamedTuple):
    """What one source did when a step's drafts were made.

    Attributes:
        num_sequences: that it was asked about.
        num_steps: draft steps taken one after the other.
        num_caught_up: tokens that it had to compute before it could guess, of all sequences.
    """

    source: str
    num_sequences: int
    num_steps: int
    num_caught_up: int
    seconds: float


class Hindsight(NamedTuple):
    """What a source would have guessed at places of a text where it was not asked, as it found out by reading on.

    Of a chain, a guess comes after others that were right, so after the text's own tokens: of the same places, these
    outcomes are what verification would have told, but for penalties, which are left out. They cost no row of the
    target.

    Attributes:
        outcomes: of places one after the other, whether the first guess was right; None where there was none.
        scores: of the guesses, as in a draft; None if it gives none.
    """

    source: str
    request_id: int
    outcomes: tuple[bool | None, ...]
    scores: tuple[float, ...] | None


class DecodeStep(NamedTuple):
    """What a decoding step did and what it cost, for a policy to learn from; lists go sequence by sequence.

    Attributes:
        trees: as verified.
        scores: what the drafter gave each node; None where it gave none.
        sources: who drafted.
        num_rows: of every sequence in the target's forward, padding not counted: also of those that only computed again
            what they had lost, which no other list names.
        num_computed_rows: of the target's forward, padding and filling counted.
        work: of those that were asked for drafts.
        seconds: of everything else but thinking.
        thinking_seconds: of the policy, over this step and the one before, and of asking drafters, beside their work.
        hindsight: of those that read on.
    """

    sequences: list[Sequence]
    budgets: list[DraftBudget]
    trees: list[TokenTree]
    scores: list[tuple[float, ...] | None]
    sources: list[str]
    verdicts: list[Verdict]
    num_rows: list[int]
    num_computed_rows: int
    work: Sequences[DraftWork]
    seconds: float
    thinking_seconds: float = 0.0
    hindsight: Sequences[Hindsight] = ()
