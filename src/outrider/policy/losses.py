"""What drafts and looks took, as far as it can be believed. Knows costs and the sources' names; no drafters."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from typing import NamedTuple

from outrider.policy.cost import StepCosts
from outrider.policy.entry import Entry, is_proven
from outrider.policy.track import Source
from outrider.sequence import DecodeStep, DraftWork

# Once so many drafts were timed, one that takes so many times as long says nothing of the drafter.
NUM_BELIEVED, SURPRISE = 8, 3.0
# Plain steps that a first draft is held to have taken at most: it makes ready what later ones find. And a first look,
# after which another must be affordable.
MAX_FIRST, MAX_FIRST_LOOK = 2.0, 0.5
# How fast what a look takes is learned; plain steps up to which it is believed at any rate; and what is forgotten of it
# each time that one is too dear.
LOOK_GAIN, LITTLE_LOOK, FORGOTTEN_LOOK = 0.1, 0.02, 0.01
# Of a step's target, what may be laid to the draft before it, and how fast that is learned.
MAX_BEYOND, BEYOND_GAIN = 1.0, 0.1


class Lost(NamedTuple):
    """What drafters took in a step.

    Attributes:
        seconds: of drafts and looks and the thought about them, without what was invested in reading or is owed for it.
        looking: of looks and thought where nobody drafted, with what reading took.
    """

    seconds: float
    looking: float


class Timed(NamedTuple):
    """What a step's target took, and whose draft it came after."""

    num_rows: int
    num_sequences: int
    source: str | None
    seconds: float


class Losses:
    """Reckons what drafters took.

    Attributes:
        looks: what looking back takes.
    """

    def __init__(self, costs: StepCosts, entry: Entry, sources: Sequences[Source]) -> None:
        self.costs = costs
        self.looks = LookCosts()
        self._entry = entry
        self._sources = {source.name: (index, source) for index, source in enumerate(sources)}
        # Of a target's seconds, by whose draft is before it, and from how many pairs of steps that is known.
        self._beyond: dict[str, tuple[float, int]] = {}
        self._before: Timed | None = None

    def of_step(self, step: DecodeStep, plain_seconds: float, *, is_decided: bool, is_probe: bool) -> Lost:
        """Of drafts and looks that a policy asked for; `is_decided`: of any draft, others being of a fixed depth."""
        drafting = looking = reading = 0.0
        for work in step.work:
            if work.source not in self._sources:
                continue
            index, source = self._sources[work.source]
            if num_texts := num_looked_at(step, index):
                own_reading = self._entry.reading_seconds(source, work) + self._entry.owed_seconds(source, work)
                seconds = work.seconds / self.costs.speed - own_reading
                looking += self.looks.believed(source.name, num_texts, seconds, plain_seconds)
                reading += own_reading
            elif is_decided:
                drafting += self._of_draft(source, work, plain_seconds, is_probe=is_probe)
        thinking = self.costs.thinking.beyond_idle(len(step.sequences))
        return Lost(drafting + looking + thinking, looking + reading + thinking * (not is_decided))

    def charged(self, step: DecodeStep, plain_rows: int) -> DecodeStep:
        """The step, with what its target took longer than after no draft laid to the draft.

        A model that has just drafted leaves the target colder caches, and attention takes longer for guesses than for
        rows that fill up. Where a step computes other rows than a plain one, that is learned as what these rows take.
        Where it computes as many, steps one right after the other tell of it, one with a draft and one without.
        """
        source = _last_drafter(step)
        is_alike = step.num_computed_rows == plain_rows and all(tree.is_chain for tree in step.trees)
        if not self.costs.is_known or not is_alike:
            self._before = None
            return step
        before, self._before = self._before, Timed(plain_rows, len(step.sequences), source, step.seconds)
        if before is not None and before[:2] == self._before[:2] and before.source != source:
            self._compare(before, self._before)
        if source is None:
            return step
        usual = self.costs.target(step.num_computed_rows, len(step.sequences)) * self.costs.speed
        share, _ = self._beyond.get(source, (0.0, 0))
        beyond = min(share * usual, step.seconds)
        last = max(place for place, work in enumerate(step.work) if work.source == source)
        work = [*step.work]
        work[last] = work[last]._replace(seconds=work[last].seconds + beyond)
        return step._replace(seconds=step.seconds - beyond, work=work)

    def _compare(self, one: Timed, other: Timed) -> None:
        """Learn from two steps, one right after the other, what the draft before one of them did."""
        drafted, plain = (one, other) if one.source else (other, one)
        if plain.source is None and drafted.source is not None and plain.seconds > 0:
            share, num = self._beyond.get(drafted.source, (0.0, 0))
            seen = min(max(drafted.seconds / plain.seconds - 1, -MAX_BEYOND), MAX_BEYOND)
            share += max(BEYOND_GAIN, 1 / (num + 1)) * (seen - share)
            self._beyond[drafted.source] = max(share, 0.0), num + 1

    def forget(self) -> None:
        """Doubt what nothing has put to the test for long."""
        self._beyond = {source: (share / 2, num) for source, (share, num) in self._beyond.items()}

    def _of_draft(self, source: Source, work: DraftWork, plain_seconds: float, *, is_probe: bool) -> float:
        """What was invested left out: more than was to be expected is the machine's."""
        seconds = work.seconds / self.costs.speed - self._entry.reading_seconds(source, work)
        num_drafts = self.costs.num_drafts(source.name)
        if not num_drafts:
            return min(seconds, MAX_FIRST * plain_seconds)
        catching_up = self.costs.catch_up(source.name, work.num_caught_up) if is_proven(source) else 0.0
        if num_drafts >= NUM_BELIEVED:
            fixed, each = self.costs.draft(source.name, work.num_sequences)
            seconds = min(seconds, SURPRISE * (fixed + each * work.num_steps) + catching_up)
        return seconds if is_probe else max(0.0, seconds - catching_up)


class LookCosts:
    """Seconds that sources take to look back on a text, by how many texts share a call; reading prompts is left out."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, int], tuple[float, int]] = {}

    def seconds(self, source: str, num_texts: int) -> float:
        """Of each text; 0 until the source has looked back."""
        own = self._means.get((source, num_texts.bit_length()))
        others = (mean for (name, _), (mean, _) in self._means.items() if name == source)
        return own[0] if own else max(others, default=0.0)

    def believed(self, source: str, num_texts: int, seconds: float, plain_seconds: float) -> float:
        """What a look took, which is learned: more than was to be expected is the machine's."""
        key = source, num_texts.bit_length()
        if seconds <= 0 and key not in self._means:  # nothing but reading, which is paid for otherwise
            return 0.0
        mean, num = self._means.get(key, (0.0, 0))
        most = max(SURPRISE * mean * num_texts, LITTLE_LOOK * plain_seconds) if num else MAX_FIRST_LOOK * plain_seconds
        seconds = min(max(seconds, 0.0), most)
        mean += max(LOOK_GAIN, 1 / (num + 1)) * (seconds / num_texts - mean)
        self._means[key] = mean, num + 1
        return seconds

    def doubt(self, source: str, num_texts: int) -> None:
        """It was too dear to look: a little less is believed, or one bad moment could end it for good."""
        for key in (source, num_texts.bit_length()), (source, 1):
            if key in self._means:
                mean, num = self._means[key]
                self._means[key] = mean * (1 - FORGOTTEN_LOOK), num


def num_looked_at(step: DecodeStep, index: int) -> int:
    """Texts that a source was asked to look back on; 0 where it was asked for any guess."""
    own = [budget.of_member(index) for budget in step.budgets]
    return 0 if any(budget.limit for budget in own) else sum(budget.looks_back for budget in own)


def _last_drafter(step: DecodeStep) -> str | None:
    """Whose draft the target came after, where there was any to verify: a model's, though another's was chosen."""
    drafted = {source for source, tree in zip(step.sources, step.trees, strict=True) if len(tree)}
    asked = [work.source for work in step.work if work.num_steps or work.source in drafted]
    return asked[-1] if drafted and asked else None
