"""The loop: schedule, propose, reserve, forward, verify, commit, observe, advance.

Plain decoding is an empty draft, a chain is a tree with one branch, a prompt is a text with more than one token not yet
computed: there is no other loop. Knows no checkpoints and no prompts' text: it is handed what computes and decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence as Sequences
from contextlib import ExitStack
from dataclasses import dataclass, replace

from outrider.cache.books import CacheBooks
from outrider.cache.table import BLOCK_SIZE, BlockPool
from outrider.draft.base import Draft, Drafter
from outrider.engine.batch import LogitRows, chunks_of, compute, kept_rows, rows_of
from outrider.engine.config import EngineConfig
from outrider.engine.faults import Guard
from outrider.engine.scheduler import Limits, Scheduler
from outrider.engine.stream import Delta, TextStream
from outrider.errors import NumericsError
from outrider.model.tokenizer import Tokenizer
from outrider.policy.base import Policy
from outrider.request import FinishReason, Request
from outrider.runtime.base import ModelOutput, Runtime, SequenceRows
from outrider.sampling import History
from outrider.sequence import DecodeStep, ScheduledBatch, Sequence
from outrider.stats import STAGES, SequenceStats, Stage
from outrider.tree import TokenTree, Verdict
from outrider.verify.base import Verifier
from outrider.verify.coupled import CoupledVerifier

PLAIN = CoupledVerifier()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an engine is made of. `clock` gives seconds; tests inject a virtual one."""

    target: Runtime
    drafter: Drafter
    verifier: Verifier
    policy: Policy
    tokenizer: Tokenizer | None
    clock: Callable[[], float] = time.perf_counter


@dataclass(slots=True)
class _Live:
    """An unfinished sequence with what the engine keeps for it."""

    sequence: Sequence
    stream: TextStream
    history: History


class Engine:
    """Runs requests, several at once, until each is finished."""

    def __init__(self, parts: Parts, config: EngineConfig) -> None:
        self.parts = parts
        self.guard = Guard(
            parts.target.config.vocab_size,
            parts.clock,
            config.draft_deadline,
            is_chains_only=config.exactness == "bitwise" and parts.target.row_class.trees != "bitwise",
        )
        self.drafter = self.guard.around(parts.drafter)
        self.pool = BlockPool(config.max_cache_tokens // BLOCK_SIZE, parts.target.resize)
        self.books = CacheBooks(
            self.pool,
            parts.target.move,
            prefill_chunk=config.prefill_chunk,
            max_prefix_tokens=config.max_prefix_tokens,
        )
        limits = Limits(
            config.max_sequences,
            config.max_prefill_tokens,
            parts.target.min_rows,
            parts.target.row_class.max_root_rows,
        )
        self.scheduler = Scheduler(parts.policy, self.books, limits, forget=self._forget)
        self._live: dict[int, _Live] = {}
        self._learning_seconds = 0.0

    def exchange(self, drafter: Drafter, policy: Policy, verifier: Verifier) -> None:
        """Draft, plan and verify with these from now on; no text may be under way."""
        assert self.is_idle, "texts are being written"
        self.parts = replace(self.parts, drafter=drafter, policy=policy, verifier=verifier)
        self.drafter = self.guard.around(drafter)
        self.scheduler.policy = policy

    def add(self, request: Request) -> Sequence:
        """Queue a request; its sequence shows how it fares."""
        live = _Live(Sequence.start(request), TextStream(self.parts.tokenizer, request), History(request))
        self.scheduler.add(live.sequence)
        self._live[request.request_id] = live
        return live.sequence

    def step(self) -> list[Delta]:
        """One pass of the loop: what it added to which texts. Empty where it computed prompts, and none to its end.

        A text whose logits are no numbers ends with finish reason "error", and with what it had before this step.
        """
        stages = _Stopwatch(self.parts.clock)
        batch = self.scheduler.schedule()
        if batch is None:
            return []
        stages.lap("policy")
        draft = self._propose(batch)
        stages.lap("draft")
        with ExitStack() as reserved:
            output = self._forward(batch, draft, reserved)
            stages.lap("target")
            verdicts = self._verify(batch, draft, output)
            stages.lap("sample")
            self._commit(batch, verdicts)
        deltas = self._advance(batch, draft, verdicts)
        stages.lap("other")
        if batch.kind == "decode":
            thinking = stages.seconds["policy"]
            # A cascade's choice and a guard's checks are nobody's work, and the policy causes them.
            beside = max(0.0, stages.seconds["draft"] - sum(work.seconds for work in draft.work))
            step = _as_step(batch, draft, output, verdicts, stages.seconds)
            self.parts.policy.observe(step._replace(thinking_seconds=thinking + beside + self._learning_seconds))
            stages.lap("policy")
            self._learning_seconds = stages.seconds["policy"] - thinking
        for delta in deltas:
            if delta.finish_reason:
                self._finish(self._live[delta.request_id], delta.finish_reason)
        stages.lap("other")
        stages.record(batch)
        return deltas

    def cancel(self, request_id: int) -> Delta | None:
        """End a request now and free all that it held; None if it had ended."""
        live = self._live.get(request_id)
        if live is None:
            return None
        self._finish(live, "cancelled")
        return _last_delta(live, "cancelled")

    @property
    def is_idle(self) -> bool:
        return not self._live

    def check(self) -> None:
        """Assert the invariants that hold between steps."""
        self.scheduler.check()
        self.drafter.check()
        assert {live.sequence for live in self._live.values()} == {*self.scheduler.running, *self.scheduler.waiting}

    def _propose(self, batch: ScheduledBatch) -> Draft:
        """What is worth verifying of what the drafter has made.

        Nobody is asked to draft for a prompt: a drafter's own prefill waits until there is a budget. What was drawn is
        verified whole: to leave out a token for what it is would change the distribution of the text.
        """
        if not any(item.budget.is_asking for item in batch.items):
            return Draft.nothing(len(batch.items), self.drafter.name)
        draft = self.drafter.propose([item.sequence for item in batch.items], [item.budget for item in batch.items])
        if not any(map(len, draft.trees)):
            return draft
        assert draft.scores is not None
        assert draft.sources is not None
        selected = self.parts.policy.select(batch, draft.trees, draft.scores, draft.sources)
        drawn_from = draft.probabilities or [None] * len(draft.trees)
        counts = [
            count if probabilities is None else len(tree)
            for tree, count, probabilities in zip(draft.trees, selected, drawn_from, strict=True)
        ]
        trees = [tree.first(count) for tree, count in zip(draft.trees, counts, strict=True)]
        scores = [each and each[:count] for each, count in zip(draft.scores, counts, strict=True)]
        return draft._replace(trees=trees, scores=scores)

    def _forward(self, batch: ScheduledBatch, draft: Draft, reserved: ExitStack) -> ModelOutput:
        """All rows of all sequences through the target, in slots that stay reserved until `reserved` closes."""
        rows: list[SequenceRows] = []
        for item, tree in zip(batch.items, draft.trees, strict=True):
            table = self.books.table(item.sequence)
            num_rows = max(item.num_tokens + len(tree), self.parts.target.min_rows)
            reserved.enter_context(table.reserve(num_rows))
            if batch.kind == "prefill":
                rows += chunks_of(item, table, self.books.prefill_chunk)
            else:
                rows.append(rows_of(item, tree, table))
        return compute(self.parts.target, batch.kind, rows)

    def _verify(self, batch: ScheduledBatch, draft: Draft, output: ModelOutput) -> list[Verdict | None]:
        """The path that matches and the target's next token; None for a prompt that goes on, or a text that cannot."""
        verdicts: list[Verdict | None] = []
        first_row = 0
        drawn_from = draft.probabilities or [None] * len(draft.trees)
        for item, tree, probabilities in zip(batch.items, draft.trees, drawn_from, strict=True):
            if not item.reaches_root:
                verdicts.append(None)
                continue
            logits = output.logits[first_row : first_row + len(tree) + 1]
            first_row += len(tree) + 1
            live = self._live[item.sequence.request.request_id]
            rows = LogitRows(live.history, item.sequence, tree, logits, probabilities)
            # Where nobody was asked to draft this is plain decoding, by the target's own noise, under any rule.
            verifier = self.parts.verifier if item.budget.limit > 0 else PLAIN
            try:
                verdict = verifier.verify(tree, rows)
            except NumericsError as error:  # in these rows: the others of the batch are no worse for them
                live.sequence.error = str(error)
                verdicts.append(None)
                continue
            if item.sequence.request.params.log_probs is not None:
                del live.sequence.log_probs[live.sequence.num_output_tokens :]  # of a step that failed
                live.sequence.log_probs += rows.log_probs_along(verdict)
            verdicts.append(verdict)
        return verdicts

    def _commit(self, batch: ScheduledBatch, verdicts: list[Verdict | None]) -> None:
        for item, verdict in zip(batch.items, verdicts, strict=True):
            if item.sequence.error is not None:
                continue
            table = self.books.table(item.sequence)
            moves = table.commit(kept_rows(item, verdict.path if verdict else ()))
            if moves:
                self.parts.target.move(table.blocks, moves)
            item.sequence.num_computed = table.num_committed
            self.books.publish(item.sequence)

    def _advance(self, batch: ScheduledBatch, draft: Draft, verdicts: Sequences[Verdict | None]) -> list[Delta]:
        """Tell the drafter, append the tokens, stream out."""
        deltas: list[Delta] = []
        assert draft.sources is not None
        try:
            for item, tree, source, verdict in zip(batch.items, draft.trees, draft.sources, verdicts, strict=True):
                if verdict is not None:
                    if len(tree):
                        self.drafter.observe(item.sequence, tree, verdict)
                    deltas.append(self._emit(self._live[item.sequence.request.request_id], tree, verdict))
                    if batch.kind == "decode":  # the first token may come with the prompt
                        _count(item.sequence.stats, tree, verdict, source, len(deltas[-1].token_ids))
                elif item.sequence.error is not None:
                    deltas.append(_last_delta(self._live[item.sequence.request.request_id], "error"))
        except BaseException:
            # The cache already holds tokens that some texts do not: none of the batch can go on.
            for item in batch.items:
                self.cancel(item.sequence.request.request_id)
            raise
        return deltas

    def _emit(self, live: _Live, tree: TokenTree, verdict: Verdict) -> Delta:
        accepted = [tree.tokens[node] for node in verdict.path]
        rejected = [token for node, token in enumerate(tree.tokens) if node not in verdict.path]
        pieces: list[str] = []
        finish_reason: FinishReason | None = None
        emitted: list[int] = []
        for token_id in (*accepted, verdict.next_token):
            piece, finish_reason = live.stream.push(token_id)
            emitted.append(token_id)
            pieces.append(piece)
            if finish_reason:
                break
        live.sequence.token_ids += emitted
        del live.sequence.log_probs[live.sequence.num_output_tokens :]
        return Delta(
            request_id=live.sequence.request.request_id,
            token_ids=tuple(emitted),
            pieces=tuple(pieces),
            num_accepted=min(verdict.num_accepted, len(emitted)),
            rejected_token_ids=tuple(rejected),
            finish_reason=finish_reason,
            log_probs=tuple(live.sequence.log_probs[-len(emitted) :]),
        )

    def _forget(self, sequence: Sequence) -> None:
        """A sequence lost its cache: a drafter's memory of it goes too, and a policy must not count on that."""
        self.drafter.release(sequence)
        self.parts.policy.release(sequence)

    def _finish(self, live: _Live, reason: FinishReason) -> None:
        live.sequence.finish_reason = reason
        self.scheduler.remove(live.sequence)
        self._forget(live.sequence)
        del self._live[live.sequence.request.request_id]


def _count(stats: SequenceStats, tree: TokenTree, verdict: Verdict, source: str, num_emitted: int) -> None:
    """Record a decoding step."""
    stats.num_branching += not tree.is_chain
    if verdict.num_accepted:
        stats.accepted_from[source] += verdict.num_accepted
    stats.count_step(
        draft_depth=tree.depth, num_nodes=len(tree), num_accepted=verdict.num_accepted, num_emitted=num_emitted
    )


def _last_delta(live: _Live, reason: FinishReason) -> Delta:
    """Of a text that ends without another token: what was held back."""
    request_id = live.sequence.request.request_id
    return Delta(request_id=request_id, token_ids=(), pieces=(live.stream.finish(),), finish_reason=reason)


def _as_step(
    batch: ScheduledBatch,
    draft: Draft,
    output: ModelOutput,
    verdicts: list[Verdict | None],
    seconds: dict[Stage, float],
) -> DecodeStep:
    """What the step did for the sequences that it took on; others only computed again what they had lost."""
    assert draft.scores is not None
    assert draft.sources is not None
    parts = [
        (item.sequence, item.budget, *rest, verdict)
        for item, *rest, verdict in zip(batch.items, draft.trees, draft.scores, draft.sources, verdicts, strict=True)
        if verdict is not None
    ]
    sequences, budgets, trees, scores, sources, reached = map(list, zip(*parts, strict=True)) if parts else [[]] * 6
    return DecodeStep(
        sequences=sequences, budgets=budgets, trees=trees, scores=scores, sources=sources, verdicts=reached,
        num_rows=[item.num_tokens + len(tree) for item, tree in zip(batch.items, draft.trees, strict=True)],
        num_computed_rows=output.num_computed_rows,
        work=draft.work, hindsight=draft.hindsight,
        seconds=sum(seconds.values()) - seconds["draft"] - seconds["policy"],
    )  # fmt: skip


class _Stopwatch:
    """Seconds of one step by stage."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)

    def lap(self, stage: Stage) -> None:
        now = self._clock()
        self.seconds[stage] += now - self._last
        self._last = now

    def record(self, batch: ScheduledBatch) -> None:
        """Add the step's seconds to every sequence that took part; a prompt's are all "prefill"."""
        seconds: dict[Stage, float] = (
            {"prefill": sum(self.seconds.values())} if batch.kind == "prefill" else self.seconds
        )
        for item in batch.items:
            item.sequence.stats.add_seconds(seconds)
