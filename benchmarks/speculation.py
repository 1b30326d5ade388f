"""How much faster speculation is than the same engine without it: bundled pair, batch 1, each prompt paired.

    python -m benchmarks.speculation

For every prompt, temperature and repetition, plain decoding and each setting run one after the other in an order that
changes from round to round; a pair's ratio is of decoding seconds per token. The texts must be equal, or nothing is
written.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from typing import Any

from benchmarks.common import machine_to_ourselves, paired_ratio, read_prompts, save, show
from outrider import LLM, Generation, SamplingParams, bundled_pair, noise
from outrider.bench.provenance import provenance
from outrider.stats import STAGES

TEMPERATURES = (0.0, 1.0)
DRAFTERS = ("model", "suffix")
DEPTHS = (2, 3, 4, 6, 8, "auto")
PLAIN = ("model", 0)

Setting = tuple[str, int | str]
Collected = dict[Setting, dict[str, list[Generation]]]  # by drafter and depth, then by prompt


def seconds_per_token(generation: Generation) -> float:
    return generation.stats.decode_seconds / generation.stats.num_emitted


def run_round(llms: dict[str, LLM], prompt: str, params: SamplingParams, order: list[Setting]) -> dict:
    results = {}
    for drafter, depth in order:
        noise.forget()
        (results[drafter, depth],) = llms[drafter].generate([prompt], params, depth=depth)
    texts = {generation.token_ids for generation in results.values()}
    if len(texts) != 1:
        raise SystemExit(f"speculation changed the text of {prompt[:40]!r} at {params}: no speed is worth reporting")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    llms = {"model": LLM(pair.target, draft=pair.draft), "suffix": LLM(pair.target, draft="suffix")}
    settings = [PLAIN, *((drafter, depth) for drafter in DRAFTERS for depth in DEPTHS)]
    generator = random.Random(0)
    rows: list[dict[str, Any]] = []
    with machine_to_ourselves():
        for temperature in TEMPERATURES:
            collected: Collected = {setting: defaultdict(list) for setting in settings}
            for round_index in range(-1, arguments.rounds):
                for index, prompt in enumerate(read_prompts()):
                    params = SamplingParams(temperature=temperature, seed=index, max_tokens=arguments.max_tokens)
                    order = generator.sample(settings, len(settings))
                    results = run_round(llms, prompt.text, params, order)
                    for setting, generation in results.items():
                        if round_index >= 0:  # the first round only warms up
                            collected[setting][prompt.name].append(generation)
            rows += [summarise(collected, setting, temperature) for setting in settings[1:]]
    facts = {"pair": "bundled", "prompts": len(read_prompts()), "max_tokens": arguments.max_tokens}
    save("speculation", began, {**facts, "engine": llms["model"].describe(), "rows": rows})


def summarise(collected: Collected, setting: Setting, temperature: float) -> dict[str, Any]:
    """One setting's speedup over plain decoding, and where its time went."""
    plain, chosen = collected[PLAIN], collected[setting]
    ratio = paired_ratio(
        *({name: list(map(seconds_per_token, runs[name])) for name in plain} for runs in (plain, chosen))
    )
    stats = [generation.stats for generations in chosen.values() for generation in generations]
    num_steps, num_emitted = sum(each.num_steps for each in stats), sum(each.num_emitted for each in stats)
    seconds = {stage: sum(each.seconds[stage] for each in stats) / num_steps for stage in STAGES if stage != "prefill"}
    plain_seconds = [seconds_per_token(generation) for generations in plain.values() for generation in generations]
    num_drafted = sum(each.num_drafted for each in stats)
    row = {
        "temperature": temperature, "drafter": setting[0], "depth": setting[1], "speedup": ratio._asdict(),
        "acceptance_length": num_emitted / num_steps,
        "acceptance_rate": sum(each.num_accepted for each in stats) / num_drafted if num_drafted else None,
        "milliseconds_per_step": {stage: 1000 * value for stage, value in seconds.items()},
        "plain_tokens_per_second": len(plain_seconds) / sum(plain_seconds),
    }  # fmt: skip
    print(f"T={temperature} {setting}: {show(ratio)}, {row['acceptance_length']:.2f} tokens a step", flush=True)
    return row


if __name__ == "__main__":
    main()
