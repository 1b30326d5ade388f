"""What to do, two next steps each with a reason that it might be wrong, and what here is uncertain.

Decides nothing that a person could not decide from the same table. The words are in `sentences`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from outrider.check import other_ways, sentences
from outrider.check.agreement import estimate
from outrider.check.judgement import Judgement, judge, members
from outrider.check.known import Known, Row, load_rows, measured_of, outweighed
from outrider.check.measured import Wanted
from outrider.check.other_ways import OtherWay
from outrider.check.prediction import WORTH, Choice, best_by_temperature, choose, geometric_mean, off_above
from outrider.check.sentences import AtTemperature, Decision, Step, Weighed
from outrider.check.stand import SUFFIX
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast
from outrider.request import Depth

FEW_PROMPTS = 8
_ORDER: Sequence[Decision] = ("speculate", "undecided", "do not speculate")


class Evidence(NamedTuple):
    """What a verdict is drawn from.

    Attributes:
        predictions: of every drafter, depth, temperature and number of sequences.
        measured: rows of the trials; may be empty.
        num_fit: prompts whose texts are fit.
        is_own: whether the prompts are the user's.
        is_partial: whether it was interrupted.
        skipped: what was not measured.
        others: what is predicted of other ways than chains of guesses.
    """

    predictions: Sequence[Forecast]
    measured: Sequence[Row]
    num_fit: int
    is_own: bool
    is_partial: bool
    skipped: Sequence[str]
    others: Sequence[OtherWay] = ()


class Verdict(NamedTuple):
    """The answer.

    Attributes:
        decision: in a word or two.
        drafter: what is recommended; where nothing is, the best that was found.
        depth: to draft; "auto" where that was measured no slower than the best fixed depth.
        speedup: measured if there is a measurement that says more than the prediction, else predicted.
        is_measured: which of the two.
        off_above: texts at once above which it does not pay, if that was seen.
        drafts: every drafter judged by itself.
        by_temperature: each temperature by itself.
        only_at: temperatures to speculate at, where it does not pay at the others; empty where there is no such limit.
            Then the speedup is of these.
        choice: the drafter at its best fixed depth.
        load, load_by_temperature: what it brings by texts at once.
    """

    decision: Decision
    drafter: str | None
    depth: Depth
    speedup: Estimate | None
    is_measured: bool
    off_above: int | None
    sentences: tuple[str, ...]
    next_steps: tuple[Step, Step]
    uncertain: tuple[str, ...]
    drafts: tuple[Judgement, ...] = ()
    by_temperature: tuple[AtTemperature, ...] = ()
    only_at: tuple[float, ...] = ()
    choice: Choice | None = None
    load: Sequence[dict[str, Any]] = ()
    load_by_temperature: Sequence[dict[str, Any]] = ()

    @property
    def max_temperature(self) -> float | None:
        """Above which it does not pay; None where no such limit says what `only_at` does."""
        others = [each.temperature for each in self.by_temperature if each.temperature not in self.only_at]
        return max(self.only_at) if self.only_at and max(self.only_at) < min(others) else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._asdict()
        for name in ("choice", "load", "load_by_temperature"):  # stand elsewhere in the document
            del values[name]
        values["speedup"] = estimate(self.speedup)
        values["drafts"] = [each.as_dict() for each in self.drafts]
        values["by_temperature"] = [
            each._asdict() | {"speedup": estimate(each.speedup)} for each in self.by_temperature
        ]
        values["next_steps"] = [each._asdict() for each in self.next_steps]
        return values


def decide(evidence: Evidence) -> Verdict:
    """What the evidence says."""
    drafts = judge(evidence.predictions, evidence.measured)
    found = _recommended(evidence, drafts)
    if found is None or evidence.num_fit < 1:
        return _no_conclusion(evidence)
    rows = load_rows(found.choice, found.depth, evidence.predictions, evidence.measured)
    by_temperature = [
        {"temperature": each.temperature, **row}
        for each in found.parts
        for row in load_rows(
            found.choice,
            found.depth,
            [other for other in evidence.predictions if other.temperature == each.temperature],
            evidence.measured,
        )
    ]
    found = found._replace(parts=tuple(_with_limit(each, by_temperature) for each in found.parts))
    temperatures = found.only_at or [each.temperature for each in found.parts]
    tested = None if found.known.is_measured else _measured(evidence, found.choice, found.choice.depth, temperatures)
    said = sentences.Said(found, drafts, rows, by_temperature, best_by_temperature(evidence.predictions))
    return Verdict(
        decision=found.decision,
        drafter=found.choice.drafter,
        depth=found.depth,
        speedup=found.known.speedup,
        is_measured=found.known.is_measured,
        off_above=_limit(found.only_at, rows, by_temperature),
        sentences=said.sentences(),
        next_steps=_next_steps(evidence, found.decision, found.choice.drafter),
        uncertain=_uncertain(evidence, is_measured=found.known.is_measured, tested=tested),
        drafts=drafts,
        by_temperature=found.parts,
        only_at=found.only_at,
        choice=found.choice,
        load=rows,
        load_by_temperature=by_temperature,
    )


def next_trial(evidence: Evidence, tried: Collection[str]) -> Wanted | None:
    """What to measure next: drafts that may well pay and are not sure to, what is recommended, other open ones.

    Args:
        evidence: that there is.
        tried: drafters that had their trial.
    """
    verdict = decide(evidence)
    if verdict.choice is None:
        return None
    open_ = [
        each
        for each in sorted(verdict.drafts, key=lambda each: -each.gain.value)
        if each.conclusion == "undecided" and each.name != SUFFIX
    ]
    likely = [Wanted(each.best, each.rival, is_open=True) for each in open_ if each.gain.value >= WORTH]
    others = [Wanted(each.best, each.rival, is_open=True) for each in open_ if each.gain.value < WORTH]
    order = [*likely, Wanted(verdict.choice), *others]
    return next((each for each in order if each.choice.drafter not in tried), None)


def _recommended(evidence: Evidence, drafts: Sequence[Judgement]) -> Weighed | None:
    """The best drafter that is known to pay, of those whose draft models pay; else the best that may.

    A draft that does not pay is in neither, unless there is no other drafter at all. One that surely pays over plain
    decoding is taken, too, where nothing pays that needs no draft, though it may be no better than looking guesses up.
    """
    weighed = _all_weighed(evidence)
    models = {each.name: each for each in drafts if each.name != SUFFIX}
    left_out = {name for name, each in models.items() if each.conclusion == "does not pay"}
    open_ = {name for name, each in models.items() if each.conclusion == "undecided"}
    sure = {name for name in open_ if _decision(models[name].alone) == "speculate"}

    def of(excluded: Collection[str]) -> list[Weighed]:
        return [each for each in weighed if not {*members(each.choice.drafter)} & {*excluded}]

    for excluded in (left_out | open_, left_out | (open_ - sure)):
        if paying := [each for each in of(excluded) if each.decision == "speculate"]:
            return paying[0]
    # Of a cascade with a draft that is open, nobody can say whose merit it is.
    single = [each for each in of(left_out) if each.choice.drafter in {SUFFIX, *models}]
    return min(single or weighed, key=lambda each: _ORDER.index(each.decision), default=None)


def _all_weighed(evidence: Evidence) -> list[Weighed]:
    """Each drafter at its best depth, the fastest that is predicted first."""
    bests = (
        choose([each for each in evidence.predictions if each.drafter == drafter])
        for drafter in dict.fromkeys(each.drafter for each in evidence.predictions)
    )
    ranked = sorted((each for each in bests if each is not None), key=lambda each: -each.speedup.value)
    most = max((len(each.at) for each in ranked), default=0)
    return [_weigh(evidence, each) for each in ranked if len(each.at) == most]


def _weigh(evidence: Evidence, choice: Choice) -> Weighed:
    """One drafter at its best depth: what it comes to, at all temperatures, or only at some."""
    temperatures = [each.temperature for each in choice.at]
    takes_auto, known = _view(evidence, choice, temperatures)
    parts = tuple(_at_temperature(evidence, choice, each, takes_auto=takes_auto) for each in temperatures)
    decision, only_at = _decision(known.speedup), tuple[float, ...]()
    paying = tuple(each.temperature for each in parts if each.decision == "speculate")
    if paying and (decision != "speculate" or any(each.decision == "do not speculate" for each in parts)):
        takes_auto, known = _view(evidence, choice, paying)
        decision, only_at = "speculate", paying
    return Weighed(choice, decision, "auto" if takes_auto else choice.depth, known, parts, only_at)


def _view(evidence: Evidence, choice: Choice, temperatures: Collection[float]) -> tuple[bool, Known]:
    """Whether auto depth is taken over these temperatures, and the speedup with what is taken."""
    fixed, auto = (_measured(evidence, choice, depth, temperatures) for depth in (choice.depth, "auto"))
    predicted = _predicted(choice, temperatures)
    # Auto goes on adapting, so it is taken where it is about as fast.
    if auto is not None and (fixed is None or auto.value > 0.98 * fixed.value):
        known = outweighed(auto, predicted)
        if known.is_measured:
            return True, known
    return False, outweighed(fixed, predicted)


def _measured(evidence: Evidence, choice: Choice, depth: Depth, temperatures: Collection[float]) -> Estimate | None:
    return measured_of(evidence.measured, choice.drafter, depth, temperatures, choice.num_sequences)


def _at_temperature(evidence: Evidence, choice: Choice, temperature: float, *, takes_auto: bool) -> AtTemperature:
    depth: Depth = "auto" if takes_auto else choice.depth
    measured = _measured(evidence, choice, depth, [temperature])
    speedup, is_measured = outweighed(measured, _predicted(choice, [temperature]))
    return AtTemperature(temperature, _decision(speedup), speedup, is_measured, None)


def _with_limit(part: AtTemperature, rows: Sequence[dict[str, Any]]) -> AtTemperature:
    return part._replace(off_above=off_above([row for row in rows if row["temperature"] == part.temperature]))


def _predicted(choice: Choice, temperatures: Collection[float]) -> Estimate:
    return geometric_mean([each.speedup for each in choice.at if each.temperature in temperatures])


def _decision(speedup: Estimate) -> Decision:
    if speedup.value < WORTH:
        return "do not speculate"
    return "speculate" if speedup.low > 1 and math.isfinite(speedup.high) else "undecided"


def _limit(
    only_at: Collection[float], rows: Sequence[dict[str, Any]], by_temperature: Sequence[dict[str, Any]]
) -> int | None:
    """Texts at once up to which it pays: over all temperatures, or at each of those that it pays at."""
    if not only_at:
        return off_above(rows)
    limits = [off_above([row for row in by_temperature if row["temperature"] == each]) for each in only_at]
    return min((limit for limit in limits if limit is not None), default=None)


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


def _next_steps(evidence: Evidence, decision: Decision, drafter: str = "") -> tuple[Step, Step]:
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
    use = other_ways.next_step(evidence.others, drafter) or use
    first = prompts if not evidence.is_own or decision == "no conclusion" else again
    second = {"speculate": use, "do not speculate": other}.get(decision, again if first is prompts else other)
    return first, second


def _uncertain(evidence: Evidence, *, is_measured: bool, tested: Estimate | None = None) -> tuple[str, ...]:
    """`tested` is what was measured where the prediction is held to be the surer of the two."""
    found: list[str] = []
    if evidence.is_partial:
        found.append("It was interrupted: this is what was measured until then.")
    if not evidence.is_own:
        found.append("The prompts are the bundled ones; your own would be better.")
    if 0 < evidence.num_fit < FEW_PROMPTS:
        found.append(f"Only {evidence.num_fit} prompts were fit: intervals are wide, and one prompt has none.")
    if tested is not None:
        range_ = f"{tested.value:.2f}x [{tested.low:.2f}, {tested.high:.2f}]"
        found.append(f"The speedup is predicted: what was measured, {range_}, agrees with it and is less sure.")
    elif not is_measured:
        found.append("The speedup is predicted, and was not put to the test.")
    found += [f"Not measured: {what}." for what in evidence.skipped]
    return tuple(found)
