"""The texts of an audit: the same prompts and seeds, written under settings that must not matter. Knows no verdict."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from outrider.audit.distribution import Rejected
from outrider.audit.replay import Emitted
from outrider.draft.base import Drafter
from outrider.draft.cascade import Cascade
from outrider.draft.none import NoDrafter
from outrider.engine.llm import LLM, raise_errors
from outrider.engine.requests import Prompt
from outrider.request import Depth, Exactness, SamplingParams
from outrider.sequence import Sequence as TextSequence

PLAIN = "none"
TOGETHER = "as configured"
FIXED_DEPTH = 4


class NamedPrompt(NamedTuple):
    """What a text goes on from, and what to call it."""

    name: str
    prompt: Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """What to write.

    Attributes:
        prompts: each gets a seed of its own, and another at each temperature, so that no two texts that are fed to the
            sequential test share their noise.
        params: of all texts, but for seed and temperature.
        temperatures: 0 is greedy.
        batches: how many texts are written together.
        seed: of the first prompt at the first temperature; the others follow.
        alpha: of the sequential test.
        depth: of all drafters together, as configured. A single one drafts as deep, or `FIXED_DEPTH` where it is auto.
    """

    prompts: tuple[NamedPrompt, ...]
    params: SamplingParams
    temperatures: tuple[float, ...] = (0.0, 1.0)
    batches: tuple[int, ...] = (1, 8)
    seed: int = 0
    alpha: float = 1e-3
    depth: Depth = "auto"


class Setting(NamedTuple):
    """Who drafts, how deep, and how many texts are written together."""

    drafter: str
    depth: Depth
    batch: int
    temperature: float

    @property
    def is_reference(self) -> bool:
        """Whether this is plain decoding, one text at a time: what all others are compared with."""
        return self.drafter == PLAIN and self.batch == 1

    def __str__(self) -> str:
        depth = "" if self.drafter == PLAIN else f", depth {self.depth}"
        return f"{self.drafter}{depth}, batch {self.batch}, T = {self.temperature:g}"


class Written(NamedTuple):
    """One text under one setting, and what speculation did for it.

    Attributes:
        num_branching: drafts that were no chain.
        rejected: what was drafted in vain, as the engine told step by step.
    """

    setting: Setting
    prompt: str
    text: Emitted
    exactness: Exactness
    num_drafted: int
    num_accepted: int
    num_branching: int
    draft_fault: str | None
    rejected: tuple[Rejected, ...]


class Interruption(NamedTuple):
    """Asked between steps; told of progress."""

    is_asked: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda _: None


def drafters_of(llm: LLM) -> dict[str, Drafter]:
    """None, each member of what drafts for a loaded target, and all of them together."""
    found: dict[str, Drafter] = {PLAIN: NoDrafter()}
    members = llm.drafter.members if isinstance(llm.drafter, Cascade) else [llm.drafter]
    # Predictions come with requests, and these have none.
    members = [member for member in members if member.name not in ("prediction", PLAIN)]
    found |= {member.name: member for member in members}
    return found | ({TOGETHER: llm.drafter} if members else {})


def settings_of(plan: AuditPlan, drafters: Sequence[str]) -> list[Setting]:
    """The reference of each temperature first."""
    depths: dict[str, Depth] = {PLAIN: 0, TOGETHER: plan.depth}
    alone: Depth = FIXED_DEPTH if plan.depth == "auto" else plan.depth
    return [
        Setting(drafter, depths.get(drafter, alone), batch, temperature)
        for drafter in drafters
        for batch in dict.fromkeys((1, *plan.batches))
        for temperature in plan.temperatures
    ]


def num_seeds(plan: AuditPlan, drafters: Sequence[str], *, is_seeded: bool) -> int:
    """Seeds that an audit takes, from the plan's on: `_first_seed` gives them out."""
    num_groups = len(plan.temperatures) if is_seeded else len(settings_of(plan, drafters))
    return num_groups * len(plan.prompts)


def _first_seed(plan: AuditPlan, settings: Sequence[Setting], setting: Setting, *, is_seeded: bool) -> int:
    """Of one setting's texts.

    Where a seed settles the text, settings share theirs, to be compared; but not temperatures, since noise that was bet
    on at one of them is no new evidence at another. Where speculation draws with noise of its own, each setting's texts
    are to be new evidence.
    """
    group = plan.temperatures.index(setting.temperature) if is_seeded else settings.index(setting)
    return plan.seed + group * len(plan.prompts)


def write_all(llm: LLM, plan: AuditPlan, interruption: Interruption) -> Iterator[list[Written]]:
    """The texts of one setting after the other; the engine is left as it was. Ends early if that is asked."""
    drafters, configured = drafters_of(llm), llm.drafter
    is_seeded = llm.verifier.name == "coupled"
    try:
        settings = settings_of(plan, list(drafters))
        for setting in settings:
            if interruption.is_asked():
                return
            interruption.report(str(setting))
            llm.drafter = drafters[setting.drafter]
            llm.forget()  # an engine that has learned nothing, and whose policy knows this drafter
            yield _write(llm, plan, setting, _first_seed(plan, settings, setting, is_seeded=is_seeded))
    finally:
        llm.drafter = configured
        llm.forget()


def _write(llm: LLM, plan: AuditPlan, setting: Setting, first_seed: int) -> list[Written]:
    params = [
        dataclasses.replace(plan.params, temperature=setting.temperature, seed=first_seed + index, log_probs=0)
        for index in range(len(plan.prompts))
    ]
    written: list[Written] = []
    for begin in range(0, len(plan.prompts), setting.batch):
        part = slice(begin, begin + setting.batch)
        prompts = plan.prompts[part]
        sequences = llm.start([prompt.prompt for prompt in prompts], params[part], depth=setting.depth)
        rejected = _run(llm, sequences)
        raise_errors(sequences)
        written += [
            _as_written(llm, setting, prompt.name, sequence, rejected[sequence.request.request_id])
            for prompt, sequence in zip(prompts, sequences, strict=True)
        ]
    return written


def _run(llm: LLM, sequences: Sequence[TextSequence]) -> dict[int, list[Rejected]]:
    """Finish texts: what was drafted in vain, by request."""
    num_emitted = Counter[int]()
    rejected: dict[int, list[Rejected]] = {sequence.request.request_id: [] for sequence in sequences}
    while not all(sequence.finish_reason for sequence in sequences):
        for delta in llm.engine.step():
            num_emitted[delta.request_id] += len(delta.token_ids)
            if delta.rejected_token_ids:
                rejected[delta.request_id].append(Rejected(num_emitted[delta.request_id], delta.rejected_token_ids))
    return rejected


def _as_written(
    llm: LLM, setting: Setting, prompt: str, sequence: TextSequence, rejected: Sequence[Rejected]
) -> Written:
    generation = llm.generation(sequence, "")
    text = Emitted(sequence.request, generation.token_ids, generation.log_probs, generation.finish_reason)
    stats = generation.stats
    return Written(
        setting, prompt, text, generation.exactness, stats.num_drafted, stats.num_accepted, stats.num_branching,
        generation.draft_fault, tuple(rejected),
    )  # fmt: skip
