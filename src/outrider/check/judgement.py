"""Does this draft pay? Every drafter is judged by itself: what it brings over the best choice without it.

What a draft model has to beat is plain decoding and looking guesses up, neither of which needs a second model. A
cascade that pays although its draft does not, pays without it as well. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from outrider.check.agreement import estimate
from outrider.check.item import Item
from outrider.check.known import Row, gain_measured, outweighed
from outrider.check.prediction import WORTH, Choice, choices_of, geometric_mean, words
from outrider.check.stand import SUFFIX
from outrider.predict.interval import Estimate
from outrider.predict.prediction import Forecast, compare

Conclusion = Literal["pays", "does not pay", "undecided"]


class Judgement(NamedTuple):
    """Of one draft model, or of the suffix automaton.

    Attributes:
        name: of the draft.
        conclusion: over all temperatures, or "pays" where it does at one of them.
        agreement, break_even: of the draft alone, at its best depth; break-even is None where no agreement would do.
        alone: speedup of the draft alone over plain decoding, at its best depth.
        best: the best that was predicted with it.
        rival: the best without it; None is plain decoding.
        speedup: of the best, over plain decoding.
        gain: of the best, over the rival.
        is_measured: whether the gain was measured.
        pays_at: temperatures at which it pays by itself, if there are several.
    """

    name: str
    conclusion: Conclusion
    agreement: float
    break_even: float | None
    alone: Estimate
    best: Choice
    rival: Choice | None
    speedup: Estimate
    gain: Estimate
    is_measured: bool
    pays_at: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._asdict()
        for name in ("best", "rival"):
            values[name] = _setting(values[name])
        return values | {name: estimate(values[name]) for name in ("alone", "speedup", "gain")}


def _setting(choice: Choice | None) -> dict[str, Any] | None:
    return None if choice is None else {"drafter": choice.drafter, "depth": choice.depth}


def members(drafter: str) -> list[str]:
    """Of a cascade, or the drafter itself."""
    return drafter.split(" + ")


def judge(predictions: Sequence[Forecast], measured: Sequence[Row]) -> tuple[Judgement, ...]:
    """All draft models, then the suffix automaton, which has to beat those that pay."""
    names = list(dict.fromkeys(name for each in predictions for name in members(each.drafter)))
    models = [name for name in names if name != SUFFIX]
    found = [_judge(name, predictions, measured, {SUFFIX}) for name in models]
    if SUFFIX in names:
        paying = {each.name for each in found if each is not None and each.conclusion == "pays"}
        found.append(_judge(SUFFIX, predictions, measured, paying))
    return tuple(each for each in found if each is not None)


def _judge(
    name: str, predictions: Sequence[Forecast], measured: Sequence[Row], others: Collection[str]
) -> Judgement | None:
    """Over all temperatures, and where that is none, at each."""
    whole = _judge_at(name, predictions, measured, others)
    temperatures = list(dict.fromkeys(each.temperature for each in predictions))
    if whole is None or len(temperatures) < 2:
        return whole
    parts = (
        _judge_at(name, [each for each in predictions if each.temperature == temperature], measured, others)
        for temperature in temperatures
    )
    pays_at = tuple(
        temperature
        for temperature, each in zip(temperatures, parts, strict=True)
        if each is not None and each.conclusion == "pays"
    )
    return whole._replace(conclusion="pays" if pays_at else whole.conclusion, pays_at=pays_at)


def _judge_at(
    name: str, predictions: Sequence[Forecast], measured: Sequence[Row], others: Collection[str]
) -> Judgement | None:
    choices = choices_of(predictions)
    with_it = [
        each for each in choices if name in members(each.drafter) and {*members(each.drafter)} <= {name, *others}
    ]
    alone = max((each for each in with_it if each.drafter == name), key=_value, default=None)
    if alone is None:
        return None
    without = [each for each in choices if name not in members(each.drafter) and {*members(each.drafter)} <= {*others}]
    best, rival = max(with_it, key=_value), max(without, key=_value, default=None)
    if rival is not None and rival.speedup.value <= 1:
        rival = None
    temperatures = {each.temperature for each in best.at}
    gain, is_measured = outweighed(gain_measured(measured, best, rival, temperatures), _gain(best, rival))
    speedup, _ = outweighed(gain_measured(measured, best, None, temperatures), best.speedup)
    prices = [each.break_even for each in alone.at]
    # A depth that nobody would choose may still be open: then it is open for the draft.
    most = gain.high if is_measured else max(_gain(each, rival).high for each in with_it)
    return Judgement(
        name=name,
        conclusion=_conclusion(gain, speedup, most),
        agreement=min(each.agreement for each in alone.at),
        break_even=None if None in prices else max(price for price in prices if price is not None),
        alone=alone.speedup,
        best=best,
        rival=rival,
        speedup=speedup,
        gain=gain,
        is_measured=is_measured,
    )


def _value(choice: Choice) -> float:
    return choice.speedup.value


def _gain(choice: Choice, rival: Choice | None) -> Estimate:
    """Predicted: of the same texts at the same temperatures."""
    if rival is None:
        return choice.speedup
    return geometric_mean([compare(*pair) for pair in zip(choice.at, rival.at, strict=True)])


def _conclusion(gain: Estimate, speedup: Estimate, most: float) -> Conclusion:
    """It pays where both its gain and its speedup surely do, and does not where no depth may bring what is worth it."""
    if most < WORTH or speedup.high < WORTH:
        return "does not pay"
    both = (gain, speedup)
    is_sure = all(each.low > 1 and each.value >= WORTH and math.isfinite(each.high) for each in both)
    return "pays" if is_sure else "undecided"


def over_words(judgement: Judgement) -> str:
    """Over what its gain is."""
    return "plain decoding" if judgement.rival is None else judgement.rival.drafter


def price_words(judgement: Judgement) -> str:
    """Agreement beside break-even."""
    price = judgement.break_even
    against = "no agreement would pay" if price is None else f"break-even is {100 * price:.0f} %"
    return f"it agrees on {100 * judgement.agreement:.0f} %, {against}"


def drafts_item(judgements: Sequence[Judgement]) -> Item:
    """Each draft with its conclusion, and what it rests on."""
    parts: list[str] = []
    for each in judgements:
        how = "measured" if each.is_measured else "predicted"
        at = f" at T = {', '.join(f'{temperature:g}' for temperature in each.pays_at)}" if each.pays_at else ""
        over_plain = "" if each.rival is None else f", {words(each.speedup)} over plain decoding"
        parts.append(
            f"{each.name} {'is undecided' if each.conclusion == 'undecided' else each.conclusion}{at}: "
            f"{price_words(each)}, and at best ({each.best.drafter}, depth {each.best.depth}) it brings "
            f"{words(each.gain)} over {over_words(each)}{over_plain} ({how})"
        )
    models = [each for each in judgements if each.name != SUFFIX] or judgements
    do_not = [each.name for each in models if each.conclusion != "pays"]
    return Item(
        name="drafts",
        status="pass" if models and not do_not else "warn",
        value="; ".join(parts) or "none could be judged",
        threshold=f"{WORTH}x what is best without it, surely more than 1x",
        why="a draft that brings nothing over looking guesses up, or over plain decoding, takes memory for nothing",
        remedy=f"leave {' and '.join(do_not)} out" if do_not else "",
    )
