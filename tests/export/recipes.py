"""Recipes to hand over."""

from __future__ import annotations

from typing import Any

from outrider.recipe import Limits, Measured, MeasuredConcurrency, PolicyChoice, Recipe, RecipeDraft, TargetModel

MODEL = RecipeDraft(kind="model", name="org/draft", sha256="b" * 64, revision="r2", dtype="bfloat16")
SUFFIX = RecipeDraft(kind="suffix")
MEASURED: dict[str, Any] = {
    "temperature": 1.0,
    "agreement": 0.8,
    "greedy_agreement": 0.7,
    "overlap": 0.85,
    "survival": (0.8, 0.6, 0.42, 0.25),
    "cost_ratio": 0.1,
    "machine": "a machine",
}
CONCURRENCY = (
    MeasuredConcurrency(num_sequences=1, speedup=2.3),
    MeasuredConcurrency(num_sequences=8, speedup=1.4, depth=2),
    MeasuredConcurrency(num_sequences=16, speedup=0.9),
)


def make_recipe(*drafts: RecipeDraft, measured: dict[str, Any] | None = MEASURED, **policy: Any) -> Recipe:
    """With these drafts, and MEASURED unless told otherwise."""
    return Recipe(
        target=TargetModel(name="org/target", sha256="a" * 64, revision="r1", dtype="bfloat16"),
        drafts=drafts or (MODEL,),
        policy=PolicyChoice(**{"speculate": True, "max_depth": 4, **policy}),
        limits=Limits(memory_bytes=1000, max_sequences=32),
        measured=None if measured is None else Measured(**measured),
    )
