"""What a drafter would have done on a text that is known: guesses at every root, and the steps that follow from them.

Under coupled verification neither the text nor a guess depends on what was drafted before, so the steps of a fixed
depth can be counted without making any. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from outrider.recipe import Rule

MAX_TRACED_DEPTH = 8


class Way(NamedTuple):
    """How drafts branch, and by what rule they are kept."""

    max_children: int = 1
    rule: Rule = "coupled"


CHAINS = Way()


class Root(NamedTuple):
    """What a drafter would propose after one token of a text, if it went as deep as is traced.

    Attributes:
        num_drafted: guesses; fewer than the depth allowed where the drafter has no more.
        num_accepted: of them, those before the first that is not the target's token.
        is_modelled: whether a draft model made them, one draft step each; a suffix automaton takes none.
    """

    num_drafted: int
    num_accepted: int
    is_modelled: bool


class Offer(NamedTuple):
    """A draft model's best guesses at one place of a text, all tokens before it being the target's own.

    Attributes:
        scores: of the guesses, the best first, as trees are grown by.
        rank: of the target's token among them; None: it is not there.
    """

    scores: tuple[float, ...]
    rank: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One text and one drafter.

    Attributes:
        prompt: name of the prompt.
        category: of the prompt.
        temperature: at which the text was written.
        num_prompt_tokens: of the prompt.
        roots: one for each token of the text: what is drafted when that token comes next.
        overlap: mean over the tokens of the sum of the smaller probabilities; None where there are none to compare.
        look_up_seconds: that each step spends on guesses that no model makes.
        offers: of the draft model at each token, if there is one, up to the end of its context.
        odds: of each token, the logarithm of the draft model's probability over the target's; empty where they were not
            compared.
    """

    prompt: str
    category: str
    temperature: float
    num_prompt_tokens: int
    roots: tuple[Root, ...]
    overlap: float | None = None
    look_up_seconds: float = 0.0
    offers: tuple[Offer, ...] = ()
    odds: tuple[float, ...] = ()

    @property
    def num_agreed(self) -> int:
        """Tokens that would have been guessed right at once."""
        return sum(root.num_accepted > 0 for root in self.roots)


class Step(NamedTuple):
    """What one step of one text drafted, and whether a draft model made it."""

    num_drafted: int
    is_modelled: bool


@dataclass(slots=True)
class Walk:
    """The decoding steps of one text at one depth.

    Attributes:
        num_emitted: tokens of the text.
        accepted_at: steps that accepted a guess at depth d + 1.
        steps: one after the other.
    """

    num_emitted: int = 0
    accepted_at: list[int] = field(default_factory=list[int])
    steps: list[Step] = field(default_factory=list[Step])

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @property
    def survival(self) -> list[float]:
        """For each depth the share of all steps whose guess there was accepted: tokens a step are 1 and their sum."""
        return [count / self.num_steps for count in self.accepted_at]

    @property
    def asks_model(self) -> bool:
        """Whether a draft model is asked at all."""
        return any(step.is_modelled and step.num_drafted for step in self.steps)


def walk(trace: Trace, depth: int, keeps: Callable[[int, int], int] | None = None) -> Walk:
    """The steps that an engine takes for this text at a fixed depth: from each root to the one after the next token.

    An engine may have the first token with the prompt, and begin one place later, which moves shares little.

    The next root lies behind the first wrong guess, so hard places are met more often than an average over all
    positions would have it; and never is more drafted than the text has left.

    Args:
        trace: of the text.
        depth: guesses a step, or nodes of a tree.
        keeps: how many tokens a step keeps that begins at such a place and has so many guesses of a model; None: those
            before the first wrong one of a chain.
    """
    assert 0 <= depth <= MAX_TRACED_DEPTH
    found = Walk(num_emitted=len(trace.roots), accepted_at=[0] * depth)
    place = 0
    while place < len(trace.roots):
        root = trace.roots[place]
        drafted = min(depth, root.num_drafted, len(trace.roots) - place - 1)
        accepted = min(drafted, root.num_accepted)
        if keeps is not None and root.is_modelled:
            accepted = keeps(place, drafted)
        for index in range(accepted):
            found.accepted_at[index] += 1
        found.steps.append(Step(drafted, root.is_modelled))
        place += accepted + 1
    return found


def survival_of(walks: Sequence[Walk]) -> list[float]:
    """Of several texts together, weighted by their steps."""
    num_steps = sum(each.num_steps for each in walks)
    totals = map(sum, zip_longest(*(each.accepted_at for each in walks), fillvalue=0))
    return [total / num_steps for total in totals] if num_steps else []


def runs_of(matches: Sequence[bool], max_depth: int) -> list[int]:
    """For each place, how many matches in a row begin there, counted up to `max_depth`."""
    runs = [0] * len(matches)
    length = 0
    for place in reversed(range(len(matches))):
        length = min(length + 1, max_depth) if matches[place] else 0
        runs[place] = length
    return runs
