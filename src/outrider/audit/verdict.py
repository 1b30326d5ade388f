"""What an audit's findings come to: lossless as far as tested, a difference, or nothing that can be said yet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from outrider.audit.audit import Findings, Replayed
from outrider.audit.replay import Difference
from outrider.audit.texts import Setting, Written

Status = Literal["lossless", "difference", "inconclusive"]

# Sampled tokens after which the sequential test has found nearly all faults of total variation 0.02 in its benchmark.
DECISIVE_TOKENS = 10_000
# Where rounding decides more tokens than this, a fault could hide behind it.
MOST_NEAR_TIES = 0.05
MAX_LISTED = 100


class Verdict(NamedTuple):
    """One of three, and why: for `inconclusive`, what would decide."""

    status: Status
    reasons: list[str]


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
    num_near, num_tokens = num_near_ties(findings), num_replayed(findings)
    if num_near > MOST_NEAR_TIES * num_tokens:
        yield (
            f"rounding may have decided {num_near:,} of {num_tokens:,} tokens, and a fault could hide among them: "
            "compute in --dtype float32"
        )
    num_fed = findings.test.num_tokens
    if not findings.is_seeded and any(findings.plan.temperatures) and num_fed < DECISIVE_TOKENS:
        yield (
            f"{num_fed:,} sampled tokens show no difference, but smaller faults take up to {DECISIVE_TOKENS:,}: "
            "raise --max-tokens, or give more --prompts"
        )


def num_replayed(findings: Findings) -> int:
    return sum(len(text.token_ids) for text in findings.replayed)


def num_near_ties(findings: Findings) -> int:
    return sum(not each.is_fault for text in findings.replayed for each in text.differences)


def document_of(findings: Findings, verdict: Verdict) -> dict[str, Any]:
    """Everything that was found, as JSON has it."""
    plan, test = findings.plan, findings.test
    return {
        "verdict": verdict._asdict(),
        "is_partial": findings.is_partial,
        "verification": findings.verification,
        "plan": {
            "prompts": [prompt.name for prompt in plan.prompts], "temperatures": plan.temperatures,
            "batches": plan.batches, "depth": plan.depth, "max_tokens": plan.params.max_tokens, "seed": plan.seed,
            "alpha": plan.alpha,
        },
        "settings": [_setting(findings, setting) for setting in dict.fromkeys(w.setting for w in findings.written)],
        "divergences": [
            {**each.setting._asdict(), "prompt": each.prompt, "at": each.at, "is_fault": each.is_fault}
            for each in findings.divergences
        ],
        "replay": {
            "num_texts": len(findings.replayed), "num_tokens": num_replayed(findings),
            "rounding": findings.rounding.largest, "num_near_ties": num_near_ties(findings),
            "differences": [_difference(*pair) for pair in _all_differences(findings)][:MAX_LISTED],
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
        "num_differing": sum(each.setting == setting for each in findings.divergences),
        "exactness": "seed" if any(written.exactness != "bitwise" for written in texts) else "bitwise",
    }


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
