"""Times an engine's steps at a few depths, a few steps at a time, in rounds. Knows engines and clocks.

The steps are real ones, with real drafts beside real forwards: what either costs in the other's company is what counts.
They are taken at places all over the texts, round by round: attention costs by what was written before, several texts'
most of all. Whether a guess is right does not matter here, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from outrider import noise
from outrider.engine.llm import LLM, raise_errors
from outrider.predict.agreement import KnownText
from outrider.predict.costs import Timing
from outrider.predict.trace import CHAINS, Way
from outrider.request import MAX_DEPTH
from outrider.sequence import Sequence as TextSequence
from outrider.stats import Stage

DEPTHS = (0, 1, 2, 4, 8)
# Few, and then it is the next setting's turn: what disturbs a machine for a second or two is to be met by all settings
# alike, so there are many short rounds and no long ones.
NUM_WARM_STEPS, NUM_TIMED_STEPS = 4, 8
# A large model's steps are long: after so many seconds no more are timed of a setting than these, for the sake of more
# rounds. Two rounds of many steps say less of a machine than six of few.
ENOUGH_SECONDS, LEAST_TIMED_STEPS = 0.6, 2
DECODING: tuple[Stage, ...] = ("draft", "target", "sample", "policy", "other")
# Its multiples leave no part of a text out for long (the golden ratio's); the first round is in the middle.
PLACE_STEP, FIRST_PLACE = 0.618, 0.5


class Setting(NamedTuple):
    """What is timed."""

    temperature: float
    num_sequences: int
    depth: int
    way: Way = CHAINS


class InterruptedTimingError(Exception):
    """Timing was given up."""


def time_round(
    llm: LLM,
    texts: Sequence[KnownText],
    settings: Sequence[Setting],
    number: int,
    is_wanted: Callable[[], bool],
    prepare: Callable[[Setting], None] = lambda _: None,
) -> list[Timing]:
    """Time every setting once, those of few rows first, and those of fewest, which all others are held against, twice.

    A runtime may go on computing as many rows as before for a while when it needs fewer, which is right in the midst of
    a text and would here be charged to a setting that does not need them. So rows only grow within a round, and the
    first setting is run once for nothing, to come down.

    Args:
        llm: with the drafter that is meant.
        texts: to be continued, in turns.
        settings: to be timed.
        number: of the round.
        is_wanted: whether to stop.
        prepare: called before each setting, to have the engine draft and verify in its way.

    Raises:
        InterruptedTimingError: it was wanted; the engine is idle again.
    """
    ordered = sorted(settings, key=_num_rows)
    fewest = [setting for setting in ordered if _num_rows(setting) == _num_rows(ordered[0])]
    found: list[Timing | None] = []
    for setting in (fewest[0], *fewest, *ordered):
        prepare(setting)
        found.append(_time_setting(llm, texts, setting, number, is_wanted))
    return [timing for timing in found[1:] if timing is not None]


def _num_rows(setting: Setting) -> int:
    return setting.num_sequences * (setting.depth + 1)


def _time_setting(
    llm: LLM,
    texts: Sequence[KnownText],
    setting: Setting,
    number: int,
    is_wanted: Callable[[], bool],
) -> Timing | None:
    """After a few untimed steps; None where the context has no room for one more, or others have ended."""
    noise.forget()
    first = number * setting.num_sequences
    chosen = [texts[(first + index) % len(texts)] for index in range(setting.num_sequences)]
    beginnings = [_beginning(text, number) for text in chosen]
    room = min(llm.target.config.max_context - len(token_ids) for token_ids in beginnings)
    num_joining = len(beginnings[-1]) // llm.config.prefill_chunk + 1  # steps while the last text is read
    num_steps = NUM_WARM_STEPS + NUM_TIMED_STEPS + (setting.num_sequences > 1) * (num_joining + setting.num_sequences)
    length = min(num_steps * (setting.depth + 1) + MAX_DEPTH, room)
    params = [
        replace(text.params, temperature=setting.temperature, max_tokens=length, ignore_eos=True) for text in chosen
    ]
    sequences: list[TextSequence] = []
    try:
        # The last joins when the others are under way: what its beginning takes is what all pay when a text joins.
        for joining in (slice(-1), slice(-1, None)):
            sequences += llm.start(
                beginnings[joining], params[joining], depth=setting.depth, max_children=setting.way.max_children
            )
            while any(sequence.finish_reason is None and not sequence.stats.num_steps for sequence in sequences):
                _step(llm, is_wanted)
                raise_errors(sequences)
        last = sequences[-1].stats
        for _ in range(NUM_WARM_STEPS - 1):
            if not _all_run(sequences, setting.depth):
                break
            _step(llm, is_wanted)
        before, num_untimed = dict(last.seconds), last.num_steps
        for number_of_step in range(NUM_TIMED_STEPS):
            is_enough = _decoding(last.seconds) - _decoding(before) > ENOUGH_SECONDS
            if not _all_run(sequences, setting.depth) or (is_enough and number_of_step >= LEAST_TIMED_STEPS):
                break
            _step(llm, is_wanted)
        seconds, num_timed = last.seconds, last.num_steps - num_untimed
    finally:
        for sequence in sequences:
            llm.engine.cancel(sequence.request.request_id)
    if not num_timed:
        return None
    share_of_prompt = len(chosen[-1].prompt_token_ids) / len(beginnings[-1])
    mean: dict[Stage, float] = {stage: (seconds[stage] - before[stage]) / num_timed for stage in seconds}
    return Timing(
        round=number,
        is_greedy=setting.temperature == 0,
        num_sequences=setting.num_sequences,
        depth=setting.depth,
        num_rows=_num_rows(setting),
        draft=mean["draft"],
        target=mean["target"],
        other=mean["sample"] + mean["policy"] + mean["other"],
        first=_first_extra(before, num_untimed, mean, share_of_prompt),
        num_steps=num_timed,
        way=setting.way,
    )


def _beginning(text: KnownText, number: int) -> tuple[int, ...]:
    """The prompt, and as much of what came after it as this round goes on from."""
    place = (FIRST_PLACE + number * PLACE_STEP) % 1
    num_known = round(place * max(len(text.token_ids) - NUM_WARM_STEPS - NUM_TIMED_STEPS, 0))
    return (*text.prompt_token_ids, *text.token_ids[:num_known])


def _step(llm: LLM, is_wanted: Callable[[], bool]) -> None:
    if is_wanted():
        raise InterruptedTimingError
    llm.engine.step()


def _all_run(sequences: Sequence[TextSequence], depth: int) -> bool:
    """Whether the next step is one of all texts, each with a whole draft."""
    return all(sequence.finish_reason is None and sequence.num_tokens_left > depth for sequence in sequences)


def _decoding(seconds: Mapping[Stage, float]) -> float:
    return sum(seconds[stage] for stage in DECODING)


def _first_extra(
    before: Mapping[Stage, float], num_before: int, mean: Mapping[Stage, float], share_of_prompt: float
) -> float:
    """What the last text's steps took until now beyond what so many take; its draft had more to read than a prompt."""
    draft, *others = (before[stage] - num_before * mean[stage] for stage in DECODING)
    return max(draft, 0.0) * share_of_prompt + sum(others)
