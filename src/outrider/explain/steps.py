"""What a mean decoding step gave and took, and which of its losses is dearest. Knows numbers only.

    speedup = tokens a step * seconds of a plain step / seconds of a step

So drafting pays if and only if a step gives more tokens than it takes plain steps: that is the break-even here, which
supposes nothing of how guesses depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

PAYS = 1.05
STAGES = {
    "draft": "drafting",
    "target": "the target's forwards, which verify",
    "sample": "choosing tokens and comparing guesses with them",
    "policy": "deciding how much to draft",
    "other": "all else on the host",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanStep:
    """The mean of many steps.

    Attributes:
        tokens: emitted a step.
        drafted: guesses a step.
        seconds: by stage.
        plain: seconds of a plain step, by stage.
    """

    tokens: float
    drafted: float
    seconds: Mapping[str, float]
    plain: Mapping[str, float]

    @property
    def price(self) -> float:
        """How many plain steps one takes."""
        return math.fsum(self.seconds.values()) / math.fsum(self.plain.values())

    @property
    def speedup(self) -> float:
        return self.tokens / self.price

    @property
    def rejected(self) -> float:
        """Guesses a step that were made for nothing."""
        return max(self.drafted - (self.tokens - 1), 0.0)


def levers(step: MeanStep) -> dict[str, float]:
    """The speedup if one loss were half of what it is, and all else the same."""
    plain = math.fsum(step.plain.values())
    draft, target = step.seconds["draft"], step.seconds["target"]
    beyond = max(target - step.plain["target"], 0.0)
    host = math.fsum(seconds for stage, seconds in step.seconds.items() if stage not in ("draft", "target"))
    total = math.fsum(step.seconds.values())
    return {
        "guesses": (step.tokens + step.rejected / 2) * plain / total,
        "drafting": step.tokens * plain / (total - draft / 2),
        "rows": step.tokens * plain / (total - beyond / 2),
        "host": step.tokens * plain / (total - host / 2),
    }


_WORDS = {
    "guesses": (
        "a drafter that agrees more often, such as one trained on the target's own texts",
        "if half of the rejected guesses had been right",
    ),
    "drafting": (
        "a drafter that costs less, such as one with fewer layers, or suffix",
        "with half the time in drafting",
    ),
    "rows": (
        "rows that cost less, such as shorter drafts, or a machine or dtype on which more rows take no longer",
        "if forwards over guesses had cost half of what they took beyond a plain one",
    ),
    "host": ("a less busy host, such as fewer threads of other programs", "with half the time outside the models"),
}


def advice_of(step: MeanStep) -> str:
    """The change that promises most, with what it would come to."""
    found = levers(step)
    best = max(found, key=lambda name: found[name])
    change, condition = _WORDS[best]
    if step.speedup < PAYS and found[best] < PAYS:
        gained = f"{condition} it would be {found[best]:.2f}x"
        return f"Do not draft here: {gained}, and no other loss, halved, would bring more."
    return f"What promises most is {change}: {condition} it would be {found[best]:.2f}x instead of {step.speedup:.2f}x."


def price_words(step: MeanStep) -> str:
    """Tokens a step against break-even."""
    verdict = "more than" if step.tokens > step.price else "less than"
    return (
        f"a step took as long as {step.price:.2f} plain steps and gave {step.tokens:.2f} tokens, {verdict} the "
        f"{step.price:.2f} that break even"
    )


def stage_words(seconds: Mapping[str, float]) -> str:
    """Shares of the whole, the largest first."""
    total = math.fsum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{100 * each / total:.0f} % in {STAGES.get(stage, stage)}" for stage, each in ordered if each > 0)
