"""A verdict in words: what to do, with how many texts at once, and each draft that is better left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from outrider.check.judgement import Judgement, members, over_words, price_words
from outrider.check.known import Known
from outrider.check.prediction import WORTH, Choice, off_above, words
from outrider.check.stand import SUFFIX
from outrider.predict.interval import Estimate
from outrider.request import Depth

Decision = Literal["speculate", "do not speculate", "undecided", "no conclusion"]
Row = Mapping[str, Any]
WOULD_DECIDE = "more prompts or a larger --budget would decide"


class Step(NamedTuple):
    """What to do next, and why that might be wrong."""

    do: str
    might_be_wrong: str


class AtTemperature(NamedTuple):
    """What the recommended setting comes to at one temperature, as `Verdict` has it for all."""

    temperature: float
    decision: Decision
    speedup: Estimate
    is_measured: bool
    off_above: int | None


class Weighed(NamedTuple):
    """One drafter, and what it comes to.

    Attributes:
        choice: the drafter at its best fixed depth.
        decision: on it alone.
        depth: to draft.
        known: speedup over all temperatures, or over those of `only_at`.
        parts: each temperature by itself.
        only_at: temperatures to speculate at, where it does not pay at the others; else empty.
    """

    choice: Choice
    decision: Decision
    depth: Depth
    known: Known
    parts: tuple[AtTemperature, ...]
    only_at: tuple[float, ...] = ()


class Said(NamedTuple):
    """What there is to say.

    Attributes:
        found: what is recommended, or the best that was found.
        drafts: every drafter by itself.
        load, load_by_temperature: speedup by texts at once, over all temperatures and for each.
        alone: for each temperature what would be chosen if there were no other.
    """

    found: Weighed
    drafts: Sequence[Judgement]
    load: Sequence[Row]
    load_by_temperature: Sequence[Row]
    alone: Sequence[Choice]

    def sentences(self) -> tuple[str, ...]:
        """Two, and one for each draft model that is not to be used and that they do not speak of."""
        used = members(self.found.choice.drafter)
        others = [each for each in self.drafts if each.name not in (*used, SUFFIX) and each.conclusion != "pays"]
        lines = tuple(_leave_out(each) for each in others)
        if self.found.decision == "speculate":
            return (*lines, self._speculate(), self._load())
        first = self._do_not() if self.found.decision == "do not speculate" else self._not_shown()
        return (*first, *lines)

    def _what(self) -> str:
        choice, depth = self.found.choice, self.found.depth
        how = f"auto depth (the best fixed one is {choice.depth})" if depth == "auto" else f"depth {depth}"
        return f"{choice.drafter}, {how}"

    def _speculate(self) -> str:
        """What to do, with the speedup of each temperature; and at which not to."""
        found, only_at = self.found, self.found.only_at
        speedup = f"{words(found.known.speedup)} with {_at_once(found.choice)}"
        said = {each.temperature: f"{words(each.speedup)} at T = {each.temperature:g}" for each in found.parts}
        if only_at:
            where = " and ".join(f"T = {temperature:g}" for temperature in only_at)
            by_itself = f" ({', '.join(said[temperature] for temperature in only_at)})" if len(only_at) > 1 else ""
            others = ", ".join(words_of for temperature, words_of in said.items() if temperature not in only_at)
            return (
                f"Speculate at {where} only, with {self._what()}: {speedup}{by_itself}. "
                f"Leave it off otherwise: it is {others}."
            )
        each = f": {', '.join(said.values())}" if len(said) > 1 else ""
        return f"Speculate with {self._what()}: {speedup}{each}."

    def _load(self) -> str:
        """With how many texts at once it still pays, for each temperature where that differs."""
        only_at = self.found.only_at
        by_temperature = {
            each.temperature: [row for row in self.load_by_temperature if row["temperature"] == each.temperature]
            for each in self.found.parts
            if not only_at or each.temperature in only_at
        }
        if len({off_above(rows) for rows in by_temperature.values()}) == 1:
            rows = next(iter(by_temperature.values())) if only_at else self.load
            return _load_of(rows, self.found.choice)
        return " ".join(
            f"At T = {temperature:g}: {_load_of(rows, self.found.choice).lower()}"
            for temperature, rows in by_temperature.items()
        )

    def _do_not(self) -> tuple[str, str]:
        choice, speedup = self.found.choice, self.found.known.speedup
        prices = [each.break_even for each in choice.at if each.break_even is not None]
        agreement = min(each.agreement for each in choice.at)
        price = (
            f"break-even is {100 * max(prices):.0f} %" if len(prices) == len(choice.at) else "no agreement would pay"
        )
        what = f"{choice.drafter} at depth {choice.depth}, brings {words(speedup)} with {_at_once(choice)}"
        return (
            f"Do not speculate: the best that was found, {what}.",
            f"It agrees on {100 * agreement:.0f} % of the tokens, and {price}.{self._at_one_temperature()}",
        )

    def _at_one_temperature(self) -> str:
        """What is predicted to pay at a temperature by itself, though it was not chosen, and so not tried."""
        choice = self.found.choice
        if len(choice.at) < 2:
            return ""
        no = {each.name for each in self.drafts if each.conclusion == "does not pay"}
        return "".join(
            f" At T = {other.at[0].temperature:g} alone, {other.drafter} at depth {other.depth} is predicted to bring "
            f"{words(other.speedup)}: look at that with --temperature {other.at[0].temperature:g}."
            for other in self.alone
            if (other.drafter, other.depth) != (choice.drafter, choice.depth)
            and other.speedup.value >= WORTH
            and other.speedup.low > 1
            and not no & set(members(other.drafter))
        )

    def _not_shown(self) -> tuple[str, str]:
        choice = self.found.choice
        brings = f"{words(self.found.known.speedup)} with {_at_once(choice)}"
        return (
            f"Not shown to pay: {choice.drafter} at depth {choice.depth} brings {brings}; it may as well be nothing.",
            f"Decode plainly: {WOULD_DECIDE}.",
        )


def _leave_out(judgement: Judgement) -> str:
    """One draft model that is not to be used, and why."""
    name, price = f"Do not speculate with {judgement.name}: ", judgement.break_even
    if judgement.conclusion == "undecided":
        gain = f"it brings {words(judgement.gain)} over {over_words(judgement)}"
        return f"Leave {judgement.name} out for now: {gain}, which may as well be nothing; {WOULD_DECIDE}."
    if price is None or judgement.agreement < price:
        return f"{name}{price_words(judgement)}."
    if judgement.rival is None:
        return f"{name}it brings {words(judgement.speedup)} at best."
    return f"{name}it brings {words(judgement.gain)} of what {over_words(judgement)} brings without it."


def _load_of(rows: Sequence[Row], choice: Choice) -> str:
    if (limit := off_above(rows)) is not None:
        ends = next(row for row in rows if row["num_sequences"] > limit)
        how = "measured" if ends["is_measured"] else "predicted"
        seen = f"{ends['speedup']['value']:.2f}x {how} with {ends['num_sequences']}"
        return f"Turn it off above {limit} {'text' if limit == 1 else 'texts'} at once ({seen})."
    most = rows[-1] if rows else None
    if most is not None and most["num_sequences"] > choice.num_sequences:
        how = "was measured" if most["is_measured"] else "is expected"
        return f"It {how} to be {most['speedup']['value']:.2f}x still with {most['num_sequences']} texts at once."
    return "What it brings with more texts at once was not measured."


def _at_once(choice: Choice) -> str:
    return "one text at a time" if choice.num_sequences == 1 else f"{choice.num_sequences} texts at once"
