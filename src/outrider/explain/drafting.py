"""What a policy decided about drafting in one text or in many, in words. Knows documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from outrider.explain.story import tokens

Decisions = Sequence[Mapping[str, Any]]


def drafting_words(texts: Sequence[Decisions]) -> Iterator[str]:
    """One sentence for each drafter that the policy decided about."""
    sources = dict.fromkeys(decision["source"] for decisions in texts for decision in decisions)
    for source in sources:
        of_source = [[each for each in decisions if each["source"] == source] for decisions in texts]
        of_source = [decisions for decisions in of_source if decisions]
        yield _alone(source, of_source[0]) if len(texts) == 1 else _together(source, of_source, len(texts))


def _alone(source: str, decisions: Decisions) -> str:
    last = decisions[-1]
    begun = next((each for each in decisions if each["depth"]), None)
    if last["depth"]:
        planned = f"{tokens(last['depth'])} a step as planned then"
        verb = f"drafted to the end, from token {last['at_token']} on with {planned}"
    elif begun is None:
        verb = f"was never used, as decided at token {last['at_token']}"
    else:
        verb = f"drafted from token {begun['at_token']}, and was stopped at token {last['at_token']}"
    return f"{source} {verb}: {_against(last['agreement'], [last['break_even']])}"


def _together(source: str, texts: Sequence[Decisions], num_texts: int) -> str:
    lasts = [decisions[-1] for decisions in texts]
    stopped = [each for each in lasts if not each["depth"]]
    drafted = sum(any(each["depth"] for each in decisions) for decisions in texts)
    words = f"{source} drafted in {drafted} of {num_texts} texts"
    if not stopped:
        return f"{words}, to the end of each"
    places = sorted(each["at_token"] for each in stopped)
    middle = places[len(places) // 2]
    why = _against(fmean(each["agreement"] for each in stopped), [each["break_even"] for each in stopped])
    return (
        f"{words} and did not, or no more, at the end of {len(stopped)}, decided at token {middle} in the middle: {why}"
    )


def _against(agreement: float, prices: Sequence[float | None]) -> str:
    known = [price for price in prices if price is not None]
    if not known:
        return f"its agreement was held to be {agreement:.2f}, and none would have paid"
    return f"its agreement was held to be {agreement:.2f}, against a break-even of {fmean(known):.2f}"
