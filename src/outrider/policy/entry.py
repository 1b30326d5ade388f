"""What a drafter may spend on reading texts before anybody knows what it is worth. Knows costs; no drafters.

A draft model must compute a whole prompt before its first guess, and may be slow, and its guesses no good. So it reads
in chunks: a few tokens show what a token costs; then it goes on if all that is left may be lost. What is lost so is
paid from the account down to a reserve, with which it may show what its guesses are worth. Until one of them was
verified it may also borrow a small share of the time of all texts. One that has proven itself reads on credit.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from typing import NamedTuple

from outrider.policy.account import Account
from outrider.policy.cost import NUM_TOLD, StepCosts
from outrider.policy.draft_cost import ASSUMED_CATCH_UP_SHARE, ASSUMED_DRAFT_SHARE
from outrider.policy.track import Source, Track
from outrider.sequence import DecodeStep, DraftWork, Sequence

PROVEN = 5  # guesses accepted, from which on a source is trusted with catching up on long texts
# Of the steps decoded lately and left on a text, what a source may spend on catching up before its first guess.
UNPROVEN_SHARE = 0.0175
MIN_STEPS, MAX_STEPS = 512, 4096
DOUBT = 10  # times as dear as thought, which a first chunk allows for
MIN_CHUNK, MAX_FIRST_CHUNK = 8, 64
CHUNK_GROWTH = 4
# Of a loan, how much the rest may take for reading to go on once that is known; later on all of it.
CAUTION = 0.8
LEAST_SPENT = 0.5  # plain steps, on a chunk after the first
# Plain steps that proven sources may owe for texts they read before they read another; what drafting gains pays it off.
MAX_DEBT = 4.0
LITTLE = 0.05  # of a plain step, of a text that is as good as read
NUM_USUAL = 2  # tokens of each text that a source catches up on in every step
RETRY = 1.5  # plain steps that the next of them may take: a first call may have been slow because it was the first


class Reader(NamedTuple):
    """A text that a source may have to catch up with."""

    place: int
    seconds: float
    num_tokens_left: int


class Entry:
    """Decides who may be read, and how much of it in a step."""

    def __init__(self, costs: StepCosts, account: Account) -> None:
        self.costs = costs
        self.account = account

    def seconds(self, source: Source, sequence: Sequence, track: Track) -> float:
        """Of the drafter catching up with a text, beyond the last few tokens."""
        num_behind = _num_behind(track, len(sequence.token_ids))
        return self.costs.catch_up(source.name, num_behind) if num_behind > 0 else 0.0

    def until_told(self, source: Source, seconds: float, plain_seconds: float) -> float:
        """Of the seconds that reading is thought to take, those until it is known: a chunk more tells."""
        return seconds if self.costs.is_told(source.name) else min(seconds, self.chunk_seconds(source, plain_seconds))

    def affordable(self, source: Source, texts: Sequences[Reader], plain_seconds: float) -> list[int]:
        """Places of those that may be drafted for: an unproven source does not get to read many long prompts."""
        if is_proven(source):
            is_free = self.account.debt <= MAX_DEBT
            return [text.place for text in texts if is_free or text.seconds <= LITTLE * plain_seconds]
        left = self.account.spare * plain_seconds
        if not self.costs.num_drafts(source.name):  # one shows what it costs
            texts = sorted(texts, key=lambda text: text.seconds)[:1]
            if not self.costs.is_told(source.name):
                chunk_seconds = self.chunk_seconds(source, plain_seconds)
                return [text.place for text in texts if chunk_seconds <= max(left, RETRY * plain_seconds)]
        places: list[int] = []
        for text in texts:
            is_first = not places and not source.survival.num_verified
            borrowed = self.loan(source, text.num_tokens_left) * plain_seconds if is_first else 0.0
            if self.costs.chunks(source.name)[0] <= NUM_TOLD:  # what is begun should not be left for a small mistake
                borrowed *= CAUTION
            if text.seconds <= max(left, borrowed):
                places.append(text.place)
                left -= text.seconds
        return places

    def limit(self, source: Source, plain_seconds: float) -> int | None:
        """Tokens to catch up on with a text in one step; None: all."""
        if is_proven(source):
            return None
        usual = ASSUMED_CATCH_UP_SHARE * ASSUMED_DRAFT_SHARE * plain_seconds
        per_token = self.costs.catch_up(source.name, 1) or usual
        num_chunks, largest = self.costs.chunks(source.name)
        if self.costs.num_drafts(source.name):
            affordable = max(LEAST_SPENT, self.account.spare, self.account.probe_balance)
            return max(MIN_CHUNK, int(affordable * plain_seconds / per_token))
        if not num_chunks:
            return max(MIN_CHUNK, min(MAX_FIRST_CHUNK, int(plain_seconds / (DOUBT * per_token))))
        affordable = max(LEAST_SPENT, self.account.spare)
        if self.costs.is_told(source.name):
            affordable = max(affordable, self.loan(source, 0))
        seconds = affordable * plain_seconds - sum(self.costs.draft(source.name, 1))
        return max(MIN_CHUNK, min(CHUNK_GROWTH * largest, int(seconds / per_token)))

    def loan(self, source: Source, num_tokens_left: int) -> float:
        """Plain steps that a source may still spend without any guess of it being verified."""
        num_steps = min(max(self.account.num_steps + num_tokens_left, MIN_STEPS), MAX_STEPS)
        return UNPROVEN_SHARE * num_steps - source.num_invested

    def chunk_seconds(self, source: Source, plain_seconds: float) -> float:
        """Of the next chunk; nothing of the first, which must be afforded to know it."""
        if not self.costs.chunks(source.name)[0]:
            return 0.0
        return sum(self.costs.draft(source.name, 1)) + self.costs.catch_up(
            source.name, self.limit(source, plain_seconds) or 0
        )

    def invest(self, sources: Sequences[Source], works: Sequences[DraftWork], plain_seconds: float) -> float:
        """Plain steps that unproven sources took to catch up; noted with those whose guesses are yet to come."""
        total = 0.0
        for work in works:
            if not work.num_caught_up:
                continue
            for source in sources:
                if source.name == work.source:
                    spent = self.reading_seconds(source, work) / plain_seconds
                    source.num_invested += 0.0 if source.survival.num_verified else spent
                    total += spent
        return total

    def owed(self, sources: Sequences[Source], works: Sequences[DraftWork], plain_seconds: float) -> float:
        """Plain steps that proven sources took to read texts, beyond the tokens of the step before."""
        pairs = [(source, work) for work in works for source in sources if source.name == work.source]
        return sum(self.owed_seconds(source, work) for source, work in pairs) / plain_seconds

    def owed_seconds(self, source: Source, work: DraftWork) -> float:
        """Of a call's, those in which a proven source read texts, beyond the tokens of the step before."""
        if not work.num_caught_up or not is_proven(source):
            return 0.0
        num_tokens = max(0, work.num_caught_up - NUM_USUAL * work.num_sequences)
        return min(self.costs.catch_up(work.source, num_tokens), work.seconds / self.costs.speed)

    def reading_seconds(self, source: Source, work: DraftWork) -> float:
        """Of a call's, those in which an unproven source caught up; all of them if it did nothing else."""
        if not work.num_caught_up or is_proven(source):
            return 0.0
        seconds = work.seconds / self.costs.speed
        return min(seconds, self.costs.catch_up(source.name, work.num_caught_up)) if work.num_steps else seconds


class Chunks:
    """What sources caught up on in a step without guessing, to be laid to the texts that had to wait for it."""

    def __init__(self, step: DecodeStep) -> None:
        self._left = {work.source: work.num_caught_up for work in step.work if work.num_caught_up}

    def take(self, source: Source, track: Track, at_token: int, limit: int | None) -> bool:
        """Whether the source was busy catching up with this text, and so could not guess; the track is moved on."""
        if limit is None or _num_behind(track, at_token) <= limit or self._left.get(source.name, 0) < limit:
            return False
        self._left[source.name] -= limit
        track.num_seen += limit
        return True


def is_proven(source: Source) -> bool:
    """Whether so many guesses were right that it will not be in vain to catch up."""
    return source.survival.num_accepted >= PROVEN


def _num_behind(track: Track, num_tokens: int) -> int:
    return num_tokens - track.num_seen - 2
