"""The checklist from beginning to end: what is cheap and decides most comes first, and the budget is kept.

vocabulary, memory      from the files, before anything is loaded
texts, agreement        the target writes, the drafters are compared
step costs              one text at a time, then several
prediction              from both
verify cost curve       at each context
measured, lossless      the prediction put to the test
other ways              trees and block verification, predicted beside the chains that are recommended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outrider.bench.machine import free_bytes
from outrider.check import agreement, costs, judgement, measured, models, other_ways, prediction, texts as writing
from outrider.check.budget import Budget
from outrider.check.item import Item
from outrider.check.prompts import CheckPrompt
from outrider.check.stand import BLOCK, SUFFIX, TREES, Stand
from outrider.check.texts import InterruptedCheckError, Texts, Watch
from outrider.check.verdict import Evidence, Verdict, decide, next_trial
from outrider.engine.config import EngineConfig
from outrider.errors import UsageError
from outrider.predict.prediction import Forecast
from outrider.predict.trace import Trace

# Shares of the time at which steps must have been timed, without and with a trial to follow.
TIMING_SHARE = {True: 0.45, False: 0.9}
DEFAULT_CONTEXT = 512
# After this share of the time no trial of another candidate is begun.
TRIAL_SHARE = 0.95
# Of the time, in which trials must have ended where other ways are to be looked at.
LEFT_FOR_TRIALS = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPlan:
    """What to look at.

    Args:
        target: whose text it is.
        drafts: draft models; a suffix automaton is a candidate anyway.
        prompts: to continue.
        is_own: whether they are the user's.
        temperatures, concurrencies, contexts: to look at.
        memory_limit: bytes, or None.
        verify: whether to put the prediction to the test.
        includes_prompts: whether prompts and outputs may be in the result.
    """

    target: str | Path
    drafts: tuple[str | Path, ...]
    prompts: tuple[CheckPrompt, ...]
    is_own: bool
    temperatures: tuple[float, ...]
    concurrencies: tuple[int, ...]
    contexts: tuple[int, ...]
    memory_limit: int | None = None
    verify: bool = True
    includes_prompts: bool = False


@dataclass(slots=True)
class _Findings:
    texts: Texts = field(default_factory=Texts)
    curves: list[costs.Curve] = field(default_factory=list[costs.Curve])
    cost_rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    agreement_rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    predictions: list[Forecast] = field(default_factory=list[Forecast])
    traces: dict[tuple[str, float], list[Trace]] = field(default_factory=dict[tuple[str, float], list[Trace]])
    others: list[Forecast] = field(default_factory=list[Forecast])
    memory: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    trials: list[list[measured.Cell]] = field(default_factory=list[list[measured.Cell]])
    exactness: str = ""
    engine: dict[str, Any] = field(default_factory=dict[str, Any])
    is_partial: bool = False

    @property
    def cells(self) -> list[measured.Cell]:
        """Of all trials."""
        return [cell for cells in self.trials for cell in cells]


class Checklist:
    """Runs a plan.

    Args:
        plan: what to look at.
        budget: how long.
        watch: how it hears that it should end, and says where it is.
    """

    def __init__(self, plan: CheckPlan, budget: Budget, watch: Watch) -> None:
        self._plan, self._budget, self._watch = plan, budget, watch
        self._found = _Findings()
        self._static: list[Item] = []
        self._exactness_item: Item | None = None
        self._config = EngineConfig(
            max_sequences=max(writing.NUM_AT_ONCE, *plan.concurrencies), memory_limit=plan.memory_limit
        )

    def run(self) -> tuple[dict[str, Any], Verdict]:
        """Everything that was found, as JSON has it, and the verdict.

        Raises:
            UsageError: a model or a prompt cannot be used; nothing was measured.
        """
        self._look_at_files()
        free = free_bytes()
        try:
            self._measure()
        except InterruptedCheckError:
            self._found.is_partial = True
        return self._document(free)

    def _look_at_files(self) -> None:
        for draft in self._plan.drafts:
            models.refuse_unfit(self._plan.target, draft)
            self._static.append(models.vocabulary_item(self._plan.target, draft))
        for draft in self._plan.drafts or (None,):
            memory = models.memory_of(self._plan.target, [SUFFIX] if draft is None else [SUFFIX, draft], self._config)
            if memory is not None:
                name = SUFFIX if draft is None else models.name_of(draft)
                self._found.memory.append({"drafter": name, **memory})

    def _measure(self) -> None:
        """Draft model by draft model, each with an equal share of the time."""
        plan, found, budget = self._plan, self._found, self._budget
        stand: Stand | None = None
        drafts = plan.drafts or (None,)
        for number, draft in enumerate(drafts, 1):
            self._watch.look()
            self._watch.report("loading the models")
            stand = Stand.load(plan.target, draft, self._config)
            if number == 1:
                self._note_engine(stand)
                found.texts = writing.write_texts(stand.llm, plan.prompts, plan.temperatures, budget, self._watch)
            if not found.texts.known:
                return
            stand.trace(found.texts, budget, self._watch)
            self._note_agreement(stand)
            share = TIMING_SHARE[plan.verify] * (0.5 + 0.5 * number / len(drafts))
            try:
                stand.time_steps(found.texts, plan.concurrencies, budget, share, self._watch)
            finally:
                self._note_predictions(stand)
        assert stand is not None
        found.curves = costs.time_curves(stand.llm, plan.contexts, budget, self._watch)
        if plan.verify:
            stand = self._put_to_the_test(stand, budget.part(LEFT_FOR_TRIALS if plan.drafts else 1.0))
        else:
            budget.skip("anything with real drafts: --no-verify")
        self._look_at_other_ways(stand)

    def _put_to_the_test(self, stand: Stand, budget: Budget) -> Stand:
        """Measure what the verdict rests on, until what it recommends was measured, or the time is gone.

        Returns:
            the models that are loaded then.
        """
        tried: set[str] = set()
        while not budget.is_spent(TRIAL_SHARE):
            wanted = next_trial(self._evidence(), tried)
            if wanted is None:
                break
            tried.add(wanted.choice.drafter)
            stand = self._stand_with(wanted.choice.drafter, stand)
            self._try(wanted, stand, budget)
        measured.skip_unmeasured(self._found.cells, budget)
        return stand

    def _stand_with(self, drafter: str, stand: Stand) -> Stand:
        """The one that has it, which may have to be loaded again."""
        if drafter in stand.candidates:
            return stand
        names = judgement.members(drafter)
        draft = next(draft for draft in self._plan.drafts if models.name_of(draft) in names)
        return Stand.load(self._plan.target, draft, self._config)

    def _look_at_other_ways(self, stand: Stand) -> None:
        """With the draft model that is recommended, or else with the one that is loaded."""
        if stand.model is None:
            return
        found, num_sequences = self._found, min(self._plan.concurrencies)
        drafter = decide(self._evidence()).drafter
        if drafter is not None and not self._budget.is_spent():
            stand = self._stand_with(drafter, stand)
        stand.traces = found.traces
        ways = (BLOCK, TREES)
        if self._plan.memory_limit is not None:
            ways = (BLOCK,)
            self._budget.skip("trees: what their branches take is not within the memory limit that was declared")
        try:
            stand.time_other_ways(found.texts, num_sequences, self._budget, self._watch, ways)
        finally:
            found.others = stand.other_predictions(num_sequences)
        for draft in map(models.name_of, self._plan.drafts):
            if draft != stand.model:
                self._budget.skip(f"trees and block verification with {draft}: only {stand.model} was looked at")

    def _try(self, wanted: measured.Wanted, stand: Stand, budget: Budget) -> None:
        """One candidate: what is open until it is no more, what is recommended as long as it is."""
        plan, found, drafter = self._plan, self._found, wanted.choice.drafter

        def is_of_use() -> bool:
            verdict = decide(self._evidence())
            if not wanted.is_open:
                return verdict.drafter == drafter
            return any(each.conclusion == "undecided" and each.best.drafter == drafter for each in verdict.drafts)

        trial = measured.Trial(stand, wanted, found.predictions, self._watch, is_of_use)
        found.trials.append(trial.cells)
        concurrencies = plan.concurrencies[:1] if wanted.is_open else plan.concurrencies
        measured.measure(trial, found.texts, (plan.temperatures, concurrencies), budget)

    def _evidence(self) -> Evidence:
        found = self._found
        return Evidence(
            predictions=found.predictions,
            measured=measured.rows_of(found.cells, found.predictions),
            num_fit=len({text.prompt for text in found.texts.known}),
            is_own=self._plan.is_own,
            is_partial=found.is_partial,
            skipped=self._budget.skipped,
            others=other_ways.beside_chains(found.others, found.predictions),
        )

    def _note_engine(self, stand: Stand) -> None:
        self._found.engine = stand.llm.describe()
        self._found.exactness = stand.llm.target.exactness
        self._exactness_item = models.exactness_item(stand.llm.target)

    def _note_agreement(self, stand: Stand) -> None:
        known = {(row["drafter"], row["temperature"]) for row in self._found.agreement_rows}
        new = {key: traces for key, traces in stand.traces.items() if key not in known}
        self._found.agreement_rows += agreement.agreement_rows(new)
        self._found.traces |= new

    def _note_predictions(self, stand: Stand) -> None:
        known = {each.drafter for each in self._found.predictions}
        new = stand.predictions(self._plan.concurrencies)
        self._found.predictions += [each for each in new if each.drafter not in known]
        self._found.cost_rows += stand.costs(self._plan.temperatures, self._plan.concurrencies)

    def _items(self, verdict: Verdict, evidence: Evidence, free: int | None) -> list[Item]:
        found, choice, rows = self._found, verdict.choice, evidence.measured
        others = [other_ways.in_words(each) for each in other_ways.best_of(evidence.others)]
        others.append(other_ways.lacks_in_words(has_model=bool(self._plan.drafts)))
        context = min((curve.context for curve in found.curves), default=DEFAULT_CONTEXT)
        items = [*self._static]
        items += [models.memory_item(each, context, free) for each in found.memory]
        if self._exactness_item is not None:
            items.append(self._exactness_item)
        least = [row for row in found.cost_rows if row["num_sequences"] == min(self._plan.concurrencies)]
        items += [
            costs.draft_item(least),
            costs.curve_item(found.curves),
            agreement.agreement_item(found.agreement_rows, found.predictions),
            prediction.prediction_item(choice, found.predictions, others),
            judgement.drafts_item(verdict.drafts),
        ]
        if choice is not None:
            items.append(prediction.concurrency_item(verdict.load, choice.drafter))
        if self._plan.verify:
            items += [
                measured.measured_item(rows),
                measured.lossless_item(found.cells, found.exactness),
            ]
        return [*items, writing.sanity_item(found.texts, len(self._plan.prompts))]

    def _document(self, free: int | None) -> tuple[dict[str, Any], Verdict]:
        found, plan = self._found, self._plan
        evidence = self._evidence()
        verdict = decide(evidence)
        document = {
            "is_partial": found.is_partial,
            "verdict": verdict.as_dict(),
            "items": [item.as_dict() for item in self._items(verdict, evidence, free)],
            "not_measured": self._budget.skipped,
            "plan": {
                "num_prompts": len(plan.prompts),
                "is_own": plan.is_own,
                "temperatures": plan.temperatures,
                "concurrencies": plan.concurrencies,
                "contexts": plan.contexts,
                "budget_seconds": self._budget.seconds,
                "used_seconds": self._budget.used,
            },
            "engine": found.engine,
            "memory": found.memory,
            "agreement": found.agreement_rows,
            "costs": found.cost_rows,
            "verify_cost": [curve._asdict() for curve in found.curves],
            "predictions": [prediction.as_dict(each) for each in found.predictions],
            "other_ways": [each.as_dict() for each in evidence.others],
            "not_predicted": other_ways.not_predicted(has_model=bool(plan.drafts)),
            "unfit": found.texts.unfit,
            "concurrency": verdict.load,
            "concurrency_by_temperature": verdict.load_by_temperature,
            "measured": evidence.measured,
        }
        return document | ({"texts": self._texts()} if plan.includes_prompts else {}), verdict

    def _texts(self) -> list[dict[str, Any]]:
        prompts = {prompt.name: prompt for prompt in self._plan.prompts}
        return [
            {
                "prompt": prompts[text.prompt].text,
                "messages": prompts[text.prompt].messages,
                "temperature": text.params.temperature,
                "token_ids": text.token_ids,
            }
            for text in self._found.texts.known
        ]


def refuse_same_names(drafts: Sequence[str | Path]) -> None:
    """Raise UsageError for drafts that tables could not tell apart."""
    names = [SUFFIX, *map(models.name_of, drafts)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two drafts are called {twice[0]}: rename one of the folders")
