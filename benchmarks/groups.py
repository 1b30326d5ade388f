"""Prompts that decode together, timed: the unit of the benchmarks of batches and policies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from outrider import LLM, SamplingParams, noise
from outrider.bench.workloads import MIN_TOKENS, Prompt, find_loop
from outrider.sequence import Sequence as TextSequence


@dataclass(frozen=True)
class Group:
    """Prompts with what is sampled from each, all in flight at once."""

    name: str
    prompts: Sequence[str]
    params: Sequence[SamplingParams]
    predictions: Sequence[str | None] | None = None


@dataclass(frozen=True)
class GroupRun:
    """What a group took in the steps that decoded: prompts, and tokens that came with them, are not counted."""

    seconds: float
    token_ids: list[list[int]]
    num_tokens: int
    num_steps: int
    num_drafted: int
    num_accepted: int

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.num_tokens


def run_group(llm: LLM, group: Group, depth: int | str) -> GroupRun:
    """Decode a group to its ends."""
    noise.forget()
    sequences = llm.start(group.prompts, group.params, depth=depth, predictions=group.predictions)
    seconds, num_steps = 0.0, 0
    while any(sequence.finish_reason is None for sequence in sequences):
        before = num_decoding_steps(sequences)
        began = time.perf_counter()
        llm.engine.step()
        passed = time.perf_counter() - began
        if num_decoding_steps(sequences) > before:
            seconds += passed
            num_steps += 1
    stats = [sequence.stats for sequence in sequences]
    return GroupRun(
        seconds=seconds,
        token_ids=[sequence.output_token_ids for sequence in sequences],
        num_tokens=sum(each.num_emitted for each in stats),
        num_steps=num_steps,
        num_drafted=sum(each.num_drafted for each in stats),
        num_accepted=sum(each.num_accepted for each in stats),
    )


def num_decoding_steps(sequences: Sequence[TextSequence]) -> int:
    """Decoding steps that they took part in: one for each where all were decoded."""
    return sum(sequence.stats.num_steps for sequence in sequences)


def run_all(llm: LLM, group: Group, depths: Sequence[int | str]) -> dict[int | str, GroupRun]:
    """The same group under several settings, in the order given; the texts must be equal.

    Raises:
        SystemExit: they are not, so no speed is worth reporting.
    """
    runs = {depth: run_group(llm, group, depth) for depth in depths}
    texts = [run.token_ids for run in runs.values()]
    if any(text != texts[0] for text in texts):
        raise SystemExit(f"speculation changed a text of {group.name!r}: no speed is worth reporting")
    return runs


def measurable(llm: LLM, prompts: Sequence[Prompt], temperature: float, size: int, max_tokens: int) -> list[Group]:
    """Groups of `size` texts, each up to where plain decoding falls into a loop; too short ones left out."""
    params = [
        SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=index) for index in range(len(prompts))
    ]
    written = llm.generate([prompt.text for prompt in prompts], params, depth=0)
    kept: list[tuple[Prompt, SamplingParams]] = []
    for prompt, asked, generation in zip(prompts, params, written, strict=True):
        loop = find_loop(generation.token_ids)
        num_tokens = loop.start if loop else len(generation.token_ids)
        if num_tokens >= MIN_TOKENS:
            kept.append((prompt, replace(asked, max_tokens=num_tokens)))
    groups: list[Group] = []
    for first in range(0, len(kept) - size + 1, size):
        part = kept[first : first + size]
        chosen, each = [prompt for prompt, _ in part], [asked for _, asked in part]
        name = ", ".join(prompt.name for prompt in chosen)
        groups.append(Group(name, [prompt.text for prompt in chosen], each, [prompt.prediction for prompt in chosen]))
    return groups
