"""What drafts and looks took, as far as it can be believed. Knows costs; no texts and no drafters."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from typing import NamedTuple

from outrider.policy.cost import StepCosts
from outrider.policy.entry import Entry, is_proven
from outrider.policy.track import Source
from outrider.sequence import DecodeStep, DraftWork

# Once so many drafts were timed, one that takes so many times as long says nothing of the drafter.
NUM_BELIEVED, SURPRISE = 8, 3.0
# Plain steps that a first draft, or a first look, is held to have taken at most: it makes ready what later ones find.
MAX_FIRST = 2.0
LOOK_GAIN = 0.1
# Of a step's target, what may be laid to the draft before it, and how fast that is learned.
MAX_BEYOND, BEYOND_GAIN = 0.5, 0.02


class Lost(NamedTuple):
    """Seconds that drafters took in a step, beyond what was invested in reading, or is owed for it.

    Attributes:
        looking: for looks, with what reading took.
    """

    seconds: float
    looking: float


class Losses:
    """Reckons what drafters took in a step.

    Attributes:
        looks: what looking back takes.
    """

    def __init__(self, costs: StepCosts, entry: Entry) -> None:
        self.costs = costs
        self.looks = LookCosts()
        self._entry = entry
        self._beyond: dict[str, float] = {}  # of a target's seconds, by whose drafts are before it

    def of_step(self, step: DecodeStep, sources: Sequences[Source], plain_seconds: float, *, is_probe: bool) -> Lost:
        """Of the drafts and looks that a policy asked for, with the thought that they took."""
        lost, looking, has_drafted = 0.0, 0.0, any(budget.max_depth > 0 for budget in step.budgets)
        for work in step.work:
            index = next((index for index, source in enumerate(sources) if source.name == work.source), None)
            if index is None:
                continue
            num_looked = looked(step, index)
            if num_looked:
                seconds, reading = self._looked(sources[index], work, num_looked, plain_seconds)
                lost, looking = lost + seconds, looking + seconds + reading
            elif has_drafted:  # else drafts of a fixed depth
                lost += self._drafted(sources[index], work, plain_seconds, is_probe=is_probe)
        thinking, num_sequences = self.costs.thinking, len(step.sequences)
        if has_drafted:
            return Lost(lost + thinking.beyond_idle(num_sequences), looking)
        thought = max(0.0, step.thinking_seconds / self.costs.speed - thinking.idle(num_sequences))
        return Lost(lost + thought, looking + thought)

    def charged(self, step: DecodeStep, plain_rows: int) -> DecodeStep:
        """The step, with what its target took longer than after no draft laid to the draft.

        A model that has just drafted leaves the target colder caches, and attention takes longer for guesses than for
        rows that fill up. Where a step computes other rows than a plain one, that is learned as what these rows take;
        and what branches take is learned apart.
        """
        rows, source = step.num_computed_rows, _last_drafter(step)
        if source is None or not plain_rows == rows == self.costs.last_rows or not all(t.is_chain for t in step.trees):
            return step
        expected = self.costs.target(rows, len(step.sequences)) * self.costs.speed
        share = self._beyond.get(source, 0.0)
        surprise = step.seconds / expected - 1 - share
        share += BEYOND_GAIN * min(max(surprise, -MAX_BEYOND), MAX_BEYOND)
        share = self._beyond[source] = min(max(share, 0.0), MAX_BEYOND)
        beyond = min(share * expected, step.seconds)
        work = [each._replace(seconds=each.seconds + beyond * (each.source == source)) for each in step.work]
        return step._replace(seconds=step.seconds - beyond, work=work)

    def _drafted(self, source: Source, work: DraftWork, plain_seconds: float, *, is_probe: bool) -> float:
        """Of a draft, what was invested left out: more than was to be expected is the machine's."""
        seconds = work.seconds / self.costs.speed - self._entry.reading_seconds(source, work)
        num_drafts = self.costs.num_drafts(source.name)
        if not num_drafts:
            return min(seconds, MAX_FIRST * plain_seconds)
        catching_up = self.costs.catch_up(source.name, work.num_caught_up) if is_proven(source) else 0.0
        if num_drafts >= NUM_BELIEVED:
            fixed, each = self.costs.draft(source.name, work.num_sequences)
            seconds = min(seconds, SURPRISE * (fixed + each * work.num_steps) + catching_up)
        return seconds if is_probe else max(0.0, seconds - catching_up)

    def _looked(self, source: Source, work: DraftWork, num_texts: int, plain_seconds: float) -> tuple[float, float]:
        """Of a look, what was invested, or will be owed, left out; and that."""
        reading = self._entry.reading_seconds(source, work) + self._entry.owed_seconds(source, work)
        seconds = work.seconds / self.costs.speed - reading
        return self.looks.believed(source.name, num_texts, seconds, plain_seconds), reading


class LookCosts:
    """Seconds that sources take to look back on a text, by how many texts share a call; reading prompts is left out."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, int], tuple[float, int]] = {}

    def seconds(self, source: str, num_texts: int) -> float:
        """Of each text; 0 until the source has looked back."""
        mean, num = self._means.get((source, num_texts.bit_length()), (0.0, 0))
        return mean if num else max((mean for (name, _), (mean, _) in self._means.items() if name == source), default=0)

    def believed(self, source: str, num_texts: int, seconds: float, plain_seconds: float) -> float:
        """What a look took, which is learned: more than was to be expected is the machine's."""
        if seconds <= 0:  # nothing but reading that is paid for otherwise
            return 0.0
        mean, num = self._means.get((source, num_texts.bit_length()), (0.0, 0))
        each = seconds / num_texts
        each = min(each, SURPRISE * mean if num else MAX_FIRST * plain_seconds / num_texts)
        mean += max(LOOK_GAIN, 1 / (num + 1)) * (each - mean)
        self._means[source, num_texts.bit_length()] = mean, num + 1
        return each * num_texts


def _last_drafter(step: DecodeStep) -> str | None:
    """Whose draft was made last, of those that were verified."""
    drafted = {source for source, tree in zip(step.sources, step.trees, strict=True) if len(tree)}
    return next((work.source for work in reversed(step.work) if work.source in drafted), None)


def looked(step: DecodeStep, index: int) -> int:
    """How many texts a source only looked back on; 0 where it was asked for any guess."""
    own = [budget.of_member(index) for budget in step.budgets]
    return 0 if any(budget.limit for budget in own) else sum(budget.looks_back for budget in own)
