"""Trees of guesses, and chains under block verification: what they would bring beside the chains that are recommended.

They are predicted and not put to the test: a verdict names them as a next step, and says how to measure them.
Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from outrider.check.agreement import estimate
from outrider.check.prediction import WORTH, as_dict, words
from outrider.check.sentences import Step
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast, compare

MEASURE = "edit recipe.toml and run outrider bench --recipe recipe.toml"
# What is not predicted of them; it stands in the document as it is here.
NOT_PREDICTED = (
    {
        "what": "trees under block verification",
        "why": "what is kept of siblings follows from the whole distributions along every branch, and only those along "
        "the text are measured",
        "measure": f'max_children = 2 under [policy] and rule = "block" under [verification]: {MEASURE}',
    },
    {
        "what": "trees under depth auto",
        "why": "which guesses get siblings is decided step by step, by what was learned until then",
        "measure": f'max_children = 2 and depth = "auto" under [policy]: {MEASURE}',
    },
    {
        "what": "trees and block verification with more texts at once than the fewest that were asked for",
        "why": "their steps are timed with as many only",
        "measure": f"{MEASURE} --concurrency 1,4,8",
    },
)
NO_MODEL = {
    "what": "trees and block verification",
    "why": "the suffix automaton makes no trees, and of what nobody drew block verification keeps what it keeps anyway",
    "measure": "name a draft model with --draft",
}


def not_predicted(*, has_model: bool) -> Sequence[dict[str, str]]:
    """What, why not, and how to measure it."""
    return NOT_PREDICTED if has_model else (NO_MODEL,)


def lacks_in_words(*, has_model: bool) -> str:
    """The same in short, for the item."""
    what = ", ".join(each["what"] for each in not_predicted(has_model=has_model))
    return f"not predicted: {what} (check.json says why, and how to measure it)"


class OtherWay(NamedTuple):
    """A setting of another way.

    Attributes:
        forecast: of it.
        chain: the best that is predicted of chains of guesses, with the same drafter at the same temperature.
        gain: of the first over the second.
    """

    forecast: Forecast
    chain: Forecast
    gain: Estimate

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        over = {"depth": self.chain.depth, "gain": estimate(self.gain)}
        return {**as_dict(self.forecast), **self.forecast.way._asdict(), "over_chains": over}


def beside_chains(others: Sequence[Forecast], predictions: Sequence[Forecast]) -> list[OtherWay]:
    """Each beside the best chains of its drafter at its temperature, if there are any."""
    found: list[OtherWay] = []
    for other in others:
        setting = (other.drafter, other.temperature, other.num_sequences)
        chains = [each for each in predictions if (each.drafter, each.temperature, each.num_sequences) == setting]
        if chains:
            chain = max(chains, key=_value)
            found.append(OtherWay(other, chain, compare(other, chain)))
    return found


def _value(forecast: Forecast) -> float:
    return forecast.speedup.value


def best_of(others: Sequence[OtherWay]) -> list[OtherWay]:
    """The fastest of each way at each temperature, whichever its drafter."""
    groups: dict[tuple[Any, float], list[OtherWay]] = {}
    for each in others:
        groups.setdefault((each.forecast.way, each.forecast.temperature), []).append(each)
    return [max(part, key=lambda each: each.forecast.speedup.value) for part in groups.values()]


def in_words(other: OtherWay) -> str:
    """With agreement, or what stands for it, beside break-even."""
    found, is_block = other.forecast, other.forecast.way.rule == "block"
    price = "none" if found.break_even is None else f"{100 * found.break_even:.0f} %"
    share = f"{'keeps' if is_block else 'agrees on'} {100 * found.agreement:.0f} % of first guesses"
    return (
        f"{found.drafter}, {_what(found)}, at T = {found.temperature:g}: {words(found.speedup)}, "
        f"{words(other.gain)} of chains at depth {other.chain.depth}, {share}, break-even {price}"
    )


def _what(found: Forecast) -> str:
    if found.way.rule == "block":
        return f"block verification at depth {found.depth}"
    return f"trees of {found.depth} nodes with up to {found.way.max_children} guesses at a place"


def next_step(others: Sequence[OtherWay], drafter: str) -> Step | None:
    """What is worth measuring, of ways that are surely faster than chains of the same drafter; None if none is."""
    sure = [
        each for each in others if each.forecast.drafter == drafter and each.gain.low > 1 and each.gain.value >= WORTH
    ]
    if not sure:
        return None
    best = max(sure, key=lambda each: each.gain.value)
    found = best.forecast
    if found.way.rule == "block":
        change = f'rule = "block" under [verification] and depth = {found.depth} under [policy]'
        doubt = "A seed gives another text then, of the same distribution, and the gain was not put to the test."
    else:
        change = f"max_children = {found.way.max_children} and depth = {found.depth} under [policy]"
        doubt = "What the draft offers after wrong guesses is borrowed from other places, and was not put to the test."
    return Step(
        f"Measure {_what(found)}, which is predicted to bring {words(best.gain)} of what chains bring at "
        f"T = {found.temperature:g}: set {change} of recipe.toml, and run `outrider bench --recipe recipe.toml "
        f"--temperature {found.temperature:g}`.",
        doubt,
    )
