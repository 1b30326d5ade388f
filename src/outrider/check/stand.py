"""A target with one draft model, loaded, and its drafters one at a time; their traces and their step costs.

Candidates are the draft model, a suffix automaton, and both as a cascade. Only one engine is ever made: its drafter is
exchanged while it is idle, so that all are measured on the same cache and the same policy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outrider.check.budget import Budget
from outrider.check.texts import InterruptedCheckError, Texts, Watch
from outrider.draft.base import Draft, Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.config import EngineConfig
from outrider.engine.llm import LLM
from outrider.model.checkpoint import resolve_checkpoint
from outrider.predict.agreement import Teacher, cascade_trace, model_trace, suffix_trace
from outrider.predict.calibrate import DEPTHS, InterruptedTimingError, Setting, time_round
from outrider.predict.costs import Timing
from outrider.predict.prediction import Forecast, Predictor
from outrider.predict.trace import MAX_TRACED_DEPTH, Trace
from outrider.sequence import Sequence as TextSequence
from outrider.tree import DraftBudget, TokenTree

SUFFIX = "suffix"
# Two rounds are the least that an interval can be made from; a few more are timed if the whole time has room for them.
LEAST_ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 2, 4, 32


class Rehearsal(Drafter):
    """Guesses the last token again: rows for the target that cost nothing to make, where there is no draft model."""

    name = "rehearsal"

    def propose(self, sequences: Sequence[TextSequence], budgets: Sequence[DraftBudget]) -> Draft:
        trees = [
            TokenTree.chain((sequence.root_token,) * budget.limit)
            for sequence, budget in zip(sequences, budgets, strict=True)
        ]
        return Draft(trees, num_steps=0)


@dataclass(slots=True)
class Stand:
    """Models that are loaded, and what is known of them.

    Attributes:
        llm: with all drafters.
        candidates: members of the cascade that each is, by name.
        model: the draft model's name, if there is one.
        traces: by candidate and temperature.
        timings: step costs.
    """

    llm: LLM
    candidates: dict[str, tuple[Drafter, ...]]
    model: str | None
    traces: dict[tuple[str, float], list[Trace]] = field(default_factory=dict[tuple[str, float], list[Trace]])
    timings: list[Timing] = field(default_factory=list[Timing])

    @classmethod
    def load(cls, target: str | Path, draft: str | Path | None, config: EngineConfig) -> Stand:
        """A target with a suffix automaton, and perhaps a draft model."""
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

    def use(self, members: Sequence[Drafter] | None = None) -> None:
        """Draft with these from now on; None: with all that were loaded."""
        assert self.llm.engine.is_idle
        drafter = self.llm.drafter if members is None else Cascade([*members])
        self.llm.engine.drafter = self.llm.engine.guard.around(drafter)

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
        by_kind: dict[bool, float] = {text.params.temperature == 0: text.params.temperature for text in texts.known}
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

    @property
    def predictor(self) -> Predictor:
        return Predictor(self.timings, lambda rows: self.llm.target.computed_rows([rows]), name=self.model or SUFFIX)

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
