"""Traces of real drafters: what each would guess at every place of texts that the target wrote itself.

Nothing is speculated. A draft model computes a whole text at once, given the target's own tokens (teacher forcing); a
suffix automaton is asked place by place. Their cascade follows from both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.cache.table import BlockPool, BlockTable
from outrider.draft.cascade import DECENT_SCORE
from outrider.draft.suffix import SuffixDrafter
from outrider.predict.trace import MAX_TRACED_DEPTH, Offer, Root, Trace, runs_of
from outrider.request import Request, SamplingParams
from outrider.runtime.base import Runtime, SequenceRows
from outrider.sequence import Sequence as TextSequence
from outrider.tree import DraftBudget

ROWS_AT_ONCE = 64
BUDGET = DraftBudget(MAX_TRACED_DEPTH, MAX_TRACED_DEPTH)
# Guesses at one place that are looked at: of more than two, trees were not seen to gain.
NUM_OFFERED = 2
# Of logarithms of probabilities over others: where one of the two is next to nothing, it is all the same by how much.
MAX_ODDS = 50.0


class KnownText(NamedTuple):
    """A text as the target wrote it.

    Attributes:
        prompt, category: whose it is.
        params: seed and temperature settled, and as many tokens as the text has.
        prompt_token_ids, token_ids: what was asked, and what came.
    """

    prompt: str
    category: str
    params: SamplingParams
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


class Teacher:
    """A model that is shown texts, and asked at every place what it would have said.

    Args:
        runtime: whose cache arrays are used.
        pool: that keeps the books of those arrays.
    """

    def __init__(self, runtime: Runtime, pool: BlockPool) -> None:
        self._runtime = runtime
        self._pool = pool

    def logits(self, text: KnownText, first: int, last: int, table: BlockTable) -> NDArray[np.float32]:
        """[places, vocab] that the tokens [first, last) of the whole text are chosen from; called in order."""
        token_ids = (*text.prompt_token_ids, *text.token_ids)
        while table.num_committed < first - 1:
            self._forward(token_ids[: first - 1], table, wanted=False)
        return self._forward(token_ids[: last - 1], table, wanted=True)

    def _forward(self, token_ids: Sequence[int], table: BlockTable, *, wanted: bool) -> NDArray[np.float32]:
        """Some tokens more, or all of the few that are wanted."""
        start = table.num_committed
        chunk = token_ids[start : start + ROWS_AT_ONCE]
        with table.reserve(max(len(chunk), self._runtime.min_rows)):
            rows = SequenceRows(chunk, start, table.blocks, range(len(chunk)) if wanted else ())
            logits = self._runtime.forward([rows]).logits
            table.commit(tuple(range(len(chunk))))
        return logits

    def table(self) -> BlockTable:
        return BlockTable(self._pool)


def model_trace(draft: Teacher, target: Teacher | None, text: KnownText, vocab_size: int, max_context: int) -> Trace:
    """What a draft model would guess.

    Args:
        draft: the draft model.
        target: to compare distributions with, too; None leaves overlap and odds out.
        text: to be guessed.
        vocab_size: ids that both models have.
        max_context: of the draft model: beyond it there are no guesses.
    """
    begin, end = len(text.prompt_token_ids), len(text.prompt_token_ids) + len(text.token_ids)
    tables = [each.table() for each in (draft, target) if each is not None]
    offers: list[Offer] = []
    overlaps: list[float] = []
    odds: list[float] = []
    try:
        for first in range(begin, min(end, max_context), ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, end, max_context)
            guessed = draft.logits(text, first, last, tables[0])[:, :vocab_size]
            for place, row in zip(range(first, last), guessed, strict=True):
                address = noise.Address(text.params.seed or 0, 0, place)
                guesses = sampling.guesses(row, text.params, address, NUM_OFFERED)
                offers.append(_offer(guesses, text.token_ids[place - begin]))
            if target is not None:
                known = target.logits(text, first, last, tables[1])[:, :vocab_size]
                for place, ours, theirs in zip(range(first, last), known, guessed, strict=True):
                    overlap, own_odds = _compared(ours, theirs, text.params, text.token_ids[place - begin])
                    overlaps.append(overlap)
                    odds.append(own_odds)
    finally:
        for table in tables:
            table.release()
    matches = [offer.rank == 0 for offer in offers]
    num_beyond = len(text.token_ids) - len(matches)
    limits = [min(MAX_TRACED_DEPTH, max_context - place) for place in range(begin, end)]
    runs = runs_of([*matches, *[False] * num_beyond], MAX_TRACED_DEPTH)
    # The last places have fewer tokens after them than a draft has guesses: what lies beyond the text is not judged.
    roots = [Root(max(limit, 0), run, is_modelled=True) for limit, run in zip(limits, runs, strict=True)]
    trace = _trace(text, roots, float(np.mean(overlaps)) if overlaps else None)
    return replace(trace, offers=tuple(offers), odds=tuple(odds))


def suffix_trace(text: KnownText) -> tuple[Trace, list[bool]]:
    """What a suffix automaton would guess, and at which places a cascade would ask nobody else."""
    request = Request(
        request_id=0, prompt_token_ids=text.prompt_token_ids, params=text.params, seed=text.params.seed or 0
    )
    sequence, drafter = TextSequence.start(request), SuffixDrafter()
    roots: list[Root] = []
    is_sure: list[bool] = []
    began = time.perf_counter()
    for place, token_id in enumerate(text.token_ids):
        draft = drafter.propose([sequence], [BUDGET])
        guesses, scores = draft.trees[0].tokens, draft.scores[0] if draft.scores else None
        accepted = 0
        for guess, token in zip(guesses, text.token_ids[place:], strict=False):
            if guess != token:
                break
            accepted += 1
        roots.append(Root(len(guesses), accepted, is_modelled=False))
        is_sure.append(bool(scores) and scores[0] >= DECENT_SCORE)
        sequence.token_ids.append(token_id)
    seconds = (time.perf_counter() - began) / max(len(text.token_ids), 1)
    return _trace(text, roots, look_up_seconds=seconds), is_sure


def cascade_trace(suffix: Trace, is_sure: Sequence[bool], model: Trace, text: KnownText) -> Trace:
    """At a fixed depth: the automaton where it is sure enough, else the model, if it has a guess."""
    roots = [
        looked_up if sure or not modelled.num_drafted else modelled
        for looked_up, modelled, sure in zip(suffix.roots, model.roots, is_sure, strict=True)
    ]
    trace = _trace(text, roots, look_up_seconds=suffix.look_up_seconds)
    return replace(trace, offers=model.offers, odds=model.odds)


def _trace(text: KnownText, roots: Sequence[Root], overlap: float | None = None, look_up_seconds: float = 0.0) -> Trace:
    return Trace(
        prompt=text.prompt,
        category=text.category,
        temperature=text.params.temperature,
        num_prompt_tokens=len(text.prompt_token_ids),
        roots=tuple(roots),
        overlap=overlap,
        look_up_seconds=look_up_seconds,
    )


def _offer(guesses: Sequence[sampling.Guess], token_id: int) -> Offer:
    ranks = (rank for rank, guess in enumerate(guesses) if guess.token_id == token_id)
    return Offer(tuple(guess.score for guess in guesses), next(ranks, None))


def _compared(
    known: NDArray[np.float32], guessed: NDArray[np.float32], params: SamplingParams, token_id: int
) -> tuple[float, float]:
    """Overlap of the two distributions, and the logarithm of the second's probability of a token over the first's."""
    first, second = (sampling.log_probs(row, params) for row in (known, guessed))
    overlap = float(np.exp(np.minimum(first, second)).sum())
    if token_id >= len(second):  # an id that the draft model lacks
        return overlap, -MAX_ODDS
    ours, theirs = (max(float(each[token_id]), -MAX_ODDS) for each in (first, second))
    return overlap, theirs - ours
