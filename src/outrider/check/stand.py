"""A target with one draft model, loaded, and its drafters one at a time; their traces and their step costs.

Candidates are the draft model, a suffix automaton, and both as a cascade. Only one engine is ever made: its drafter is
exchanged while it is idle, so that all are measured on the same cache.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from outrider.check.budget import Budget
from outrider.check.texts import InterruptedCheckError, Texts, Watch
from outrider.draft.base import Draft, Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.config import EngineConfig
from outrider.engine.llm import LLM, VERIFIERS
from outrider.model.checkpoint import resolve_checkpoint
from outrider.policy.marginal import AutoPolicy
from outrider.predict.agreement import NUM_OFFERED, Teacher, cascade_trace, model_trace, suffix_trace
from outrider.predict.calibrate import DEPTHS, InterruptedTimingError, Setting, time_round
from outrider.predict.costs import Timing
from outrider.predict.prediction import Forecast, Predictor
from outrider.predict.together import Filling
from outrider.predict.trace import CHAINS, MAX_TRACED_DEPTH, Trace, Way
from outrider.predict.walks import is_known
from outrider.recipe import Rule
from outrider.sequence import Sequence as TextSequence
from outrider.tree import DraftBudget, TokenTree
from outrider.verify.base import Verifier

SUFFIX = "suffix"
# Two rounds are the least that an interval can be made from; a few more are timed if the whole time has room for them.
LEAST_ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 2, 4, 32
# What is looked at besides chains of guesses: nodes of trees, and guesses of chains that are drawn.
TREES, BLOCK = Way(max_children=NUM_OFFERED), Way(rule="block")
OTHER_WAYS = ((4, TREES), (8, TREES), (2, BLOCK), (4, BLOCK), (8, BLOCK))
# The first of these rounds is for what is prepared only once; a setting of one takes about so many plain steps.
MAX_OTHER_ROUNDS, STEPS_OF_SETTING = 7, 25


class Rehearsal(Drafter):
    """Guesses the last token again: rows for the target that cost nothing to make, where there is no draft model."""

    name = "rehearsal"

    def propose(self, sequences: Sequence[TextSequence], budgets: Sequence[DraftBudget]) -> Draft:
        trees = [
            TokenTree.chain((sequence.root_token,) * budget.limit)
            for sequence, budget in zip(sequences, budgets, strict=True)
        ]
        return Draft(trees, num_steps=0)


class Prepared(NamedTuple):
    """What an engine is given to draft with some drafters and to verify by a rule."""

    drafter: Drafter
    policy: AutoPolicy
    verifier: Verifier


Key = tuple[tuple[Drafter, ...], Rule]


@dataclass(slots=True)
class Stand:
    """Models that are loaded, and what is known of them.

    Attributes:
        llm: with all drafters.
        candidates: members of the cascade that each is, by name.
        model: the draft model's name, if there is one.
        traces: by candidate and temperature.
        timings: step costs.
        other_timings: of each of the `OTHER_WAYS`, and of plain steps beside it.
    """

    llm: LLM
    candidates: dict[str, tuple[Drafter, ...]]
    model: str | None
    traces: dict[tuple[str, float], list[Trace]] = field(default_factory=dict[tuple[str, float], list[Trace]])
    timings: list[Timing] = field(default_factory=list[Timing])
    other_timings: dict[Way, list[Timing]] = field(default_factory=dict[Way, list[Timing]])
    _prepared: dict[Key, Prepared] = field(default_factory=dict[Key, Prepared])

    @classmethod
    def load(cls, target: str | Path, draft: str | Path | None, config: EngineConfig) -> Stand:
        """A target with a suffix automaton, and perhaps a draft model.

        Nothing is compiled while it is measured: what steps take would change between timing them and the trial.
        """
        config = replace(config, options=replace(config.options, num_forms=0))
        drafts: list[str | Path] = [SUFFIX] if draft is None else [SUFFIX, draft]
        llm = LLM(target, draft=drafts, config=config)
        assert isinstance(llm.drafter, Cascade)
        suffix, model = (
            next((member for member in llm.drafter.members if isinstance(member, kind)), None)
            for kind in (SuffixDrafter, ModelDrafter)
        )
        assert suffix is not None
        candidates: dict[str, tuple[Drafter, ...]] = {SUFFIX: (suffix,)}
        if draft is None or model is None:
            return cls(llm, candidates, None)
        name = resolve_checkpoint(draft).name
        return cls(llm, candidates | {name: (model,), f"{SUFFIX} + {name}": (suffix, model)}, name)

    def use(self, members: Sequence[Drafter] | None = None, rule: Rule = "coupled") -> None:
        """Draft with these from now on, and verify by this rule; None: with all that were loaded.

        Each set of drafters and rule has a policy of its own, which goes on learning when they are used again.
        """
        if members is None:
            self.llm.engine.exchange(self.llm.drafter, self.llm.policy, VERIFIERS[rule])
            return
        key = (*members,), rule
        if key not in self._prepared:
            own = [each.drawing() if rule == "block" and isinstance(each, ModelDrafter) else each for each in members]
            drafter = Cascade(own)
            self._prepared[key] = Prepared(drafter, self.llm.new_policy(drafter), VERIFIERS[rule])
        self.llm.engine.exchange(*self._prepared[key])

    def trace(self, texts: Texts, budget: Budget, watch: Watch) -> None:
        """What every candidate would have guessed of these texts.

        Where nothing is drawn, the overlap is the agreement; elsewhere it takes the target's time, too.
        """
        for number, text in enumerate(texts.known):
            watch.look()
            watch.report(f"comparing guesses with the target's texts: {number} of {len(texts.known)}")
            looked_up, is_sure = suffix_trace(text)
            self._add(SUFFIX, looked_up)
            if self.model is None:
                continue
            if is_late := budget.is_spent(0.35):
                budget.skip("overlap of some texts: no time")
            (draft,) = (each for each in self.candidates[self.model] if isinstance(each, ModelDrafter))
            modelled = model_trace(
                Teacher(draft.runtime, draft.pool),
                None if text.params.temperature == 0 or is_late else Teacher(self.llm.target, self.llm.engine.pool),
                text,
                min(draft.vocab_size, draft.runtime.config.vocab_size),
                draft.runtime.config.max_context,
            )
            self._add(self.model, modelled)
            self._add(f"{SUFFIX} + {self.model}", cascade_trace(looked_up, is_sure, modelled, text))

    def _add(self, candidate: str, trace: Trace) -> None:
        self.traces.setdefault((candidate, trace.temperature), []).append(trace)

    def time_steps(
        self, texts: Texts, concurrencies: Sequence[int], budget: Budget, share: float, watch: Watch
    ) -> None:
        """Time steps with one sequence first, then with more, until this share of the whole time is gone.

        All numbers of sequences have an equal part of what is left when their turn comes.
        """
        by_kind = _temperatures_by_kind(texts)
        self.use(self.candidates[self.model] if self.model else (Rehearsal(),))
        seconds = 0.0  # of the last round; the first one of more texts at once takes no less
        try:
            for place, num_sequences in enumerate(concurrencies):
                settings = [
                    Setting(temperature, num_sequences, depth) for temperature in by_kind.values() for depth in DEPTHS
                ]
                part = max(share * budget.seconds - budget.used, 0.0) / (len(concurrencies) - place)
                end = budget.used + part
                for number in range(MAX_ROUNDS):
                    if place == 0 and number < MIN_ROUNDS:
                        has_room = number < LEAST_ROUNDS or budget.has_room(seconds)
                    else:
                        has_room = budget.used + seconds <= end
                    if not has_room:
                        break
                    watch.report(f"timing steps, {num_sequences} at once: round {number + 1}")
                    began = time.monotonic()
                    self.timings += time_round(self.llm, texts.known, settings, number, watch.is_wanted)
                    seconds = time.monotonic() - began
                if not any(timing.num_sequences == num_sequences for timing in self.timings):
                    budget.skip(f"step costs of {num_sequences} at once: no time")
        except InterruptedTimingError as error:
            raise InterruptedCheckError from error
        finally:
            self.use()

    def time_other_ways(
        self, texts: Texts, num_sequences: int, budget: Budget, watch: Watch, ways: Sequence[Way] = (BLOCK, TREES)
    ) -> None:
        """Time steps of `OTHER_WAYS`, each beside plain ones in rounds of its own, as long as there is time.

        At temperature 0 both rules keep the same. Trees come last: what runs after them may be slower for that.
        """
        try:
            for place, way in enumerate(ways):
                settings = _settings_of(way, texts, num_sequences)
                end = budget.used + max(budget.seconds - budget.used, 0.0) / (len(ways) - place)
                seconds = self._expected(settings)
                for number in range(MAX_OTHER_ROUNDS if settings else 0):
                    if budget.used + seconds > end:
                        break
                    watch.report(f"timing {_name_of(way)}: round {number + 1}")
                    began = time.monotonic()
                    timings = time_round(self.llm, texts.known, settings, number, watch.is_wanted, self._go_over_to)
                    seconds = time.monotonic() - began
                    self.other_timings[way] = [*self.other_timings.get(way, ()), *(timings if number else ())]
                if settings and not self.other_timings.get(way):
                    budget.skip(f"{_name_of(way)}: no time")
        except InterruptedTimingError as error:
            raise InterruptedCheckError from error
        finally:
            self.use()

    def _expected(self, settings: Sequence[Setting]) -> float:
        """Seconds of a round, before there was one."""
        plain = max((timing.total for timing in self.timings if not timing.depth), default=0.0)
        return (len(settings) + 2) * STEPS_OF_SETTING * plain  # the one of fewest rows comes three times

    def _go_over_to(self, setting: Setting) -> None:
        self.use(self.candidates[self.model or SUFFIX], setting.way.rule)

    @property
    def predictor(self) -> Predictor:
        return Predictor(self.timings, self.filling, name=self.model or SUFFIX)

    @property
    def filling(self) -> Filling:
        """What the target makes of rows. A change takes as much longer now as plain steps do; none is prepared for."""
        costs = self.llm.policy.costs
        plain = [timing.target for timing in self.timings if timing.num_rows == 1]
        speed = median(plain) / costs.target(self._computed_rows(1)) if plain and costs.is_known else 1.0
        return Filling(self._computed_rows, self.llm.target.rows_in_turn, costs.change_seconds * speed)

    def _computed_rows(self, num_rows: int) -> int:
        return self.llm.target.computed_rows([num_rows])

    def predictions(self, concurrencies: Sequence[int]) -> list[Forecast]:
        """Of every candidate, temperature, number of sequences and depth that was timed."""
        predictor = self.predictor
        found = [
            predictor.predict(candidate, traces, depth, num_sequences)
            for (candidate, _), traces in self.traces.items()
            for num_sequences in concurrencies
            for depth in range(1, MAX_TRACED_DEPTH + 1)
        ]
        return [each for each in found if each is not None]

    def other_predictions(self, num_sequences: int) -> list[Forecast]:
        """Of every candidate with the draft model in `OTHER_WAYS`, as far as they were timed and the traces tell."""
        found: list[Forecast | None] = []
        for depth, way in OTHER_WAYS:
            timings = self.other_timings.get(way, [])
            is_greedy = {timing.is_greedy for timing in timings if timing.depth == depth}
            predictor = Predictor(timings, self.filling, name=f"{self.model}, {way}", way=way)
            for (candidate, temperature), traces in self.traces.items():
                known = [trace for trace in traces if is_known(trace, way)]
                is_own = candidate in self.candidates and candidate != SUFFIX
                if is_own and known and (temperature == 0) in is_greedy:
                    found.append(predictor.predict(candidate, known, depth, num_sequences))
        return [each for each in found if each is not None]

    def costs(self, temperatures: Sequence[float], concurrencies: Sequence[int]) -> list[dict[str, object]]:
        """Seconds by setting, for the report."""
        found: list[dict[str, object]] = []
        for is_greedy in {temperature == 0 for temperature in temperatures}:
            for num_sequences in concurrencies:
                costs = self.predictor.costs(0.0 if is_greedy else 1.0, num_sequences)
                if not costs.is_known:
                    continue
                step = costs.draft_step if self.model else None
                found.append(
                    {
                        "drafter": self.model or SUFFIX,
                        "is_greedy": is_greedy,
                        "num_sequences": num_sequences,
                        "plain_seconds": costs.plain.total,
                        "overhead_seconds": costs.plain.other,
                        "draft_step_seconds": step,
                        "cost_ratio": None if step is None else step / costs.plain.total,
                        **costs.describe(),
                    }
                )
        return found


def _name_of(way: Way) -> str:
    return "trees" if way == TREES else "block verification"


def _settings_of(way: Way, texts: Texts, num_sequences: int) -> list[Setting]:
    """Plain steps and those of one of the `OTHER_WAYS`, at the temperatures where it differs from chains of guesses."""
    depths = [depth for depth, other in OTHER_WAYS if other == way]
    return [
        Setting(temperature, num_sequences, depth, way if depth else CHAINS)
        for temperature in _temperatures_by_kind(texts).values()
        for depth in (0, *depths)
        if temperature or way.rule == "coupled"
    ]


def _temperatures_by_kind(texts: Texts) -> dict[bool, float]:
    """One temperature at which nothing is drawn, and one at which tokens are; all of them cost the same."""
    return {text.params.temperature == 0: text.params.temperature for text in texts.known}
