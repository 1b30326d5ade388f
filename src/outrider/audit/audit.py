"""An audit of our own engine from its texts: write them in every setting, compare, choose every token again, judge.

Knows the engine from outside: what it wrote, what it promised, and its target, which is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from outrider.audit.distribution import Witnesses, feed_text
from outrider.audit.forward import TILE, TeacherForcing
from outrider.audit.replay import Difference, Emitted, Rounding, replay
from outrider.audit.sequential import SequentialTest
from outrider.audit.texts import PLAIN, AuditPlan, Interruption, Setting, Written, drafters_of, write_all
from outrider.draft.model import ModelDrafter
from outrider.engine.llm import LLM
from outrider.runtime.numerics import TOLERANCES

# Tiles whose rows are compared to see how rounding moves them: decoding rows in two widths, and, where the runtime
# promises no more than rounding, rows alone and all rows in one forward.
BITWISE_TILES = (5,)
SEED_TILES = (1, 0)


class Divergence(NamedTuple):
    """A text that is another than plain decoding's, though prompt, parameters and seed are the same.

    Attributes:
        at: the first token that differs, or the length of the shorter text; None if only log-probabilities differ.
        is_fault: whether the engine had promised that this cannot be, or the replay found a wrong token there.
    """

    setting: Setting
    prompt: str
    at: int | None
    is_fault: bool


class Replayed(NamedTuple):
    """A text that was chosen again, token by token: the first setting that wrote it, and what was wrong."""

    setting: Setting
    prompt: str
    token_ids: tuple[int, ...]
    differences: list[Difference]


@dataclass(slots=True)
class Findings:
    """What an audit found.

    Attributes:
        max_children: that the engine was asked for.
        written: every text.
        divergences: of texts with known noise from the reference's.
        replayed: every different text with known noise.
        rounding: what was seen of it.
        test: the sequential test of texts that were sampled.
        num_passed: sampled tokens that the test passed over, at the border of truncation.
        is_partial: whether it was interrupted.
    """

    plan: AuditPlan
    verification: str
    has_drafters: bool
    max_children: int
    written: list[Written] = field(default_factory=list[Written])
    divergences: list[Divergence] = field(default_factory=list[Divergence])
    replayed: list[Replayed] = field(default_factory=list[Replayed])
    rounding: Rounding = field(default_factory=Rounding)
    test: SequentialTest = field(default_factory=SequentialTest)
    num_passed: int = 0
    is_partial: bool = False

    @property
    def is_seeded(self) -> bool:
        """Whether a seed settles every text."""
        return self.verification == "coupled"

    def settles(self, written: Written) -> bool:
        """Whether this text leaves nothing to chance: under any rule plain decoding takes the seed's own noise."""
        return self.compares(written) or written.setting.drafter == PLAIN

    def compares(self, written: Written) -> bool:
        """Whether this text must be the reference's: samples of a rule that draws have other seeds in each setting."""
        return self.is_seeded or written.setting.temperature == 0


def audit(llm: LLM, plan: AuditPlan, interruption: Interruption | None = None) -> Findings:
    """Audit a loaded target with what drafts for it.

    Raises:
        UsageError: a prompt cannot be used.
    """
    interruption = interruption or Interruption()
    findings = Findings(
        plan, llm.verifier.name, has_drafters=len(drafters_of(llm)) > 1, max_children=llm.config.max_children,
        rounding=Rounding(TOLERANCES[str(llm.target.options.dtype)]), test=SequentialTest(plan.alpha),
    )  # fmt: skip
    for texts in write_all(llm, plan, interruption):
        findings.written += texts
    unique, witnesses = _unique(findings.written), _witnesses(llm)
    # All of them before the first is judged: how far rounding goes is not to depend on the order.
    for act, words in ((_measure_rounding, "computing again"), (_examine, "choosing again")):
        for index, written in enumerate(unique):
            if interruption.is_asked():
                break
            interruption.report(f"{words}: text {index + 1} of {len(unique)}")
            act(findings, written, witnesses)
    findings.is_partial = interruption.is_asked()
    _compare(findings)
    return findings


def _witnesses(llm: LLM) -> Witnesses:
    """The target in the engine's cache, and the first draft model in its own."""
    chunk = llm.config.prefill_chunk
    models = [drafter for drafter in drafters_of(llm).values() if isinstance(drafter, ModelDrafter)]
    target = TeacherForcing(runtime=llm.target, pool=llm.engine.pool, prefill_chunk=chunk)
    if not models:
        return Witnesses(target)
    drafter = models[0]
    return Witnesses(
        target, TeacherForcing(runtime=drafter.runtime, pool=drafter.pool, prefill_chunk=chunk, may_end=True)
    )


def _unique(written: Sequence[Written]) -> list[Written]:
    """Texts without repetitions: what is the same to the last log-probability has to be looked at once."""
    found: dict[object, Written] = {}
    for each in written:
        key = (each.prompt, each.setting.temperature, each.text.request.seed, each.text[1:])
        found.setdefault(key, each)
    return list(found.values())


def _measure_rounding(findings: Findings, written: Written, witnesses: Witnesses) -> None:
    parts = (written.text.request.prompt_token_ids, written.text.token_ids)
    logits = list(witnesses.target.logits(*parts))
    for tile in BITWISE_TILES if written.exactness == "bitwise" else SEED_TILES:
        assert tile != TILE
        findings.rounding.see(logits, witnesses.target.logits(*parts, tile=tile))


def _examine(findings: Findings, written: Written, witnesses: Witnesses) -> None:
    text = written.text
    if findings.settles(written):
        logits = witnesses.target.logits(text.request.prompt_token_ids, text.token_ids)
        differences = replay(text, logits, findings.rounding, is_bitwise=written.exactness == "bitwise")
        findings.replayed.append(Replayed(written.setting, written.prompt, text.token_ids, differences))
    # Under shared noise one text of each prompt: another would be no new evidence, and the replay has seen them all.
    # Which texts are fed is settled by how they were to be written, and not by what became of them.
    is_evidence = written.setting.is_reference if findings.is_seeded else written.setting.drafter != PLAIN
    if written.setting.temperature > 0 and is_evidence:
        # What was drafted under the target's own noise gives its next tokens away: no bet on that would be fair.
        rejected = None if findings.is_seeded else written.rejected
        findings.num_passed += feed_text(findings.test, text, witnesses, findings.rounding, rejected)


def _compare(findings: Findings) -> None:
    """Texts of known noise against the reference's."""
    references = {
        (written.prompt, written.setting.temperature): written
        for written in findings.written
        if written.setting.is_reference
    }
    wrong = {
        (text.prompt, text.token_ids) for text in findings.replayed if any(each.is_fault for each in text.differences)
    }
    for written in findings.written:
        reference = references[written.prompt, written.setting.temperature]
        if not findings.compares(written) or written is reference:
            continue
        place = _first_difference(written.text, reference.text)
        promised = "bitwise" == written.exactness == reference.exactness
        if place is not None or (promised and written.text.log_probs != reference.text.log_probs):
            is_fault = promised or (written.prompt, written.text.token_ids) in wrong
            findings.divergences.append(Divergence(written.setting, written.prompt, place, is_fault))


def _first_difference(text: Emitted, reference: Emitted) -> int | None:
    if text.token_ids == reference.token_ids:
        return None
    pairs = enumerate(zip(text.token_ids, reference.token_ids, strict=False))
    shorter = min(len(text.token_ids), len(reference.token_ids))
    return next((at for at, (one, other) in pairs if one != other), shorter)
