"""Plans each source's part in steps to come, beside those that are cheaper. Knows costs and texts; no drafters."""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from outrider.policy.account import Account
from outrider.policy.branching import LEAST_RESOLUTION, Branching
from outrider.policy.cost import StepCosts
from outrider.policy.curve import Prices, curve_of, logit
from outrider.policy.entry import Entry, Reader, is_proven
from outrider.policy.plan import Base, Candidate, Plan
from outrider.policy.probe import Round
from outrider.policy.search import Search
from outrider.policy.track import Source, Track
from outrider.policy.trust import Trust
from outrider.request import MAX_DEPTH

SPARE = 0.5  # plain steps by which one draft may overdraw the account
RAMP = 4  # a new source may go so much deeper for each guess accepted
DOUBT = 10  # times as slow as thought, which a source's first draft allows for
# However often a cheaper source drafts, a dearer one is taken to be left so much.
MAX_OFFERED = 0.95
# Guesses, up to which a source that can look back on a text does that first.
NUM_KNOWN = 6


class Planner:
    """Finds the plans whose steps are expected to be fastest.

    Args:
        trust: in plans for several texts.
    """

    def __init__(self, costs: StepCosts, account: Account, entry: Entry, branching: Branching, trust: Trust) -> None:
        self.costs = costs
        self.account = account
        self._entry = entry
        self._branching = branching
        self._trust = trust

    def plan(self, sources: Sequences[Source], step: Round) -> list[tuple[Plan, list[Candidate]]]:
        """The best plan of each source, the cheapest first: a dearer one drafts where these leave it to.

        Of several texts that is on top of what these are expected to add to the step. A text alone has steps with a
        cheaper source's guesses and steps without, and where it had none it seldom has one for the next tokens: so the
        dearer source has to be better there, and not better than the mean of all steps.
        """
        found: list[tuple[Plan, list[Candidate]]] = []
        base = step.base
        left = [1.0] * len(step.sequences)  # of each text's steps, the share that no cheaper source drafts for
        for index, source in enumerate(sources):
            plan, candidates = self._search(index, source, step, base, left)
            found.append((plan, candidates))
            if plan.cap:
                if len(step.sequences) == 1:
                    seconds = step.base.seconds + self.costs.thinking.beyond_idle(1)
                    base = base.where_silent(plan, seconds, source.offered, source.silence)
                else:
                    base = base.after(plan)
                for candidate, depth in zip(candidates, plan.depths, strict=True):
                    left[candidate.place] *= 1 - (depth > 0) * min(source.offered, MAX_OFFERED)
        return found

    def _search(
        self, index: int, source: Source, step: Round, base: Base, left: list[float]
    ) -> tuple[Plan, list[Candidate]]:
        """The best plan of one source, those of cheaper ones being settled in `base`."""
        plan = Plan(0, [], base.rate)
        candidates: list[Candidate] = []
        is_unknown = source.looks_back and source.survival.num_verified < NUM_KNOWN
        places = [] if self.account.is_overdrawn or is_unknown else self._affordable(index, source, step)
        max_cap = self._first_cap(source, step)
        if self.costs.num_drafts(source.name):  # looking back tells of guesses, but not what they take
            max_cap += RAMP * source.survival.num_accepted
        max_loss = (self.account.balance + SPARE) * step.base.seconds
        if places:
            candidates = [
                self._candidate(source, place, step.texts[place].tracks[index], step, left[place]) for place in places
            ]
            trust = self._trust.of(len(step.sequences))
            offered = source.offered
            if len(step.sequences) > 1:
                offered *= sum(left[place] for place in places) / len(places)
            search = Search(self.costs, source.name, base, candidates, offered, trust)
            plan = search.best(source.cap, max_cap, max_loss)
            plan = self._branching.improve(plan, source, search, step.sequences, (max_cap, max_loss))
            if plan.cap:  # the next plan is made with these prices
                source.prices = plan.prices(plan.rate)
        source.cap, source.is_comb = plan.cap, plan.comb is not None
        return plan, candidates

    def _first_cap(self, source: Source, step: Round) -> int:
        """Of a source's first drafts: even one that is far slower than thought takes about a step then."""
        _, seconds = self.costs.draft(source.name, len(step.places))
        if not self.costs.num_drafts(source.name):
            seconds *= DOUBT
        return max(1, int(step.base.seconds / max(seconds, 1e-12)))

    def _affordable(self, index: int, source: Source, step: Round) -> list[int]:
        """Who may be drafted for: not all whose text an unproven source would have to read."""
        served = step.served(index)
        if is_proven(source):
            return served
        seconds = [self._entry.seconds(source, step.sequences[at], step.texts[at].tracks[index]) for at in served]
        num_left = [step.sequences[place].num_tokens_left for place in served]
        texts = [Reader(*each) for each in zip(served, seconds, num_left, strict=True)]
        return self._entry.affordable(source, texts, step.base.seconds)

    def _candidate(self, source: Source, place: int, track: Track, step: Round, left: float) -> Candidate:
        """A text that the source may draft for in such a share of its steps."""
        sequence, resolution = step.sequences[place], source.survival.fit.resolution
        num_left = sequence.num_tokens_left
        mean_logit = round(5 * logit(source.survival.mean(track.evidence, len(sequence.token_ids)))) / 5
        track.planned_logit = mean_logit
        if resolution < LEAST_RESOLUTION:
            curve = curve_of(mean_logit, source.survival.shifts, 0.0, Prices(0.0, 0.0), MAX_DEPTH)
        else:
            resolution = max(round(resolution, 1), LEAST_RESOLUTION)
            curve = curve_of(mean_logit, source.survival.shifts, resolution, source.prices.rounded(), MAX_DEPTH)
        entry = self._entry.seconds(source, sequence, track) / max(4.0, 0.5 * num_left * left)
        return Candidate(place, curve, min(MAX_DEPTH, num_left - 1), track.depth > 0, entry, mean_logit)
