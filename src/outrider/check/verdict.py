"""Two sentences, two next steps each with a reason that it might be wrong, and what here is uncertain.

Knows numbers and words; decides nothing that a person could not decide from the same table.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from outrider.check.agreement import estimate
from outrider.check.measured import CHOICE, DEFAULT
from outrider.check.prediction import WORTH, Choice, geometric_mean, off_above, words
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
        concurrency: best predictions by texts at once, over all temperatures.
        by_temperature: the same for each temperature.
        alone: for each temperature what would be chosen if there were no other.
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
    by_temperature: Sequence[dict[str, Any]] = ()
    alone: Sequence[Choice] = ()


class AtTemperature(NamedTuple):
    """What the recommended setting comes to at one temperature, as `Verdict` has it for all."""

    temperature: float
    decision: Decision
    speedup: Estimate
    is_measured: bool
    off_above: int | None


class Verdict(NamedTuple):
    """The answer.

    Attributes:
        decision: in a word or two.
        depth: to draft; "auto" where that was measured no slower than the best fixed depth.
        speedup: measured if there is a measurement, else predicted.
        is_measured: which of the two.
        off_above: texts at once above which it does not pay, if that was seen.
        by_temperature: each temperature by itself.
        only_at: temperatures to speculate at, where it does not pay at the others; empty where there is no such limit.
            Then the speedup is of these.
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
    by_temperature: tuple[AtTemperature, ...] = ()
    only_at: tuple[float, ...] = ()

    @property
    def max_temperature(self) -> float | None:
        """Above which it does not pay; None where no such limit says what `only_at` does."""
        others = [each.temperature for each in self.by_temperature if each.temperature not in self.only_at]
        return max(self.only_at) if self.only_at and max(self.only_at) < min(others) else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._asdict()
        values["speedup"] = estimate(self.speedup)
        values["by_temperature"] = [
            each._asdict() | {"speedup": estimate(each.speedup)} for each in self.by_temperature
        ]
        values["next_steps"] = [each._asdict() for each in self.next_steps]
        return values


def decide(evidence: Evidence) -> Verdict:
    """What the evidence says."""
    choice = evidence.choice
    if choice is None or evidence.num_fit < 1:
        return _no_conclusion(evidence)
    temperatures = [each.temperature for each in choice.at]
    view = _view(evidence, choice, temperatures)
    parts = tuple(_at_temperature(evidence, choice, each, takes_auto=view.takes_auto) for each in temperatures)
    decision, only_at = _decision(view.speedup), tuple[float, ...]()
    paying = tuple(each.temperature for each in parts if each.decision == "speculate")
    if paying and (decision != "speculate" or any(each.decision == "do not speculate" for each in parts)):
        decision, only_at, view = "speculate", paying, _view(evidence, choice, paying)
    drafter = evidence.everything if view.takes_auto else choice.drafter
    depth: Depth = "auto" if view.takes_auto else choice.depth
    how = f"auto depth (the best fixed one is {choice.depth})" if depth == "auto" else f"depth {depth}"
    sentences = {
        "speculate": (
            _speculate(choice, f"{drafter}, {how}", view.speedup, parts, only_at),
            _load(evidence, only_at, parts),
        ),
        "do not speculate": _do_not(evidence, choice, view.speedup),
    }.get(decision, _undecided(choice, view.speedup))
    return Verdict(
        decision=decision,
        drafter=drafter,
        depth=depth,
        speedup=view.speedup,
        is_measured=view.is_measured,
        off_above=_limit(evidence, only_at),
        sentences=sentences,
        next_steps=_next_steps(evidence, decision),
        uncertain=_uncertain(evidence, is_measured=view.is_measured),
        by_temperature=parts,
        only_at=only_at,
    )


class _View(NamedTuple):
    """What is known of some temperatures together; `takes_auto` where auto depth is recommended."""

    takes_auto: bool
    speedup: Estimate
    is_measured: bool


def _view(evidence: Evidence, choice: Choice, temperatures: Collection[float]) -> _View:
    """Measured if it was measured at all of these temperatures, else predicted."""
    fixed, auto = (_measured(evidence.measured, choice, setting, temperatures) for setting in (CHOICE, DEFAULT))
    # Auto goes on adapting, so it is taken where it is about as fast.
    takes_auto = auto is not None and (fixed is None or auto.value > 0.98 * fixed.value)
    known = auto if takes_auto else fixed
    return _View(takes_auto, known or _predicted(choice, temperatures), known is not None)


def _at_temperature(evidence: Evidence, choice: Choice, temperature: float, *, takes_auto: bool) -> AtTemperature:
    known = _measured(evidence.measured, choice, DEFAULT if takes_auto else CHOICE, [temperature])
    speedup = known or _predicted(choice, [temperature])
    limit = off_above([row for row in evidence.by_temperature if row["temperature"] == temperature])
    return AtTemperature(temperature, _decision(speedup), speedup, known is not None, limit)


def _predicted(choice: Choice, temperatures: Collection[float]) -> Estimate:
    return geometric_mean([each.speedup for each in choice.at if each.temperature in temperatures])


def _decision(speedup: Estimate) -> Decision:
    if speedup.value < WORTH:
        return "do not speculate"
    return "speculate" if speedup.low > 1 and math.isfinite(speedup.high) else "undecided"


def _limit(evidence: Evidence, only_at: Collection[float]) -> int | None:
    """Texts at once up to which it pays: over all temperatures, or at each of those that it pays at."""
    if not only_at:
        return off_above(evidence.concurrency)
    rows = evidence.by_temperature
    limits = [off_above([row for row in rows if row["temperature"] == temperature]) for temperature in only_at]
    return min((limit for limit in limits if limit is not None), default=None)


def _measured(
    rows: Sequence[dict[str, Any]], choice: Choice, setting: str, temperatures: Collection[float]
) -> Estimate | None:
    """Over these temperatures, with as many texts at once as the choice is for; None if one of them is missing."""
    found = {
        row["temperature"]: row["speedup"]
        for row in rows
        if (row["setting"], row["num_sequences"]) == (setting, choice.num_sequences)
        and row["num_prompts"] > 1
        and row["temperature"] in temperatures
    }
    if not found or not set(temperatures) <= found.keys():
        return None
    ends = [
        [each[name] if each[name] is not None else math.inf for each in found.values()] for name in Estimate._fields
    ]
    return Estimate(*(math.prod(values) ** (1 / len(found)) for values in ends))


def _speculate(
    choice: Choice, what: str, speedup: Estimate, parts: Sequence[AtTemperature], only_at: Collection[float]
) -> str:
    """What to do, with the speedup of each temperature; and at which not to."""
    said = {each.temperature: f"{words(each.speedup)} at T = {each.temperature:g}" for each in parts}
    if only_at:
        where = " and ".join(f"T = {temperature:g}" for temperature in only_at)
        by_itself = f" ({', '.join(said[temperature] for temperature in only_at)})" if len(only_at) > 1 else ""
        others = ", ".join(words_of for temperature, words_of in said.items() if temperature not in only_at)
        gained = f"{words(speedup)} with {_at_once(choice)}{by_itself}"
        return f"Speculate at {where} only, with {what}: {gained}. Leave it off otherwise: it is {others}."
    each = f": {', '.join(said.values())}" if len(parts) > 1 else ""
    return f"Speculate with {what}: {words(speedup)} with {_at_once(choice)}{each}."


def _load(evidence: Evidence, only_at: Collection[float], parts: Sequence[AtTemperature]) -> str:
    """With how many texts at once it still pays, for each temperature where that is known."""
    choice = evidence.choice
    assert choice is not None
    rows = evidence.by_temperature
    temperatures = [each.temperature for each in parts if not only_at or each.temperature in only_at]
    by_temperature = {
        temperature: [row for row in rows if row["temperature"] == temperature] for temperature in temperatures
    }
    if len(temperatures) < 2 or not all(by_temperature.values()):
        return _load_of(next(iter(by_temperature.values())) or evidence.concurrency, choice)
    limits = {temperature: off_above(each) for temperature, each in by_temperature.items()}
    if len(set(limits.values())) == 1:
        return (
            _load_of(evidence.concurrency, choice) if not only_at else _load_of(by_temperature[temperatures[0]], choice)
        )
    return " ".join(f"At T = {each:g}: {_load_of(found, choice).lower()}" for each, found in by_temperature.items())


def _load_of(rows: Sequence[dict[str, Any]], choice: Choice) -> str:
    if (limit := off_above(rows)) is not None:
        return f"Turn it off above {limit} texts at once."
    most = rows[-1] if rows else None
    if most is not None and most["num_sequences"] > choice.num_sequences:
        return f"It is expected to be {most['speedup']['value']:.2f}x still with {most['num_sequences']} texts at once."
    return "What it brings with more texts at once was not measured."


def _do_not(evidence: Evidence, choice: Choice, speedup: Estimate) -> tuple[str, str]:
    prices = [each.break_even for each in choice.at if each.break_even is not None]
    agreement = min(each.agreement for each in choice.at)
    price = f"break-even is {100 * max(prices):.0f} %" if len(prices) == len(choice.at) else "no agreement would pay"
    what = f"{choice.drafter} at depth {choice.depth}, brings {words(speedup)} with {_at_once(choice)}"
    return (
        f"Do not speculate: the best that was found, {what}.",
        f"It agrees on {100 * agreement:.0f} % of the tokens, and {price}.{_at_one_temperature(evidence, choice)}",
    )


def _at_one_temperature(evidence: Evidence, choice: Choice) -> str:
    """What is predicted to pay at a temperature by itself, though it was not chosen, and so not tried."""
    if len(choice.at) < 2:
        return ""
    return "".join(
        f" At T = {other.at[0].temperature:g} alone, {other.drafter} at depth {other.depth} is predicted to bring "
        f"{words(other.speedup)}: look at that with --temperature {other.at[0].temperature:g}."
        for other in evidence.alone
        if (other.drafter, other.depth) != (choice.drafter, choice.depth) and _decision(other.speedup) == "speculate"
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
