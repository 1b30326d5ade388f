"""Comparisons made up by hand, for the tests of what they come to and how that is shown."""

from __future__ import annotations

from outrider.bench.compare import BenchPlan, BenchText, Comparison, GroupRun, Written
from outrider.bench.results import document_of
from outrider.bench.workloads import Prompt, Workload
from outrider.engine.llm import Generation
from outrider.request import SamplingParams
from outrider.stats import SequenceStats

NUM_TOKENS = 20


def make_plan(prompts_of, **changes):
    """`prompts_of`: workload -> names of its prompts."""
    workloads = tuple(
        Workload(name, tuple(Prompt(prompt, "x") for prompt in prompts), "0" * 64)
        for name, prompts in prompts_of.items()
    )
    return BenchPlan(workloads=workloads, **{"temperatures": (0.0,), "concurrencies": (1,), **changes})


def make_text(workload, prompt, *, temperature=0.0, **changes):
    values = {"token_ids": tuple(range(NUM_TOKENS)), "params": SamplingParams(temperature=temperature)}
    return BenchText(workload=workload, prompt=Prompt(prompt, "x"), temperature=temperature, **{**values, **changes})


def make_written(seconds, *, drafted=(), accepted=(), token_ids=range(NUM_TOKENS), exactness="bitwise"):
    """A text that took so many seconds to decode; `drafted` and `accepted` by depth."""
    stats = SequenceStats(
        num_steps=NUM_TOKENS - sum(accepted), num_emitted=NUM_TOKENS, num_drafted=sum(drafted),
        num_accepted=sum(accepted), drafted_at=list(drafted), accepted_at=list(accepted),
    )  # fmt: skip
    stats.accepted_from["suffix"] = sum(accepted)
    stats.add_seconds({"prefill": 1.0, "target": 0.75 * seconds, "draft" if drafted else "other": 0.25 * seconds})
    generation = Generation(
        request_id=0, prompt_token_ids=(1,), token_ids=tuple(token_ids), text="", finish_reason="length", seed=0,
        exactness=exactness, stats=stats,
    )  # fmt: skip
    gap = seconds / (NUM_TOKENS - 1)
    return Written(generation=generation, first_seconds=1.0, last_seconds=1.0 + seconds, gaps=(gap,) * (NUM_TOKENS - 1))


def make_run(text, plain, speculative, *, concurrency=1):
    """One text on both sides; seconds stand for what was written in them."""
    counts = {"plain": {}, "speculative": {"drafted": (10, 8), "accepted": (6, 2)}}
    written = {
        side: value if isinstance(value, Written) else make_written(value, **counts[side])
        for side, value in (("plain", plain), ("speculative", speculative))
    }
    seconds = {side: each.last_seconds for side, each in written.items()}
    return GroupRun(concurrency, (text,), {side: [each] for side, each in written.items()}, seconds)


def make_document(plan, runs, texts=None, **facts):
    texts = [text for run in runs for text in run.texts] if texts is None else texts
    comparison = Comparison(texts=texts, runs=runs, is_partial=facts.pop("is_partial", False))
    return {
        "provenance": {"command": "outrider bench"}, "engine": {"exactness": "bitwise"},
        "memory_bytes": {"target_weights": 21_000_000}, **document_of(plan, comparison), **facts,
    }  # fmt: skip
