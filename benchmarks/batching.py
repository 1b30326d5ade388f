"""Many texts at once: plain decoding of 16 over one after the other, and speculation on and off at every number.

    python -m benchmarks.batching

Bundled pair, suffix and draft model, policy `auto`; prompts of all six workloads in turn. Both sides of a ratio write
the same texts, taking turns; a text is measured up to where it falls into a loop.

Two ways, since they tell different things. *Drained*: so many texts begin together, and what is timed lasts until the
last of them has ended. Speculation ends texts at different times, and the last ones have the batch to themselves.
*Steady*: where a text ends, the next begins, as in a server; timed are the steps that decode as many texts as are asked
for.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from typing import Any

from benchmarks.common import machine_to_ourselves, save, show
from benchmarks.groups import Group, GroupRun, measurable, run_all, run_group
from benchmarks.steady import SteadyRun, run_steadily
from outrider import LLM, SamplingParams, bundled_pair
from outrider.bench.measure import median_interval
from outrider.bench.provenance import provenance
from outrider.bench.workloads import Prompt, read_workloads
from outrider.predict.agreement import KnownText

CONCURRENCIES = (1, 2, 4, 8, 16)
NUM_PROMPTS = 16


def prompts_in_turn() -> list[Prompt]:
    """One of each workload, then the next of each."""
    workloads = read_workloads(["code", "prose", "edit", "summary", "chat", "repeat"])
    in_turn = [
        prompt for prompts in zip(*(workload.prompts for workload in workloads), strict=True) for prompt in prompts
    ]
    return in_turn[:NUM_PROMPTS]


def together_over_alone(llm: LLM, rounds: int, max_tokens: int) -> dict[str, Any]:
    """Tokens per second of plain decoding, 16 texts at once over the same one by one; all of one length."""
    texts = [prompt.text for prompt in prompts_in_turn()]
    params = [SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=index) for index in range(len(texts))]
    together = Group("together", texts, params)
    alone = [Group(f"alone {index}", [text], [params[index]]) for index, text in enumerate(texts)]
    ratios: list[float] = []
    for round_index in range(-1, rounds):
        first, second = (run_group(llm, together, 0) for _ in range(2))
        single = [run_group(llm, group, 0) for group in alone[: None if round_index >= 0 else 1]]
        if round_index >= 0:
            if [run.token_ids[0] for run in single] != first.token_ids:
                raise SystemExit("texts written together differ from those written alone: no speed is worth reporting")
            ratios.append(sum(run.seconds for run in single) / ((first.seconds + second.seconds) / 2))
    interval = median_interval(ratios)
    print(f"{len(texts)} at once over one by one, plain: {show(interval)}", flush=True)
    return {"num_sequences": len(texts), "max_tokens": max_tokens, "speedup": interval._asdict(), "ratios": ratios}


def on_over_off(llm: LLM, concurrency: int, temperature: float, rounds: int, max_tokens: int) -> dict[str, Any]:
    """Speedup of `auto` at so many texts at once."""
    generator = random.Random(concurrency)
    groups = measurable(llm, prompts_in_turn(), temperature, concurrency, max_tokens)
    runs: dict[int | str, dict[str, list[GroupRun]]] = {setting: defaultdict(list) for setting in (0, "auto")}
    for round_index in range(-1, rounds):
        for group in groups[: None if round_index >= 0 else 2]:
            for setting, run in run_all(llm, group, generator.sample((0, "auto"), 2)).items():
                if round_index >= 0:
                    runs[setting][group.name].append(run)
    seconds = {setting: sum(run.seconds for each in named.values() for run in each) for setting, named in runs.items()}
    # Few groups are in flight at once where many texts are: a round of a group is the unit.
    ratios = [
        off.seconds / on.seconds for name in runs[0] for off, on in zip(runs[0][name], runs["auto"][name], strict=True)
    ]
    interval = median_interval(ratios)
    row = {
        "concurrency": concurrency,
        "temperature": temperature,
        "speedup": interval._asdict(),
        "seconds_ratio": seconds[0] / seconds["auto"],
        "acceptance_length": sum(run.num_tokens for each in runs["auto"].values() for run in each)
        / sum(run.num_steps for each in runs["auto"].values() for run in each)
        / concurrency,
    }
    print(f"x{concurrency} T={temperature:g}: {show(interval)}, in all {row['seconds_ratio']:.2f}x", flush=True)
    return row


def steady(llm: LLM, concurrency: int, temperature: float, rounds: int, max_tokens: int) -> dict[str, Any]:
    """Speedup of `auto` where every step decodes so many texts."""
    generator = random.Random(concurrency)
    groups = measurable(llm, prompts_in_turn(), temperature, 1, max_tokens)
    texts: list[KnownText] = []
    for group in groups:
        (written,) = llm.generate(group.prompts, group.params, depth=0)
        texts.append(
            KnownText(group.prompts[0], group.name, group.params[0], written.prompt_token_ids, written.token_ids)
        )
    runs: dict[int | str, list[SteadyRun]] = {0: [], "auto": []}
    for round_index in range(-1, rounds):
        for setting in generator.sample((0, "auto"), 2):
            run = run_steadily(llm, texts, concurrency, setting)
            if round_index >= 0:
                runs[setting].append(run)
    ratios = [on.tokens_per_second / off.tokens_per_second for off, on in zip(runs[0], runs["auto"], strict=True)]
    interval = median_interval(ratios)
    row = {
        "concurrency": concurrency,
        "temperature": temperature,
        "texts": len(texts),
        "speedup": interval._asdict(),
        "ratios": ratios,
        "tokens_per_step": sum(run.tokens_per_step for run in runs["auto"]) / rounds,
    }
    print(f"x{concurrency} T={temperature:g}, steady: {show(interval)}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=128)
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    llm = LLM(pair.target, draft=["suffix", pair.draft])
    with machine_to_ourselves():
        plain = together_over_alone(llm, arguments.rounds, arguments.max_tokens)
        rows = [
            on_over_off(
                # Of many texts at once there are few groups: as many tokens are timed in more rounds.
                llm,
                concurrency,
                temperature,
                arguments.rounds * max(1, concurrency // 4),
                arguments.max_tokens,
            )
            for temperature in (0.0, 1.0)
            for concurrency in CONCURRENCIES
        ]
        fed = [
            steady(llm, concurrency, temperature, arguments.rounds, arguments.max_tokens)
            for temperature in (0.0, 1.0)
            for concurrency in CONCURRENCIES[1:]
        ]
    save("batching", began, {"engine": llm.describe(), "plain": plain, "rows": rows, "steady": fed})


if __name__ == "__main__":
    main()
