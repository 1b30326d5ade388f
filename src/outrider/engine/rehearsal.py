"""A draft model's first drafts, made for nobody when it is loaded. Knows a target, a draft model and a clock.

The first calls of a model take several times as long as later ones: memory is touched, kernels are made, and between
two of a text's drafts the target computes, which leaves nothing in the processor's cache. A policy that sees those
calls first takes the model for slow, and may never ask it often enough to learn better.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from outrider.cache.table import BLOCK_SIZE, FIRST_BLOCKS
from outrider.draft.model import ModelDrafter
from outrider.policy.cost import StepCosts
from outrider.request import Request, SamplingParams
from outrider.runtime.base import Runtime, SequenceRows
from outrider.sequence import DraftWork, Sequence
from outrider.tree import DraftBudget

NUM_PROMPT = 256
CHUNKS = (16, 8, 4, 2)  # parts of the prompt that are read one after the other, as shares: 1/16, 1/8, ...
DEPTHS = (1, 1, 4, 2, 4, 1, 4, 2, 4)
NUM_FIRST = 2  # of these, which only warm up
NUM_PLAIN = 3  # rows of the target between two drafts, as in decoding that mostly computes plain steps
MAX_SECONDS = 1.0


class Rehearsal(NamedTuple):
    """What was seen, in order.

    Attributes:
        plain_seconds: of forwards of a row of the target.
        works: of the draft model.
    """

    plain_seconds: list[float]
    works: list[DraftWork]

    def tell(self, costs: StepCosts) -> None:
        """Have costs start from it, at the speed that the machine has now."""
        for seconds in self.plain_seconds:
            costs.observe_target(costs.computed_rows([1]), seconds)
        for work in self.works:
            costs.observe_draft(work)
        if self.works:
            costs.keep_drafts()


def rehearse(target: Runtime, drafter: ModelDrafter, clock: Callable[[], float] = time.perf_counter) -> Rehearsal:
    """Draft for a text of no meaning, with forwards of the target between. Both keep nothing of it."""
    room = min(drafter.pool.max_blocks, FIRST_BLOCKS) * BLOCK_SIZE
    context = min(target.config.max_context, drafter.runtime.config.max_context, room)
    num_prompt = min(NUM_PROMPT, context - 3 * max(DEPTHS) - len(DEPTHS))
    if num_prompt < max(CHUNKS):
        return Rehearsal([], [])
    target.resize(max(target.num_blocks, FIRST_BLOCKS))
    request = Request(request_id=0, prompt_token_ids=(0,) * num_prompt, params=SamplingParams(), seed=0)
    sequence = Sequence.start(request)
    plain = SequenceRows([0], num_prompt, range(FIRST_BLOCKS), [0])
    plain_seconds: list[float] = []
    works: list[DraftWork] = []

    def measure(budget: DraftBudget, *, is_first: bool) -> None:
        for number in range(NUM_PLAIN):
            began = clock()
            target.forward([plain]).logits[0]  # asked for, since a device may only have been told to compute them
            if number:  # the first comes after a draft, which no plain step does
                plain_seconds.append(clock() - began)
        began = clock()
        draft = drafter.propose([sequence], [budget])
        seconds = clock() - began
        if not is_first and (draft.num_steps or draft.num_caught_up):
            works.append(DraftWork(drafter.name, 1, draft.num_steps or 0, draft.num_caught_up, seconds))

    end = clock() + MAX_SECONDS
    # As a policy that knows nothing asks: for a part of the text, for more of it, and then for drafts.
    for number, share in enumerate(CHUNKS):
        if number and clock() > end:
            break
        measure(DraftBudget(1, 1, max_catch_up=num_prompt // share), is_first=not number)
    for number, depth in enumerate(DEPTHS):
        if clock() > end:
            break
        measure(DraftBudget(depth, depth), is_first=number < NUM_FIRST)
        sequence.token_ids.append(0)
    drafter.release(sequence)
    return Rehearsal(plain_seconds[NUM_PLAIN - 1 :], works)
