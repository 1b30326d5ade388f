"""The claims of speculative decoding, each measured here. Knows how they are decided, not how they are shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from outrider import noise, sampling
from outrider.bench.measure import Interval, paired_ratio
from outrider.cache.table import BlockTable
from outrider.cli.demo_drafters import SPECULATIVE, Contest, DrafterName
from outrider.demo.prompts import Prompt
from outrider.engine.llm import LLM, Generation
from outrider.request import SamplingParams
from outrider.runtime.base import SequenceRows

MIN_PROMPTS = 3
TEMPERATURES = {0.0: "greedy", 1.0: "T = 1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure: prompt after prompt, then all over again, while there is time."""

    prompts: tuple[Prompt, ...]
    num_tokens: int
    depth: int
    seed: int
    max_rounds: int
    seconds: float


class Run(NamedTuple):
    """One text, and under which circumstances it was written."""

    prompt: str
    temperature: float
    drafter: DrafterName
    generation: Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim, what was measured, and whether that bears it out."""

    name: str
    measured: str
    holds: bool
    numbers: dict[str, Any]


def measure(contest: Contest, plan: Plan, report: Callable[[str], None]) -> list[Run]:
    """Every prompt at every temperature with every drafter: interleaved, so that a busy machine slows all alike."""
    runs: list[Run] = []
    began = time.perf_counter()
    for turn, prompt in enumerate(plan.prompts * plan.max_rounds):
        if turn >= MIN_PROMPTS and time.perf_counter() - began > plan.seconds:
            break
        report(prompt.name)
        for temperature in TEMPERATURES:
            params = SamplingParams(temperature=temperature, seed=plan.seed, max_tokens=plan.num_tokens)
            for name in _rotated(list(contest.drafters), turn):
                contest.give_turn(name)
                noise.forget()
                generation = contest.llm.generate(prompt.text, params, depth=plan.depth)[0]
                runs.append(Run(prompt.name, temperature, name, generation))
    return runs


def claims_of(contest: Contest, runs: Sequence[Run]) -> list[Claim]:
    """What the runs say."""
    return [
        *(_faster(runs, temperature) for temperature in TEMPERATURES),
        *(_same_text(runs, temperature) for temperature in TEMPERATURES),
        _little_memory(contest),
        _no_matter_who_drafts(runs),
        _same_quality(contest.llm, runs),
    ]


def num_differing(runs: Sequence[Run]) -> int:
    """Texts that are not what plain decoding wrote under the same seed."""
    plain = {(run.prompt, run.temperature): run.generation.token_ids for run in runs if run.drafter == "none"}
    return sum(run.generation.token_ids != plain[run.prompt, run.temperature] for run in runs)


def speedup(runs: Sequence[Run], drafter: DrafterName, temperature: float) -> Interval:
    """Decoding seconds of a token, plain over speculative, prompt by prompt."""
    plain, speculative = (_seconds_per_token(runs, name, temperature) for name in ("none", drafter))
    return paired_ratio(plain, speculative)


def _seconds_per_token(runs: Sequence[Run], drafter: DrafterName, temperature: float) -> dict[str, list[float]]:
    """Of each prompt, run by run."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        if run[1:3] == (temperature, drafter):
            stats = run.generation.stats
            seconds.setdefault(run.prompt, []).append(stats.decode_seconds / stats.num_emitted)
    return seconds


def _faster(runs: Sequence[Run], temperature: float) -> Claim:
    interval = speedup(runs, "draft model", temperature)
    stats = [run.generation.stats for run in runs if run[1:3] == (temperature, "draft model")]
    acceptance_length = sum(each.num_emitted for each in stats) / sum(each.num_steps for each in stats)
    return Claim(
        name=f"faster, {TEMPERATURES[temperature]}",
        measured=f"{interval.median:.2f}x ({interval.low:.2f} to {interval.high:.2f}), "
        f"{acceptance_length:.1f} tokens a target forward",
        holds=interval.low > 1.0,
        numbers={"speedup": interval._asdict(), "acceptance_length": acceptance_length},
    )


def _same_text(runs: Sequence[Run], temperature: float) -> Claim:
    chosen = [run for run in runs if run.temperature == temperature]
    differing = num_differing(chosen)
    num_texts = sum(run.drafter != "none" for run in chosen)
    num_tokens = sum(len(run.generation.token_ids) for run in chosen if run.drafter != "none")
    return Claim(
        name=f"same text, {TEMPERATURES[temperature]}",
        measured=f"{differing} of {num_texts} texts differ ({num_tokens:,} tokens; {', '.join(SPECULATIVE)})",
        holds=differing == 0,
        numbers={"num_texts": num_texts, "num_differing": differing, "num_tokens": num_tokens},
    )


def _little_memory(contest: Contest) -> Claim:
    target, draft = sum(contest.llm.target.memory()), contest.drafters["draft model"].memory()
    return Claim(
        name="little memory",
        measured=f"the draft adds {draft / 1e6:.1f} MB to the target's {target / 1e6:.1f} MB: {draft / target:.0%}",
        holds=draft < target,
        numbers={"target_bytes": target, "draft_bytes": draft},
    )


def _no_matter_who_drafts(runs: Sequence[Run]) -> Claim:
    wrong = [run for run in runs if run.drafter in ("none", "random weights")]
    stats = [run.generation.stats for run in wrong if run.drafter == "random weights"]
    rate = sum(each.num_accepted for each in stats) / sum(each.num_drafted for each in stats)
    interval = speedup(runs, "random weights", 0.0)
    differing = num_differing(wrong)
    return Claim(
        name="a wrong drafter changes nothing",
        measured=f"random weights: {differing} texts differ, {rate:.1%} of its tokens accepted, {interval.median:.2f}x",
        holds=differing == 0,
        numbers={"num_differing": differing, "acceptance_rate": rate, "speedup": interval._asdict()},
    )


def _same_quality(llm: LLM, runs: Sequence[Run]) -> Claim:
    """One plain pass of the target over each finished text, whoever drafted it."""
    means = {
        name: _mean_log_prob(llm, {run[:2]: run.generation for run in runs if run.drafter == name}.values())
        for name in ("none", "draft model")
    }
    return Claim(
        name="same quality",
        measured=f"log-probability of a token to the target: {means['none']:.4f} plain, "
        f"{means['draft model']:.4f} speculative",
        holds=means["none"] == means["draft model"],
        numbers={"mean_log_prob": means},
    )


def _mean_log_prob(llm: LLM, generations: Any) -> float:
    total, num_tokens = 0.0, 0
    for generation in generations:
        total += sum(token_log_probs(llm, generation))
        num_tokens += len(generation.token_ids)
    return total / num_tokens


def token_log_probs(llm: LLM, generation: Generation) -> list[float]:
    """How likely the target finds each token of a finished text, all in one forward."""
    token_ids = (*generation.prompt_token_ids, *generation.token_ids)
    num_rows = len(token_ids) - 1
    table = BlockTable(llm.engine.pool)
    with table.reserve(max(num_rows, llm.target.min_rows)):
        wanted = range(len(generation.prompt_token_ids) - 1, num_rows)
        logits = llm.target.forward([SequenceRows(token_ids[:-1], 0, table.blocks, wanted)]).logits
    plain = SamplingParams(temperature=1.0)
    return [
        float(sampling.log_probs(row, plain)[token_id])
        for row, token_id in zip(logits, generation.token_ids, strict=True)
    ]


def _rotated(names: list[DrafterName], count: int) -> list[DrafterName]:
    """Who goes first changes, so that no drafter always runs in the wake of the same other."""
    start = count % len(names)
    return [*names[start:], *names[:start]]
