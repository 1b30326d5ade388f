"""What an audit's findings come to: lossless as far as tested, a difference, or nothing that can be said yet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from outrider.audit.audit import Findings, Replayed
from outrider.audit.replay import Difference
from outrider.audit.texts import PLAIN, AuditPlan, Setting, Written, settings_of
from outrider.request import Exactness

Status = Literal["lossless", "difference", "inconclusive"]
# The least first.
LEVELS: tuple[Exactness, ...] = ("distribution", "seed", "bitwise")

# Sampled tokens after which the sequential test has found nearly all faults of total variation 0.02 in its benchmark.
DECISIVE_TOKENS = 10_000
# Where rounding decides more tokens than this, a fault could hide behind it.
MOST_NEAR_TIES = 0.05
MAX_LISTED = 100
# A text may end before its length, or at the border of truncation now and then.
_SPARE = 1.1
LEAST_LENGTH, MOST_LENGTH = 256, 2048


class Verdict(NamedTuple):
    """One of three, and why: for `inconclusive`, what would decide."""

    status: Status
    reasons: list[str]


def decisive_length(plan: AuditPlan, drafters: Sequence[str]) -> int:
    """Tokens of a text with which samples can decide, under a rule that draws; within reason."""
    settings = [each for each in settings_of(plan, drafters) if each.drafter != PLAIN and each.temperature > 0]
    num_texts = len(plan.prompts) * len(settings)
    wanted = math.ceil(_SPARE * DECISIVE_TOKENS / num_texts) if num_texts else 0
    return max(LEAST_LENGTH, min(MOST_LENGTH, wanted))


def judge(findings: Findings) -> Verdict:
    """The verdict: one fault suffices; without one, whether enough was tested to say that there is none."""
    if faults := list(_faults(findings)):
        return Verdict("difference", faults)
    if doubts := list(_doubts(findings)):
        return Verdict("inconclusive", doubts)
    return Verdict("lossless", [])


def _faults(findings: Findings) -> Iterator[str]:
    kinds = Counter(each.kind for text in findings.replayed for each in text.differences if each.is_fault)
    for kind, count in kinds.items():
        text, first = next((text, each) for text in findings.replayed for each in text.differences if each.kind == kind)
        yield f"{kind}: {_times(count)}, first in {text.prompt!r} ({text.setting}) {_said(first)}"
    if promised := [each for each in findings.divergences if each.is_fault]:
        first = promised[0]
        where = "in a log-probability only" if first.at is None else f"at token {first.at}"
        yield (
            f"{len(promised)} texts differ from plain decoding's though the seed is the same, "
            f"first {first.prompt!r} ({first.setting}) {where}"
        )
    if findings.test.is_rejected:
        yield (
            f"sampled tokens are not from the target's distribution: evidence reached 1/alpha at token "
            f"{findings.test.num_tokens_at_alarm:,}, most by the bet on {findings.test.strongest_bet!r}"
        )


def _doubts(findings: Findings) -> Iterator[str]:
    if findings.is_partial:
        yield "the audit was interrupted: run it to its end"
    if faults := {written.draft_fault for written in findings.written if written.draft_fault}:
        yield f"a drafter failed, and its texts went on without it ({min(faults)}): mend it, or leave it out"
    if not findings.has_drafters:
        yield "nothing drafts, so speculation was not tested: name a drafter with --draft"
    elif not findings.is_partial and not sum(written.num_accepted for written in findings.written):
        yield "no drafted token was accepted, so acceptance was not tested: give a drafter that agrees more often"
    if findings.max_children > 1 and findings.has_drafters and not findings.is_partial and not _num_branching(findings):
        yield "trees were asked for, but no draft branched, so none was tested: give a draft model with --draft DIR"
    yield from _doubts_of_rounding(findings)
    num_fed = findings.test.num_tokens
    if not findings.is_seeded and any(findings.plan.temperatures) and num_fed < DECISIVE_TOKENS:
        yield (
            f"{num_fed:,} sampled tokens show no difference, but smaller faults take up to {DECISIVE_TOKENS:,}: "
            "raise --max-tokens, or give more --prompts"
        )


def _doubts_of_rounding(findings: Findings) -> Iterator[str]:
    num_near, num_tokens, rounding = num_near_ties(findings), num_replayed(findings), findings.rounding
    margin = largest_near_tie(findings)
    largest = "" if margin is None else f"; the largest near-tie has a margin of {margin:.2g}"
    if num_near > MOST_NEAR_TIES * num_tokens:
        yield (
            f"rounding may have decided {num_near:,} of {num_tokens:,} tokens, and a fault could hide among them"
            f"{largest}: compute in --dtype float32"
        )
    if rounding.is_excessive:
        yield (
            f"rows that were computed again moved by {rounding.largest:.2g}, of which rounding explains "
            f"{rounding.limit:.2g}{largest}: the target itself cannot be trusted, try another --dtype or --runtime"
        )


def level_of(findings: Findings) -> Exactness | None:
    """The least that any text promised; None without texts."""
    return _least_level(findings, findings.written)


def _least_level(findings: Findings, texts: Sequence[Written]) -> Exactness | None:
    found = {written.exactness if findings.settles(written) else "distribution" for written in texts}
    return next((level for level in LEVELS if level in found), None)


def largest_near_tie(findings: Findings) -> float | None:
    """Its margin; None if there was none."""
    margins = (each.margin for text in findings.replayed for each in text.differences if not each.is_fault)
    return max(margins, default=None)


def num_replayed(findings: Findings) -> int:
    return sum(len(text.token_ids) for text in findings.replayed)


def num_near_ties(findings: Findings) -> int:
    return sum(not each.is_fault for text in findings.replayed for each in text.differences)


def document_of(findings: Findings, verdict: Verdict) -> dict[str, Any]:
    """Everything that was found, as JSON has it."""
    plan, test, differences = findings.plan, findings.test, _all_differences(findings)
    return {
        "verdict": verdict._asdict(),
        "level": level_of(findings),
        "is_partial": findings.is_partial,
        "verification": findings.verification,
        "plan": {
            "prompts": [prompt.name for prompt in plan.prompts], "temperatures": plan.temperatures,
            "batches": plan.batches, "depth": plan.depth, "max_children": findings.max_children,
            "max_tokens": plan.params.max_tokens, "seed": plan.seed,
            "alpha": plan.alpha,
        },
        "settings": [_setting(findings, setting) for setting in dict.fromkeys(w.setting for w in findings.written)],
        "divergences": [
            {**each.setting._asdict(), "prompt": each.prompt, "at": each.at, "is_fault": each.is_fault}
            for each in findings.divergences
        ],
        "replay": {
            "num_texts": len(findings.replayed), "num_tokens": num_replayed(findings),
            "rounding": findings.rounding.largest, "rounding_limit": _finite(findings.rounding.limit),
            "num_near_ties": num_near_ties(findings), "largest_near_tie": largest_near_tie(findings),
            "num_differences": len(differences),
            "differences": [_difference(*pair) for pair in differences[:MAX_LISTED]],
        },
        "sequential": {
            "alpha": test.alpha, "num_tokens": test.num_tokens, "num_passed": findings.num_passed,
            "log_evidence": _finite(test.log_evidence), "peak": _finite(test.peak),
            "is_rejected": test.is_rejected, "num_tokens_at_alarm": test.num_tokens_at_alarm,
            "strongest_bet": test.strongest_bet if test.num_tokens else None,
        },
    }  # fmt: skip


def _setting(findings: Findings, setting: Setting) -> dict[str, Any]:
    texts: list[Written] = [written for written in findings.written if written.setting == setting]
    return {
        **setting._asdict(),
        "num_texts": len(texts),
        "num_tokens": sum(len(written.text.token_ids) for written in texts),
        "num_drafted": sum(written.num_drafted for written in texts),
        "num_accepted": sum(written.num_accepted for written in texts),
        "num_branching": sum(written.num_branching for written in texts),
        "num_differing": sum(each.setting == setting for each in findings.divergences),
        "exactness": _least_level(findings, texts),
    }


def _num_branching(findings: Findings) -> int:
    return sum(written.num_branching for written in findings.written)


def _all_differences(findings: Findings) -> list[tuple[Replayed, Difference]]:
    """Faults first."""
    pairs = [(text, each) for text in findings.replayed for each in text.differences]
    return sorted(pairs, key=lambda pair: not pair[1].is_fault)


def _difference(text: Replayed, difference: Difference) -> dict[str, Any]:
    facts = difference._asdict() | {"margin": _finite(difference.margin)}
    return {**text.setting._asdict(), "prompt": text.prompt, **facts}


def _said(difference: Difference) -> str:
    where = f"at token {difference.at}"
    if difference.kind == "wrong acceptance":
        return (
            f"{where}: {difference.emitted} was emitted, but {difference.chosen} is the target's, "
            f"by {difference.margin:.3g} where rounding explains {difference.bound:.2g}"
        )
    if difference.kind == "wrong log-probability":
        return f"{where}: off by {difference.margin:.3g} where rounding explains {difference.bound:.2g}"
    return where


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
