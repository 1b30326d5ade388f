"""Pairs whose truth is known: guesses right with a chance of the prompt's own, seconds with noise of their round."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from outrider.predict.costs import Timing
from outrider.predict.trace import MAX_TRACED_DEPTH, Root, Trace, runs_of

NUM_TOKENS = 120


def trace_of(matches, *, prompt="one", temperature=0.0, is_modelled=True, roots=None) -> Trace:
    if roots is None:
        roots = tuple(Root(MAX_TRACED_DEPTH, run, is_modelled) for run in runs_of(matches, MAX_TRACED_DEPTH))
    return Trace(prompt=prompt, category="c", temperature=temperature, num_prompt_tokens=9, roots=roots)


@dataclass
class World:
    """Attributes:
    agreement, spread: of the guesses, between prompts.
    noise: of a round's seconds of one setting; `drift` is shared by all settings of a round.
    """

    agreement: float = 0.7
    spread: float = 0.1
    target_row: float = 0.02
    draft_step: float = 0.1
    other: float = 0.03
    noise: float = 0.03
    drift: float = 0.2

    def seconds(self, num_sequences, depth):
        rows = num_sequences * (depth + 1)
        draft = depth * self.draft_step * (1 + 0.1 * (num_sequences - 1))
        return draft, 1 + self.target_row * (rows - 1), self.other * (1 + 0.2 * depth)

    def traces(self, num_prompts, generator):
        traces = []
        for number in range(num_prompts):
            chance = min(max(generator.gauss(self.agreement, self.spread), 0.02), 0.99)
            matches = [generator.random() < chance for _ in range(NUM_TOKENS)]
            traces.append(trace_of(matches, prompt=f"prompt {number}"))
        return traces

    def timings(self, num_rounds, generator, depths=(0, 1, 2, 4, 8), concurrencies=(1,)):
        timings = []
        for number in range(num_rounds):
            slowness = math.exp(generator.gauss(0, self.drift))
            for num_sequences in concurrencies:
                for depth in depths:
                    factor = slowness * math.exp(generator.gauss(0, self.noise))
                    draft, target, other = (factor * part for part in self.seconds(num_sequences, depth))
                    timings.append(
                        Timing(
                            round=number,
                            is_greedy=True,
                            num_sequences=num_sequences,
                            depth=depth,
                            num_rows=num_sequences * (depth + 1),
                            draft=draft,
                            target=target,
                            other=other,
                        )
                    )
        return timings

    def quiet(self):
        return World(self.agreement, self.spread, self.target_row, self.draft_step, self.other, noise=0.0, drift=0.0)


def seeded(seed):
    return random.Random(seed)
