"""How fast a static depth would be under another rule of verification, from what a recipe measured.

A chain of depth k earns 1 + survival[1] + ... + survival[k] tokens for k draft steps and one forward over k + 1 rows.
Survival was measured under the recipe's own rule. Another rule keeps another part of first guesses; the misses of each
depth, given that it was reached, are scaled as those of the first guess are. That is an approximation, good where the
rules keep nearly the same.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from outrider.recipe import Measured

Keeps = Literal["rejection", "greedy", "match"]
"""What a rule keeps of one guess: `rejection` keeps the overlap; `greedy` takes the drafter's likeliest token and keeps
it with the target's probability; `match` is for guesses that no rule treats otherwise, such as those of a suffix."""


class Prediction(NamedTuple):
    """A point estimate: it has no interval, because the costs are those of another engine.

    Attributes:
        acceptance: of first guesses, under the engine's rule.
        acceptance_length: tokens a forward of the target.
        speedup: None if the cost ratio was not measured.
    """

    acceptance: float
    acceptance_length: float
    speedup: float | None

    def __str__(self) -> str:
        facts = [f"{self.acceptance:.0%} of first guesses kept", f"{self.acceptance_length:.2f} tokens a forward"]
        return ", ".join(facts + ([] if self.speedup is None else [f"{self.speedup:.2f}x"]))


def predict(measured: Measured | None, keeps: Keeps, depth: int) -> Prediction | None:
    """At this depth; None if the rule's acceptance was not measured."""
    acceptance = None if measured is None else acceptance_under(measured, keeps)
    if measured is None or acceptance is None:
        return None
    survival = survival_under(measured, acceptance, depth)
    return Prediction(acceptance, 1 + sum(survival), _speedup(measured, survival))


def best_depth(measured: Measured, keeps: Keeps, max_depth: int) -> int | None:
    """The fastest of the depths that were measured, 0 if none pays, None if that cannot be said.

    Where the rule's own acceptance was not measured, the recipe's agreement stands in for it.
    """
    acceptance = acceptance_under(measured, keeps)
    acceptance = _agreement(measured) if acceptance is None else acceptance
    if acceptance is None or measured.cost_ratio is None:
        return None
    for sized in (measured.survival, measured.forward_costs):
        max_depth = min(max_depth, len(sized) or max_depth)
    survival = survival_under(measured, acceptance, max_depth)
    speedups = [1.0, *(_speedup(measured, survival[:depth]) or 0.0 for depth in range(1, max_depth + 1))]
    return speedups.index(max(speedups))


def acceptance_under(measured: Measured, keeps: Keeps) -> float | None:
    """Of first guesses; greedy decoding keeps the same under every rule."""
    if measured.temperature == 0 or keeps == "match":
        return _agreement(measured)
    return measured.overlap if keeps == "rejection" else measured.greedy_agreement


def survival_under(measured: Measured, acceptance: float, depth: int) -> list[float]:
    """Of depth 1 to `depth`; past what was measured, each guess is kept as often as the last one that was."""
    agreement = _agreement(measured)
    agreement = acceptance if agreement is None else agreement
    reached = [1.0, *measured.survival] if measured.survival else [1.0, agreement]
    kept = [min(deeper / before, 1.0) if before > 0 else 0.0 for before, deeper in pairwise(reached)]
    kept += [kept[-1]] * (depth - len(kept))
    scale = (1 - acceptance) / (1 - agreement) if agreement < 1 else None
    scaled = [acceptance if scale is None else max(1 - (1 - each) * scale, 0.0) for each in kept[:depth]]
    return list(accumulate(scaled, lambda before, each: before * each))


def _agreement(measured: Measured) -> float | None:
    if measured.agreement is None and measured.survival:
        return measured.survival[0]
    return measured.agreement


def _speedup(measured: Measured, survival: list[float]) -> float | None:
    if measured.cost_ratio is None:
        return None
    depth = len(survival)
    cost = depth * measured.cost_ratio + _forward_cost(measured.forward_costs, depth)
    return (1 + sum(survival)) / cost


def _forward_cost(costs: tuple[float, ...], depth: int) -> float:
    """Of depth + 1 rows in plain steps; unmeasured, rows are free; past what was measured, it rises as it last did."""
    if len(costs) == 0:
        return 1.0
    if depth <= len(costs):
        return costs[depth - 1]
    slope = max(costs[-1] - (costs[-2] if len(costs) > 1 else 1.0), 0.0)
    return costs[-1] + slope * (depth - len(costs))
