"""Why speculation was faster or slower than plain decoding in a benchmark. Knows the JSON of `outrider bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outrider.explain.drafting import drafting_words
from outrider.explain.steps import PAYS, MeanStep, advice_of, price_words, stage_words
from outrider.explain.story import Story, at_once, kind_of_text, level_words

Row = Mapping[str, Any]
ALL = "all"


def explain_bench(document: Mapping[str, Any]) -> Story:
    """The story of a comparison: each temperature at the fewest texts at once, then what more at once changed."""
    story = Story("bench")
    rows = [row for row in document["rows"] if row["speedup"]]
    if document["is_partial"]:
        story.lacks.append("what was to come after Ctrl-C")
    if not rows:
        story.lacks.append("any speedup: no text was fit to be measured")
        story.advice = "Give other prompts: every text was too short, a loop, or random."
        return story
    least = min(row["concurrency"] for row in rows)
    totals = _totals(rows)
    alone = [row for row in totals if row["concurrency"] == least]
    for row in alone:
        _say_row(story, document, row)
    _say_concurrency(story, totals)
    _say_workloads(story, rows, least)
    _say_exactness(story, document)
    story.advice = _advice(document, alone)
    return story


def mean_step(row: Row) -> MeanStep | None:
    """Of the speculative side, beside the plain one; None where nothing was drafted."""
    plain, speculative = row["plain"], row["speculative"]
    length, rate = speculative["acceptance_length"], speculative["acceptance_rate"]
    if rate is None:
        return None
    return MeanStep(
        tokens=length,
        drafted=(length - 1) / rate if rate else 0.0,
        seconds={stage: each * length for stage, each in speculative["seconds_per_token_by_stage"].items()},
        plain={stage: each * plain["acceptance_length"] for stage, each in plain["seconds_per_token_by_stage"].items()},
    )


def _totals(rows: Sequence[Row]) -> list[Row]:
    """Of all workloads together, or of the only one."""
    return [row for row in rows if row["workload"] == ALL] or [*rows]


def _say_row(story: Story, document: Mapping[str, Any], row: Row) -> None:
    name = f"{kind_of_text(row['temperature'])}, {at_once(row['concurrency'])}"
    speedup = row["speedup"]
    verdict = (
        "faster" if speedup["low"] > 1 else "slower" if speedup["high"] < 1 else "neither surely faster nor slower"
    )
    story.say(
        "speed",
        f"{name}: {speedup['median']:.2f}x [{speedup['low']:.2f}, {speedup['high']:.2f}] over {row['num_prompts']} "
        f"prompts, {verdict} than plain decoding",
    )
    step = mean_step(row)
    if step is None:
        story.say("agreement", f"{name}: nothing was drafted")
    else:
        side = row["speculative"]
        story.say(
            "agreement",
            f"{name}: {100 * side['acceptance_rate']:.0f} % of guesses and {100 * side['agreement']:.0f} % of first "
            f"ones were the target's tokens; {price_words(step)}",
        )
    story.say("time", f"{name}: {stage_words(row['speculative']['seconds_per_token_by_stage'])}")
    texts = [
        each["speculative"]["decisions"]
        for each in document["measurements"]
        if (each["temperature"], each["concurrency"]) == (row["temperature"], row["concurrency"])
    ]
    sentences = list(drafting_words(texts))
    if not sentences:
        depth = document["plan"]["depth"]
        sentences = [f"the depth was fixed at {depth}" if depth != "auto" else "the policy had nothing to decide"]
    for sentence in sentences:
        story.say("drafting", f"{name}: {sentence}")


def _say_concurrency(story: Story, totals: Sequence[Row]) -> None:
    for temperature in dict.fromkeys(row["temperature"] for row in totals):
        same = [row for row in totals if row["temperature"] == temperature]
        if len({row["concurrency"] for row in same}) < 2:
            continue
        list_ = ", ".join(f"{row['speedup']['median']:.2f}x with {row['concurrency']}" for row in same)
        story.say("concurrency", f"{kind_of_text(temperature)}, by texts at once: {list_}")
    if len({row["concurrency"] for row in totals}) < 2:
        story.lacks.append("more than one number of texts at once: --concurrency 1,4,16 measures more")


def _say_workloads(story: Story, rows: Sequence[Row], least: int) -> None:
    parts = [row for row in rows if row["workload"] != ALL and row["concurrency"] == least]
    if len({row["workload"] for row in parts}) < 2:
        return
    best, worst = (pick(parts, key=lambda row: row["speedup"]["median"]) for pick in (max, min))
    words = [
        f"{row['workload']} ({kind_of_text(row['temperature'])}) with {row['speedup']['median']:.2f}x"
        for row in (best, worst)
    ]
    story.say("speed", f"fastest was {words[0]}, slowest {words[1]}")


def _say_exactness(story: Story, document: Mapping[str, Any]) -> None:
    level = document["engine"]["exactness"]
    story.say("exactness", level_words(level))
    num_different, num_all = len(document["differences"]), 2 * len(document["measurements"])
    if level != "distribution":
        story.say(
            "exactness", f"{num_different} of {num_all} texts came out other than plain decoding had written them"
        )


def _advice(document: Mapping[str, Any], alone: Sequence[Row]) -> str:
    """For the temperature that fares worst."""
    if any(difference["was_promised"] for difference in document["differences"]):
        return "Look into the texts that differ before anything else: outrider audit with these models."
    if faults := {each["speculative"]["draft_fault"] for each in document["measurements"]} - {None}:
        return f"Mend the drafter that failed, or leave it out: {min(faults)}."
    worst = min(alone, key=lambda row: row["speedup"]["median"])
    step = mean_step(worst)
    if step is None:
        return "Name a drafter that makes guesses on these texts: outrider check tells which would pay."
    temperature = worst["temperature"]
    where = f" at T = {temperature:g}" if len(alone) > 1 else ""
    advice = advice_of(step)
    if worst["speedup"]["median"] < PAYS and any(row["speedup"]["low"] > PAYS for row in alone):
        pays = ", ".join(f"T = {row['temperature']:g}" for row in alone if row["speedup"]["low"] > PAYS)
        return f"Draft at {pays} and not at T = {temperature:g}, or mend that: {advice[0].lower()}{advice[1:]}"
    return f"Where it is slowest{where}: {advice[0].lower()}{advice[1:]}" if where else advice
