"""How much faster speculation is than the same engine without it: bundled pair, batch 1, each prompt paired.

    python -m benchmarks.speculation

For every prompt, temperature and repetition, plain decoding and each setting run one after the other in an order that
changes from round to round; a pair's ratio is of decoding seconds per token. The texts must be equal, or nothing is
written.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from benchmarks.common import machine_to_ourselves, paired_ratio, read_prompts, save
from outrider import LLM, Generation, SamplingParams, bundled_pair

TEMPERATURES = (0.0, 1.0)
DRAFTERS = ("model", "suffix")
DEPTHS = (2, 3, 4, 5, 6, 8)


def seconds_per_token(generation: Generation) -> float:
    return generation.stats.decode_seconds / generation.stats.num_emitted


def run_round(llms: dict[str, LLM], prompt: str, params: SamplingParams, order: list[tuple[str, int]]) -> dict:
    results = {}
    for drafter, depth in order:
        (results[drafter, depth],) = llms[drafter].generate([prompt], params, depth=depth)
    texts = {generation.token_ids for generation in results.values()}
    if len(texts) != 1:
        raise SystemExit(f"speculation changed the text of {prompt[:40]!r} at {params}: no speed is worth reporting")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    pair = bundled_pair()
    llms = {"model": LLM(pair.target, draft=pair.draft), "suffix": LLM(pair.target, draft="suffix")}
    settings = [("model", 0), *((drafter, depth) for drafter in DRAFTERS for depth in DEPTHS)]
    generator = random.Random(0)
    rows: list[dict[str, Any]] = []
    with machine_to_ourselves():
        for temperature in TEMPERATURES:
            collected: dict[tuple[str, int], list[Generation]] = {setting: [] for setting in settings}
            for round_index in range(-1, arguments.rounds):
                for index, prompt in enumerate(read_prompts()):
                    params = SamplingParams(temperature=temperature, seed=index, max_tokens=arguments.max_tokens)
                    order = generator.sample(settings, len(settings))
                    results = run_round(llms, prompt.text, params, order)
                    for setting, generation in results.items():
                        if round_index >= 0:  # the first round only warms up
                            collected[setting].append(generation)
            rows += summarise(collected, temperature)
    save(
        "speculation",
        {"pair": "bundled", "prompts": len(read_prompts()), "engine": llms["model"].describe(), "rows": rows},
    )


def summarise(collected: dict[tuple[str, int], list[Generation]], temperature: float) -> list[dict[str, Any]]:
    plain = [seconds_per_token(generation) for generation in collected["model", 0]]
    rows = []
    for (drafter, depth), generations in collected.items():
        if depth == 0:
            continue
        ratio = paired_ratio(plain, [seconds_per_token(generation) for generation in generations])
        num_steps = sum(generation.stats.num_steps for generation in generations)
        num_drafted = sum(generation.stats.num_drafted for generation in generations)
        seconds = {
            stage: sum(generation.stats.seconds[stage] for generation in generations) / num_steps
            for stage in ("draft", "target", "sample", "other")
        }
        row = {
            "temperature": temperature, "drafter": drafter, "depth": depth, "speedup": ratio._asdict(),
            "acceptance_length": sum(generation.stats.num_emitted for generation in generations) / num_steps,
            "acceptance_rate": sum(g.stats.num_accepted for g in generations) / num_drafted if num_drafted else None,
            "milliseconds_per_step": {stage: 1000 * value for stage, value in seconds.items()},
            "share_outside_forwards": (seconds["sample"] + seconds["other"]) / sum(seconds.values()),
        }  # fmt: skip
        rows.append(row)
        print(
            f"T={temperature} {drafter} depth {depth}: {ratio}, {row['acceptance_length']:.2f} tokens a step",
            flush=True,
        )
    plain_tokens_per_second = len(plain) / sum(plain)
    print(f"T={temperature} plain: {plain_tokens_per_second:.0f} tokens/s", flush=True)
    return rows


if __name__ == "__main__":
    main()
