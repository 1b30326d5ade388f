"""Two sentences, two next steps each with a reason that it might be wrong, and what here is uncertain.

Knows numbers and words; decides nothing that a person could not decide from the same table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from outrider.check.agreement import estimate
from outrider.check.measured import CHOICE, DEFAULT
from outrider.check.prediction import WORTH, Choice, off_above, words
from outrider.predict.interval import Estimate
from outrider.request import Depth

Decision = Literal["speculate", "do not speculate", "undecided", "no conclusion"]
FEW_PROMPTS = 8


class Step(NamedTuple):
    """What to do next, and why that might be wrong."""

    do: str
    might_be_wrong: str


class Evidence(NamedTuple):
    """What a verdict is drawn from.

    Attributes:
        choice: the best that was predicted; None if nothing was.
        everything: name of all drafters together, which the default setting was measured with.
        concurrency: best predictions by texts at once.
        measured: rows of the trial; may be empty.
        num_fit: prompts whose texts are fit.
        is_own: whether the prompts are the user's.
        is_partial: whether it was interrupted.
        skipped: what was not measured.
    """

    choice: Choice | None
    everything: str
    concurrency: Sequence[dict[str, Any]]
    measured: Sequence[dict[str, Any]]
    num_fit: int
    is_own: bool
    is_partial: bool
    skipped: Sequence[str]


class Verdict(NamedTuple):
    """The answer.

    Attributes:
        decision: in a word or two.
        depth: to draft; "auto" where that was measured no slower than the best fixed depth.
        speedup: measured if there is a measurement, else predicted.
        is_measured: which of the two.
        off_above: texts at once above which it does not pay, if that was seen.
    """

    decision: Decision
    drafter: str | None
    depth: Depth
    speedup: Estimate | None
    is_measured: bool
    off_above: int | None
    sentences: tuple[str, str]
    next_steps: tuple[Step, Step]
    uncertain: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._asdict()
        values["speedup"] = estimate(self.speedup)
        values["next_steps"] = [each._asdict() for each in self.next_steps]
        return values


def decide(evidence: Evidence) -> Verdict:
    """What the evidence says."""
    choice = evidence.choice
    if choice is None or evidence.num_fit < 1:
        return _no_conclusion(evidence)
    fixed, auto = (_measured(evidence.measured, choice, setting) for setting in (CHOICE, DEFAULT))
    # Auto goes on adapting, so it is taken where it is about as fast.
    takes_auto = auto is not None and (fixed is None or auto.value > 0.98 * fixed.value)
    known = auto if takes_auto else fixed
    drafter = evidence.everything if takes_auto else choice.drafter
    speedup = known or choice.speedup
    if speedup.value < WORTH:
        decision: Decision = "do not speculate"
    else:
        decision = "speculate" if speedup.low > 1 and math.isfinite(speedup.high) else "undecided"
    limit = off_above(evidence.concurrency)
    depth: Depth = "auto" if takes_auto else choice.depth
    sentences = {
        "speculate": _speculate(evidence, drafter, speedup, depth, limit),
        "do not speculate": _do_not(choice, speedup),
    }.get(decision, _undecided(choice, speedup))
    return Verdict(
        decision=decision,
        drafter=drafter,
        depth=depth,
        speedup=speedup,
        is_measured=known is not None,
        off_above=limit,
        sentences=sentences,
        next_steps=_next_steps(evidence, decision),
        uncertain=_uncertain(evidence, is_measured=known is not None),
    )


def _measured(rows: Sequence[dict[str, Any]], choice: Choice, setting: str) -> Estimate | None:
    """Over the temperatures, with as many texts at once as the choice is for; None if one of them is missing."""
    found = {
        row["temperature"]: row["speedup"]
        for row in rows
        if (row["setting"], row["num_sequences"]) == (setting, choice.num_sequences) and row["num_prompts"] > 1
    }
    if not found or not {each.temperature for each in choice.at} <= found.keys():
        return None
    ends = [
        [each[name] if each[name] is not None else math.inf for each in found.values()] for name in Estimate._fields
    ]
    return Estimate(*(math.prod(values) ** (1 / len(found)) for values in ends))


def _speculate(evidence: Evidence, drafter: str, speedup: Estimate, depth: Depth, limit: int | None) -> tuple[str, str]:
    choice = evidence.choice
    assert choice is not None
    how = f"auto depth (the best fixed one is {choice.depth})" if depth == "auto" else f"depth {depth}"
    most = evidence.concurrency[-1] if evidence.concurrency else None
    if limit is not None:
        load = f"Turn it off above {limit} texts at once."
    elif most is not None and most["num_sequences"] > choice.num_sequences:
        load = f"It is expected to be {most['speedup']['value']:.2f}x still with {most['num_sequences']} texts at once."
    else:
        load = "What it brings with more texts at once was not measured."
    return f"Speculate with {drafter}, {how}: {words(speedup)} with {_at_once(choice)}.", load


def _do_not(choice: Choice, speedup: Estimate) -> tuple[str, str]:
    prices = [each.break_even for each in choice.at if each.break_even is not None]
    agreement = min(each.agreement for each in choice.at)
    price = f"break-even is {100 * max(prices):.0f} %" if len(prices) == len(choice.at) else "no agreement would pay"
    what = f"{choice.drafter} at depth {choice.depth}, brings {words(speedup)} with {_at_once(choice)}"
    return (
        f"Do not speculate: the best that was found, {what}.",
        f"It agrees on {100 * agreement:.0f} % of the tokens, and {price}.",
    )


def _undecided(choice: Choice, speedup: Estimate) -> tuple[str, str]:
    what = f"{choice.drafter} at depth {choice.depth} brings {words(speedup)} with {_at_once(choice)}"
    return (
        f"Undecided: {what}, which may as well be nothing.",
        "More prompts or more time would tell; until then leave depth at auto, which stops where drafts do not pay.",
    )


def _no_conclusion(evidence: Evidence) -> Verdict:
    why = "no text was fit to be judged by" if evidence.num_fit < 1 else "too little was measured"
    return Verdict(
        decision="no conclusion",
        drafter=None,
        depth="auto",
        speedup=None,
        is_measured=False,
        off_above=None,
        sentences=(f"No conclusion: {why}.", "Loops, random tokens and texts of a few words say nothing of your own."),
        next_steps=_next_steps(evidence, "no conclusion"),
        uncertain=_uncertain(evidence, is_measured=False),
    )


def _at_once(choice: Choice) -> str:
    return "one text at a time" if choice.num_sequences == 1 else f"{choice.num_sequences} texts at once"


def _next_steps(evidence: Evidence, decision: Decision) -> tuple[Step, Step]:
    again = Step(
        "Measure for longer: give more --budget on a machine that does nothing else.",
        "The intervals may be narrow enough already for what you have to decide.",
    )
    prompts = Step(
        "Run it again with your own prompts: --prompts FILE.",
        "If your texts are like these, nothing will change.",
    )
    use = Step(
        "Use the choice for real work, and look at what `outrider run --explain` says.",
        "Your prompts and your load may differ from what was measured here.",
    )
    other = Step(
        "Try a smaller draft, or one trained on the target's own texts.",
        "A draft that costs less usually agrees less, and may come to the same.",
    )
    first = prompts if not evidence.is_own or decision == "no conclusion" else again
    second = {"speculate": use, "do not speculate": other}.get(decision, again if first is prompts else other)
    return first, second


def _uncertain(evidence: Evidence, *, is_measured: bool) -> tuple[str, ...]:
    found: list[str] = []
    if evidence.is_partial:
        found.append("It was interrupted: this is what was measured until then.")
    if not evidence.is_own:
        found.append("The prompts are the bundled ones; your own would be better.")
    if 0 < evidence.num_fit < FEW_PROMPTS:
        found.append(f"Only {evidence.num_fit} prompts were fit: intervals are wide, and one prompt has none.")
    if not is_measured:
        found.append("The speedup is predicted, and was not put to the test.")
    found += [f"Not measured: {what}." for what in evidence.skipped]
    return tuple(found)
