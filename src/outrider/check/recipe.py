"""The verdict as a recipe: what a person reads, and `run`, `bench` and `export` take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outrider.check.stand import SUFFIX
from outrider.check.verdict import Verdict
from outrider.demo import bundled_pair
from outrider.model.checkpoint import resolve_checkpoint
from outrider.model.weights import fingerprint
from outrider.recipe import (
    BUNDLED,
    Limits,
    MadeBy,
    Measured,
    MeasuredConcurrency,
    MeasuredTemperature,
    PolicyChoice,
    Recipe,
    RecipeDraft,
    TargetModel,
    Verification,
)

MAX_PRICED_ROWS = 9


def recipe_of(
    document: Mapping[str, Any], verdict: Verdict, target: str | Path, drafts: Sequence[str | Path]
) -> Recipe | None:
    """What the verdict comes to; None where there is none to write down."""
    if verdict.decision == "no conclusion" or verdict.drafter is None:
        return None
    speculates = verdict.decision == "speculate"
    return Recipe(
        target=TargetModel(name=_name(target, "target"), sha256=fingerprint(resolve_checkpoint(target))),
        drafts=tuple(_drafts(verdict.drafter, drafts)) if speculates else (),
        policy=PolicyChoice(
            speculate=speculates,
            depth=verdict.depth if speculates else "auto",
            off_above=verdict.off_above,
            max_temperature=verdict.max_temperature if speculates else None,
        ),
        verification=Verification(exactness=document["engine"]["exactness"]),
        limits=Limits(memory_bytes=next((row["limit"] for row in document["memory"]), None)),
        measured=_measured(document, verdict),
        made_by=_made_by(document["provenance"]),
    )


def _name(model: str | Path, role: str) -> str:
    is_bundled = resolve_checkpoint(model).resolve() == getattr(bundled_pair(), role).resolve()
    return BUNDLED if is_bundled else str(model)


def _drafts(drafter: str, drafts: Sequence[str | Path]) -> list[RecipeDraft]:
    """Cheapest first, as a cascade wants them."""
    names = drafter.split(" + ")
    found = [RecipeDraft(kind="suffix")] if SUFFIX in names else []
    for draft in drafts:
        folder = resolve_checkpoint(draft)
        if folder.name in names:
            found.append(RecipeDraft(kind="model", name=_name(draft, "draft"), sha256=fingerprint(folder)))
    return found


def _measured(document: Mapping[str, Any], verdict: Verdict) -> Measured | None:
    """At the first temperature (to speculate at), of the drafter's prediction with the fewest texts at once."""
    least = min(row["num_sequences"] for row in document["predictions"])
    same = [
        row
        for row in document["predictions"]
        if (row["drafter"], row["num_sequences"]) == (verdict.drafter, least)
        and (verdict.depth in ("auto", row["depth"]))
    ]
    if not same:
        return None
    temperature = (verdict.only_at or document["plan"]["temperatures"])[0]
    best = max(
        (row for row in same if row["temperature"] == temperature),
        key=lambda row: row["speedup"]["value"],
        default=None,
    )
    if best is None or verdict.speedup is None:
        return None
    agreement = next(
        row
        for row in document["agreement"]
        if (row["drafter"], row["temperature"], row["group"]) == (verdict.drafter, temperature, "all")
    )
    interval = verdict.speedup[1:] if math.isfinite(verdict.speedup.high) else None
    is_greedy = temperature == 0
    return Measured(
        temperature=float(temperature),
        agreement=best["agreement"],
        greedy_agreement=best["agreement"] if is_greedy else None,
        overlap=agreement["overlap"],
        survival=tuple(best["survival"]),
        cost_ratio=next(
            (
                row["cost_ratio"]
                for row in document["costs"]
                if (row["is_greedy"], row["num_sequences"]) == (is_greedy, least)
            ),
            None,
        ),
        forward_costs=_forward_costs(document["verify_cost"]),
        speedup=verdict.speedup.value,
        speedup_interval=interval,
        num_prompts=best["num_prompts"],
        temperatures=_temperatures(verdict),
        concurrency=tuple(
            MeasuredConcurrency(num_sequences=row["num_sequences"], speedup=row["speedup"]["value"], depth=row["depth"])
            for row in _concurrency(document, verdict)
        ),
    )


def _concurrency(document: Mapping[str, Any], verdict: Verdict) -> list[Mapping[str, Any]]:
    """Over all temperatures, or at the first to speculate at."""
    if not verdict.only_at:
        return document["concurrency"]
    return [row for row in document["concurrency_by_temperature"] if row["temperature"] == verdict.only_at[0]]


def _temperatures(verdict: Verdict) -> tuple[MeasuredTemperature, ...]:
    """Each by itself, where there are several."""
    parts = verdict.by_temperature if len(verdict.by_temperature) > 1 else ()
    return tuple(
        MeasuredTemperature(
            temperature=float(each.temperature),
            speedup=each.speedup.value,
            speedup_interval=each.speedup[1:] if math.isfinite(each.speedup.high) else None,
            off_above=each.off_above,
        )
        for each in parts
    )


def _forward_costs(curves: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """Over 2 to 9 rows at the shortest context, over those of a plain step; between two that were timed, in between."""
    if not curves:
        return ()
    points = [(rows, seconds / curves[0]["points"][0][1]) for rows, seconds in curves[0]["points"]]
    costs: list[float] = []
    for wanted in range(2, MAX_PRICED_ROWS + 1):
        (left, low), (right, high) = next(
            pair for pair in itertools.pairwise(points) if pair[0][0] < wanted <= pair[1][0]
        )
        costs.append(low + (high - low) * (wanted - left) / (right - left))
    return tuple(costs)


def _made_by(provenance: Mapping[str, Any]) -> MadeBy:
    versions = {name: str(version) for name, version in provenance["versions"].items()}
    return MadeBy(
        outrider=versions.pop("outrider"), date=provenance["time"], command=provenance["command"], versions=versions
    )
