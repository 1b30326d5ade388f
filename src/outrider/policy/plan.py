"""What plans are made of: who may be drafted for, on top of what, and how deep. Knows numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from outrider.policy.curve import Curve, Prices


class Candidate(NamedTuple):
    """A sequence that may be drafted for.

    Attributes:
        place: in the batch.
        curve: what drafts for it come to.
        limit: on depth.
        is_drafted: whether the plan in force drafts for it.
        entry_seconds: of the drafter's catching up, for each step that it would serve.
        mean_logit: of first guesses, as the curve was made with.
    """

    place: int
    curve: Curve
    limit: int
    is_drafted: bool
    entry_seconds: float
    mean_logit: float = 0.0


class Settled(NamedTuple):
    """What a cheaper source drafts for the only sequence that is decoded.

    Attributes:
        computed: rows of the target where it has a guess.
        offered: share of the steps, of those that still cheaper ones leave, in which it has.
    """

    computed: int
    offered: float


class Base(NamedTuple):
    """The step without what is to be decided.

    Attributes:
        num_rows: of each sequence.
        seconds: that the step takes, with drafts of a fixed depth, and of several texts with those of settled sources.
        computed: rows that the target computes without any draft that is planned.
        known: computed rows and seconds of the target by depths and their places, as far as asked for lately.
        num_drafted: tokens that the drafts of settled sources are expected to earn; of a text alone, those beyond one
            that it gains elsewhere in the time of a step without.
        settled: of these sources' plans the one with guesses most often, where there is a single sequence.
    """

    num_rows: list[int]
    seconds: float
    computed: int
    known: dict[tuple[int, ...], tuple[int, float]]
    num_drafted: float = 0.0
    settled: Settled | None = None

    @property
    def num_sequences(self) -> int:
        return len(self.num_rows)

    @property
    def num_tokens(self) -> float:
        """That the step is expected to add."""
        return len(self.num_rows) + self.num_drafted

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.num_tokens / self.seconds

    def after(self, plan: Plan) -> Base:
        """With a source's plan for several texts settled: what a dearer source has to be better than."""
        return self._replace(seconds=plan.seconds, num_drafted=plan.rate * plan.seconds - len(self.num_rows))

    def where_silent(self, plan: Plan, seconds: float, offered: float, silence: float) -> Base:
        """With a source's plan for a text alone settled: where it has no guess.

        What a dearer source adds there would have been written without any guess as far as such places come together,
        and fast as far as they do not.

        Args:
            plan: that drafts.
            seconds: of a step without any guess.
            offered: share of the steps in which the source has a guess.
            silence: how often it has none at the next place, either.
        """
        tokens = 1 + (plan.rate * plan.seconds - self.num_tokens) / offered
        fast = (seconds + max(0.0, plan.seconds - seconds) / offered) / max(tokens, 1.0)
        each = silence * seconds / self.num_tokens + (1 - silence) * min(fast, seconds)
        return self._replace(seconds=seconds, num_drafted=seconds / each - 1, settled=plan.settled)


class Beside(NamedTuple):
    """What may stand beside a candidate's guesses.

    Attributes:
        mean_logit, shifts: of first guesses, as its curve was made with.
        chances: of the second guess at a place, the third and so on, where those before are wrong; empty where the
            request forbids them.
        seconds: of the target, for each.
    """

    mean_logit: float
    shifts: tuple[float, ...]
    chances: tuple[float, ...]
    seconds: float


class Comb(NamedTuple):
    """Guesses beside the first ones of a plan's drafts.

    Attributes:
        num_beside: of all candidates.
        tokens: that they are expected to earn.
        factor: by which a draft takes longer.
        beside: what may stand beside each candidate's.
    """

    num_beside: int
    tokens: float
    factor: float
    beside: list[Beside]


@dataclass(slots=True)
class Plan:
    """One source's part in steps to come.

    Attributes:
        cap: the limit on depth that was best; 0 is no draft.
        depths: of each candidate.
        rate: tokens per second that are expected, of a text alone in the steps that are left to the source.
        seconds: of such a step, as expected.
        node_seconds: of a row.
        saved_seconds: of a row that is saved by stopping early.
        step_seconds: of a draft step that is taken for one sequence more.
        shared_seconds: of a draft step, divided among the sequences that share it.
        comb: None is chains.
        settled: of a single sequence, for what comes on top of it.
    """

    cap: int
    depths: list[int]
    rate: float
    seconds: float = 0.0
    node_seconds: float = 0.0
    saved_seconds: float = 0.0
    step_seconds: float = 0.0
    shared_seconds: float = 0.0
    comb: Comb | None = None
    settled: Settled | None = None

    def prices(self, rate: float) -> Prices:
        """What a row and a draft step must earn where a second earns so many tokens."""
        return Prices(rate * self.node_seconds, rate * (self.step_seconds + self.saved_seconds))

    def gain(self, number: int, curve: Curve, rate: float) -> float:
        """Tokens that drafting for a candidate is expected to earn, its price taken off."""
        depth = self.depths[number]
        seconds = self.node_seconds * curve.rows[depth] + self.shared_seconds * sum(curve.reaches[1 : depth + 1])
        tokens = curve.tokens[depth]
        if self.comb is not None:
            tokens += self.comb.tokens / sum(depth > 0 for depth in self.depths)
        return tokens - rate * seconds
