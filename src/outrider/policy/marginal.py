"""Drafts as long as it pays: the depths that make the whole batch fastest, at costs and survivals learned meanwhile.

A guess is worth its row, and a draft step its time, if the tokens that they are expected to add are at least what the
time would earn otherwise: that rate is the price of everything (Dinkelbach's rule for the best ratio of tokens to
seconds), of a text alone the rate of the steps that a source drafts in. A source that does not pay is asked again now
and then, for a bounded share of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence as Sequences
from typing import Any

from outrider.policy.account import Account
from outrider.policy.base import Policy
from outrider.policy.branching import Branching, as_comb, worth_of
from outrider.policy.cost import StepCosts
from outrider.policy.curve import logit
from outrider.policy.entry import LITTLE, Chunks, Entry
from outrider.policy.fixed import fixed_budget
from outrider.policy.learning import CostLearner
from outrider.policy.losses import Losses
from outrider.policy.luck import Luck, expected_of
from outrider.policy.plan import Base, Candidate, Plan
from outrider.policy.planner import Planner
from outrider.policy.probe import FIRST_LOOK_TOKENS, Prober, Round
from outrider.policy.selection import Climber, stairs_of
from outrider.policy.track import NEWS, Source, Text, Track, within
from outrider.policy.trust import Trust
from outrider.request import Request
from outrider.sequence import Decision, DecodeStep, ScheduledBatch, Sequence
from outrider.tree import NO_DRAFT, DraftBudget, TokenTree

# Steps until all is thought through again; of many texts, some one needs it sooner.
REPLAN_STEPS, REPLAN_STEPS_YOUNG = 10, 3
# Of several texts a plan takes longer to make, and one text's news changes less: steps for each of them.
REPLAN_STEPS_EACH, MAX_REPLAN_STEPS = 2, 30
# Steps that a plan holds whatever is new: as many as there are texts, or, where steps are short, one for each so large
# a share of a plain step that thinking takes; up to these. Planning takes time too.
MAX_LEAST_AGE, MAX_LEAST_AGE_ALONE, DEAR_THINKING = 3, 6, 0.03
# Share of the texts, down to which a plan to draft nothing holds where some of them end.
LEAST_ALIKE = 0.7
MAX_IDLE = 8  # times as many steps, where plan after plan was to draft nothing
# Steps over the number of texts, by which all is thought through sooner where a text's guesses are news.
NEWS_STEPS = 20
YOUNG = 24  # guesses verified, up to which a source of several texts is thought about more often
# Share of what drafting gains that plain steps may cost, which are made to compare with.
REFERENCE_SHARE = 0.003
MIN_REFERENCE_STEPS, MAX_REFERENCE_STEPS = 12, 1000
# Share of a plain step, up to which a draft is as good as free.
FREE = 0.02
NOBODY = Round([], [], Base([], 0.0, 0, {}), [], {})
# Plans after which what the target takes is looked up anew.
NUM_KNOWN_PLANS = 12


class AutoPolicy(Policy):
    """The marginal-value rule over the batch.

    Args:
        costs: of steps, as far as known; learned on.
        sources: names of those that draft, in the order of a cascade's members.
        serves: whether a source may ever have a guess for a request.
        branching: names of sources that can make trees, for requests that allow them.
        looking_back: names of those that can tell what they would have guessed.

    Attributes:
        account: what drafting may still lose.
    """

    name = "auto"

    def __init__(
        self,
        costs: StepCosts,
        sources: tuple[str, ...],
        serves: Callable[[str, Request], bool] | None = None,
        branching: Collection[str] = (),
        looking_back: Collection[str] = (),
    ) -> None:
        self.costs = costs
        self._branching = Branching(costs, branching)
        self._serves = serves or _serves_all
        self.account = Account()
        self._trust = Trust()
        self._luck = Luck()
        self._climber = Climber()
        self._sources = [Source(name, looks_back=name in looking_back) for name in sources]
        self._index = {name: index for index, name in enumerate(sources)}
        self._entry = Entry(costs, self.account)
        self._planner = Planner(costs, self.account, self._entry, self._branching, self._trust)
        self._losses = Losses(costs, self._entry, self._sources)
        self._learner = CostLearner(costs, self._branching, self._losses, self._index)
        self._prober = Prober(costs, self.account, self._entry, self._branching, self._losses.looks)
        self._texts: dict[int, Text] = {}
        self._planned: list[int] = []
        self._num_planned = 0  # texts that all was thought through for
        self._round = NOBODY
        self._countdown = 0.0
        self._age = 0  # of the plan, in steps
        self._idle = 1
        self._num_known_plans = 0
        self._rate = 0.0
        self._is_filled = False  # the last step computed more rows than plain decoding
        self._reference_steps: float = MAX_REFERENCE_STEPS

    def plan(self, sequences: Sequences[Sequence]) -> list[DraftBudget]:
        planned = [sequence.request.request_id for sequence in sequences]
        self._countdown -= 1
        self._age += 1
        is_due = self._countdown <= 0 and self._age >= self._least_age(len(sequences))
        if is_due or (planned != self._planned and not self._goes_on(sequences)):
            self._age, self._num_planned = 0, len(sequences)
            self._replan(sequences)
        elif planned != self._planned:
            step = self._round = self._round_of(sequences)
            self._settle_all(step, [(Plan(0, [], step.base.rate), [])] * len(self._sources))
        self._planned = planned
        step = self._round
        budgets = [
            NO_DRAFT if sequence.request.depth == "auto" else fixed_budget(sequence, 0) for sequence in sequences
        ]
        if step.places and self._learner.num_since_plain < self._reference_steps:
            self._prober.start(self._sources, step)
            for place in step.places:
                budgets[place] = within(step.texts[place].budget, sequences[place].num_tokens_left - 1)
        return budgets

    def select(
        self,
        batch: ScheduledBatch,
        trees: Sequences[TokenTree],
        scores: Sequences[tuple[float, ...] | None],
        sources: Sequences[str],
    ) -> list[int]:
        """What is kept is what fills the best stair; of a draft that cost time, one node at least, to learn from."""
        counts = [len(tree) for tree in trees]
        num_least = counts.copy()
        drafts: dict[int, list[float]] = {}
        rate = self._rate
        for place, (item, tree) in enumerate(zip(batch.items, trees, strict=True)):
            text = self._texts.get(item.sequence.request.request_id)
            source = self._index.get(sources[place])
            if text is None or item.sequence.request.depth != "auto" or not len(tree) or source is None:
                continue
            track = text.tracks[source]
            if not track.is_probing:
                num_least[place] = int(self._is_dear(sources[place]))
                drafts[place] = track.budget.worth.survivals(tree, scores[place])[num_least[place] :]
                rate = self._sources[source].rate
        if drafts:
            num_rows = sum(num_least) + sum(item.num_tokens for item in batch.items)
            stairs = stairs_of(self.costs, self._round.base.num_sequences, rate)
            kept = self._climber.choose([*drafts.values()], num_rows, stairs)
            for place, num_kept in zip(drafts, kept, strict=True):
                counts[place] = num_least[place] + num_kept
        return counts

    def _is_dear(self, source: str) -> bool:
        return sum(self.costs.draft(source, 1)) > FREE * self._round.base.seconds

    def observe(self, step: DecodeStep) -> None:
        if not step.sequences:
            return
        if len(step.num_rows) == len(step.sequences):  # else some only computed again what they had lost
            step = self._losses.charged(step, self._round.base.computed)
            was_overdrawn = self.account.is_overdrawn
            self._book(step)
            if was_overdrawn and not self.account.is_overdrawn:
                self._countdown = 0
            self._learner.observe(step)
        if any(verdict.num_accepted for verdict in step.verdicts):
            self._prober.wake()
        chunks = Chunks(step)
        for place, sequence in enumerate(step.sequences):
            if step.budgets[place].max_depth > 0:
                text = self._texts.get(sequence.request.request_id)
                if text is not None:
                    self._learn_survival(step, place, text, chunks)
        if self._prober.look_over(step, self._sources, self._texts, chunks, self._round):
            self._countdown = 0
        for source in self._sources:
            source.survival.update()

    def release(self, sequence: Sequence) -> None:
        text = self._texts.pop(sequence.request.request_id, None)
        for track in text.tracks if text else ():
            track.record(sequence)

    def describe(self) -> dict[str, Any]:
        """What was learned, for a result's provenance."""
        return {
            "name": self.name,
            "costs": self.costs.describe(),
            "sources": {source.name: source.survival.describe() for source in self._sources},
        }

    def _goes_on(self, sequences: Sequences[Sequence]) -> bool:
        """Whether the plan to draft nothing holds for these texts: about as many, new ones can be looked at soon."""
        is_auto = all(each.request.depth == "auto" for each in sequences)
        is_alike = len(sequences) > 1 and LEAST_ALIKE * self._num_planned < len(sequences) <= self._num_planned
        if self._idle == 1 or not is_alike or not is_auto:
            return False
        left = max(self.account.probe_balance, LITTLE) * self._round.base.seconds
        return all(
            source.looks_back and self.costs.catch_up(source.name, sequence.num_prompt_tokens) <= left
            for sequence in sequences
            if sequence.request.request_id not in self._planned
            for source in self._sources
            if self._serves(source.name, sequence.request)
        )

    def _least_age(self, num_sequences: int) -> float:
        thinking, plain = self.costs.thinking.beyond_idle(num_sequences), self._round.base.seconds
        most = MAX_LEAST_AGE if num_sequences > 1 else MAX_LEAST_AGE_ALONE
        return min(max(num_sequences, thinking / (DEAR_THINKING * plain) if plain else 0.0), most)

    def _replan(self, sequences: Sequences[Sequence]) -> None:
        self._countdown = 1
        if not self.costs.is_known:  # the first step shows what plain decoding costs
            self._round = NOBODY
            return
        step = self._round = self._round_of(sequences)
        found = self._planner.plan(self._sources, step)
        # A text alone is seldom helped by thinking in every step; among several, each step of a source that was seldom
        # seen shows much that is new. One that nobody asks shows nothing.
        is_young = len(sequences) > 1 and any(
            plan.cap and source.survival.num_verified < YOUNG and source.num_asked < 3 * YOUNG
            for source, (plan, _) in zip(self._sources, found, strict=True)
        )
        num_steps = min(max(REPLAN_STEPS, REPLAN_STEPS_EACH * len(sequences)), MAX_REPLAN_STEPS)
        self._countdown = num_steps * REPLAN_STEPS_YOUNG // REPLAN_STEPS if is_young else num_steps
        is_idle = not any(plan.cap for plan, _ in found)
        self._idle = min(2 * self._idle, MAX_IDLE) if is_idle else 1
        self._countdown *= self._idle
        self._settle_all(step, found)
        price = 1 - step.base.rate / self._rate + 2 * self.costs.change_seconds / step.base.seconds
        self._reference_steps = min(max(price / REFERENCE_SHARE, MIN_REFERENCE_STEPS), MAX_REFERENCE_STEPS)

    def _settle_all(self, step: Round, found: list[tuple[Plan, list[Candidate]]]) -> None:
        rate = self._rate = max((plan.rate for plan, _ in found), default=step.base.rate)
        for index, (plan, candidates) in enumerate(found):
            self._settle(index, plan, candidates, rate)
        for place in step.places:
            step.texts[place].compose()

    def _round_of(self, sequences: Sequences[Sequence]) -> Round:
        is_single = len(self._sources) == 1  # of several, others go on where one has failed
        places = [
            place
            for place, sequence in enumerate(sequences)
            if sequence.request.depth == "auto"
            and sequence.num_tokens_left > 1
            and not (is_single and sequence.draft_fault is not None)
        ]
        depths = [0 if sequence.request.depth == "auto" else fixed_budget(sequence, 0).limit for sequence in sequences]
        num_rows = [1 + depth for depth in depths]
        computed = self.costs.computed_rows(num_rows)
        seconds = self.costs.target(computed, len(sequences))
        if self._sources and any(depths):
            fixed, step = self.costs.draft(self._sources[-1].name, sum(depth > 0 for depth in depths))
            seconds += fixed + step * max(depths)
        known, least = self._round.base.known, self._round.least
        self._num_known_plans -= 1
        if num_rows != self._round.base.num_rows or places != self._round.places or self._num_known_plans < 0:
            self._num_known_plans, known, least = NUM_KNOWN_PLANS, {}, {}
        self._prober.wake()
        texts = [self._text(sequence) for sequence in sequences]
        return Round(sequences, texts, Base(num_rows, seconds, computed, known), places, least)

    def _text(self, sequence: Sequence) -> Text:
        text = self._texts.get(sequence.request.request_id)
        if text is None:
            at_token = len(sequence.token_ids)
            tracks = [
                Track(
                    at_token,
                    max(
                        min(FIRST_LOOK_TOKENS, sequence.num_tokens_left // 3) if source.looks_back else 0,
                        source.probe_tokens if source.survival.num_verified >= YOUNG else 0,
                    ),
                    is_served=self._serves(source.name, sequence.request),
                )
                for source in self._sources
            ]
            text = self._texts[sequence.request.request_id] = Text(tracks)
        return text

    def _settle(self, index: int, plan: Plan, candidates: list[Candidate], rate: float) -> None:
        """Give each text its budget for this source, and note what changed.

        A text alone is drafted for by one source in some steps and by another in others: what time earns in a source's
        own steps says how deep it goes, and the most that it earns in any, who is asked beside whom.
        """
        step, source = self._round, self._sources[index]
        own = source.rate = plan.rate if len(step.sequences) == 1 else rate
        prices = plan.prices(own)
        numbers = {candidate.place: number for number, candidate in enumerate(candidates)} if plan.cap else {}
        max_catch_up = self._entry.limit(source, step.base.seconds)
        for place in step.served(index):
            sequence, track = step.sequences[place], step.texts[place].tracks[index]
            number = numbers.get(place)
            depth = 0 if number is None else plan.depths[number]
            if track.depth and not depth:
                self._prober.stop(source, track, len(sequence.token_ids))
            track.depth, track.budget, track.is_probing = depth, NO_DRAFT, False
            if number is not None and depth:
                curve = candidates[number].curve
                mean = source.survival.mean(track.evidence, len(sequence.token_ids))
                worth = worth_of(source, mean, prices, curve, depth)
                gain = plan.gain(number, curve, rate)
                budget = DraftBudget(depth, depth, worth, gain, max_catch_up=max_catch_up)
                track.budget = as_comb(budget, plan, number, own)
            if track.is_news():
                mean = source.survival.mean(track.evidence, len(sequence.token_ids))
                least = step.break_even(self.costs, source.name)
                num_beside = track.budget.max_nodes - depth
                track.consider(Decision(sequence.num_output_tokens, depth, source.name, mean, least, num_beside))
            track.record(sequence)

    def _book(self, step: DecodeStep) -> None:
        """Enter what drafting gained or lost, where this policy decided.

        By what steps are known to take: what a single one took is mostly the machine's doing.
        """
        base, rows = self._round.base, step.num_computed_rows
        decided = [
            verdict.num_accepted
            for sequence, budget, verdict in zip(step.sequences, step.budgets, step.verdicts, strict=True)
            if budget.max_depth > 0 and sequence.request.depth == "auto"
        ]
        was_filled, self._is_filled = self._is_filled, bool(self._round.places) and rows > base.computed
        is_look = not decided and any(budget.looks_back for budget in step.budgets)
        if not base.seconds or not (decided or is_look or self._is_filled or was_filled):
            self.account.enter(0.0)
            self._trust.idle(len(step.sequences))
            return
        is_probe = self._prober.is_probing
        lost, looking = 0.0, 0.0
        if decided or is_look:
            is_decided = bool(decided)
            lost, looking = self._losses.of_step(step, base.seconds, is_decided=is_decided, is_probe=is_probe)
        if decided and not is_probe:
            seconds = step.seconds / self.costs.speed + lost
            num_tokens = 1 + sum(decided) / len(step.sequences)
            gain = self._rate / base.rate - 1
            self._trust.enter(len(step.sequences), num_tokens, gain, seconds / base.seconds)
        owed = self._entry.owed(self._sources, step.work, base.seconds)
        invested = self._entry.invest(self._sources, step.work, base.seconds)
        lost += self.costs.target(rows, base.num_sequences) - self.costs.target(base.computed, base.num_sequences)
        lost += self.costs.change(rows) + self._branching.costs.of_step(step)
        lost /= base.seconds
        net = sum(decided) / len(step.sequences) - lost
        if decided and not is_probe:
            net += self._relief(step, sum(decided))
        looking /= base.seconds
        self.account.enter(net, lost, is_probe=is_probe, looked=looking, invested=invested, owed=owed)

    def _relief(self, step: DecodeStep, num_accepted: int) -> float:
        """Of a loss, what is chance: where as much was accepted as was to be expected in the long run, none."""
        mean = variance = 0.0
        for sequence, tree, scores, source in zip(step.sequences, step.trees, step.scores, step.sources, strict=True):
            text = self._texts.get(sequence.request.request_id)
            if text is not None and len(tree) and source in self._index:
                worth = text.tracks[self._index[source]].budget.worth
                found = expected_of(tree, worth.survivals(tree, scores))
                mean, variance = mean + found[0], variance + found[1]
        num = len(step.sequences)
        return self._luck.relief(num_accepted / num, mean / num, variance / num**2)

    def _learn_survival(self, step: DecodeStep, place: int, text: Text, chunks: Chunks) -> None:
        sequence, tree, verdict = step.sequences[place], step.trees[place], step.verdicts[place]
        at_token = len(sequence.token_ids)
        drafted = self._index.get(step.sources[place], -1) if len(tree) else -1
        if drafted >= 0:
            source, track = self._sources[drafted], text.tracks[drafted]
            track.num_seen, track.has_offered = at_token, True
            source.learn(track.evidence, at_token, tree, step.scores[place], verdict.path)
            if abs(logit(source.survival.mean(track.evidence, at_token)) - track.planned_logit) > NEWS:
                self._countdown -= NEWS_STEPS / len(step.sequences)
        for index, track in enumerate(text.tracks):
            if track.budget.max_depth > 0:
                source = self._sources[index]
                if index != drafted and chunks.take(source, track, at_token, track.budget.max_catch_up):
                    self._countdown = 0
                elif not 0 <= drafted < index:  # a cheaper source's draft does not tell what this one would have made
                    source.note_offer(track.evidence, index == drafted)
                if track.is_probing:
                    self._prober.end(
                        source, track, at_token, verdict.num_accepted if index == drafted else None, self._round
                    )
                    self._countdown = 0 if verdict.num_accepted else self._countdown
                    text.compose()


def _serves_all(*_: str | Request) -> bool:
    return True
