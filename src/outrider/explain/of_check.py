"""Why speculation pays with a pair or does not. Knows the check.json of `outrider check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outrider.explain.steps import MeanStep, advice_of, price_words, stage_words
from outrider.explain.story import Story, at_once, kind_of_text, level_words

Row = Mapping[str, Any]
STAGES = {"draft": "drafting", "target": "the target's forwards, which verify", "other": "all else"}


def explain_check(document: Mapping[str, Any]) -> Story:
    """The story of a checklist: the verdict, then each temperature with the fewest texts at once."""
    story = Story("check")
    verdict = document["verdict"]
    if document["is_partial"]:
        story.lacks.append("what was to come after Ctrl-C")
    story.lacks += document["not_measured"]
    for sentence in verdict["sentences"]:
        story.say("speed", sentence.rstrip("."))
    chosen = _chosen(document)
    for row in chosen:
        _say_prediction(story, document, row)
    _say_other_ways(story, document)
    _say_load(story, document)
    story.say("exactness", level_words(document["engine"].get("exactness", "")))
    for item in document["items"]:
        if item["name"] == "lossless":
            story.say("exactness", f"{item['value']}, of those that were written again")
    story.advice = _advice(document, chosen)
    return story


def mean_step(row: Row) -> MeanStep:
    """As predicted; a guess that was never made counts as rejected."""
    plain = row["plain_seconds"]
    other = min(row["seconds"]["other"], plain)
    return MeanStep(
        tokens=row["tokens_per_step"],
        drafted=row["depth"],
        seconds=row["seconds"],
        plain={"target": plain - other, "other": other},
    )


def _chosen(document: Mapping[str, Any]) -> list[Row]:
    """The predictions that the verdict rests on: at the fewest texts at once, one for each temperature.

    Of the verdict's drafter at its depth, or at the best depth where it is auto.
    """
    predictions: Sequence[Row] = document["predictions"]
    if not predictions:
        return []
    verdict = document["verdict"]
    least = min(row["num_sequences"] for row in predictions)
    same = [row for row in predictions if (row["drafter"], row["num_sequences"]) == (verdict["drafter"], least)]
    found: list[Row] = []
    for temperature in dict.fromkeys(row["temperature"] for row in same):
        part = [row for row in same if row["temperature"] == temperature and verdict["depth"] in ("auto", row["depth"])]
        if part:
            found.append(max(part, key=lambda row: row["speedup"]["value"]))
    return found


def _say_prediction(story: Story, document: Mapping[str, Any], row: Row) -> None:
    name = f"{kind_of_text(row['temperature'])}, {at_once(row['num_sequences'])}"
    measured = [
        each
        for each in document["measured"]
        if (each["temperature"], each["num_sequences"]) == (row["temperature"], row["num_sequences"])
    ]
    for each in measured:
        story.say(
            "speed",
            f"{name}: {each['setting']} ({each['drafter']}, depth {each['depth']}) was measured at {_speedup(each)}",
        )
    if not measured:
        story.say(
            "speed", f"{name}: {_speedup(row)} is predicted for depth {row['depth']}, and was not put to the test"
        )
    price = row["break_even"]
    against = "no agreement would pay" if price is None else f"break-even is {100 * price:.0f} %"
    story.say(
        "agreement",
        f"{name}: {row['drafter']} agrees on {100 * row['agreement']:.0f} % of the tokens, and {against} at depth "
        f"{row['depth']}; as predicted, {price_words(mean_step(row))}",
    )
    seconds: dict[str, float] = {STAGES[stage]: each for stage, each in row["seconds"].items()}
    story.say("time", f"{name}, as predicted: {stage_words(seconds)}")


def _say_other_ways(story: Story, document: Mapping[str, Any]) -> None:
    """The fastest of trees and of block verification at each temperature; older results have none."""
    best: dict[tuple[float, str], Row] = {}
    for row in document.get("other_ways", []):
        key = row["temperature"], row["rule"]
        if key not in best or row["speedup"]["value"] > best[key]["speedup"]["value"]:
            best[key] = row
    for (temperature, rule), row in best.items():
        what = f"block verification at depth {row['depth']}" if rule == "block" else f"trees of {row['depth']} nodes"
        over = _interval(row["over_chains"]["gain"])
        story.say(
            "drafting",
            f"{kind_of_text(temperature)}, {row['drafter']}, {what}: {_speedup(row)} is predicted, which is "
            f"{over} of what chains at depth {row['over_chains']['depth']} bring",
        )


def _speedup(row: Row) -> str:
    return _interval(row["speedup"])


def _interval(found: Mapping[str, Any]) -> str:
    value, low, high = (found[name] for name in ("value", "low", "high"))
    return f"{value:.2f}x" + (" [no interval]" if high is None else f" [{low:.2f}, {high:.2f}]")


def _say_load(story: Story, document: Mapping[str, Any]) -> None:
    rows: Sequence[Row] = document["concurrency"]
    if len(rows) < 2:
        story.lacks.append("more than one number of texts at once: --concurrency 1,4,16 measures more")
        return
    list_ = ", ".join(
        f"{row['speedup']['value']:.2f}x with {row['num_sequences']} "
        f"({'measured' if row.get('is_measured') else 'predicted'})"
        for row in rows
    )
    limit = document["verdict"]["off_above"]
    end = "" if limit is None else f"; it does not pay above {limit}"
    story.say("concurrency", f"by texts at once, over all temperatures: {list_}{end}")


def _advice(document: Mapping[str, Any], chosen: Sequence[Row]) -> str:
    failed = [item for item in document["items"] if item["status"] == "fail" and item["remedy"]]
    if failed:
        return f"{failed[0]['name']} failed: {failed[0]['remedy']}."
    if not chosen:
        return document["verdict"]["next_steps"][0]["do"]
    worst = min(chosen, key=lambda row: row["speedup"]["value"])
    advice = advice_of(mean_step(worst))
    return f"At T = {worst['temperature']:g}: {advice[0].lower()}{advice[1:]}" if len(chosen) > 1 else advice
