"""Does the policy choose trees where they pay? Tokens per second with trees allowed, over chains only.

    python -m benchmarks.trees_auto [--rounds N]

On the bundled pair, and on full-price pairs of low agreement where they were made (`outrider bench make-pair --size
0.5b --agreement 0.4 --out build/pairs/0.5b-0.4`). Two engines that differ in nothing else take turns on the same
prompts; the texts must come out equal. Of all prompts, and of those where the policy picked trees.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from benchmarks.common import machine_to_ourselves, read_prompts, save, show
from outrider import LLM, EngineConfig, SamplingParams, bundled_pair, noise
from outrider.bench.measure import Interval, median_interval
from outrider.bench.provenance import provenance
from outrider.policy.branching import MAX_AUTO_CHILDREN

PAIRS = Path("build/pairs")
NAMES = ("0.5b-0.4", "0.5b-0.6")
TEMPERATURES = (0.0, 1.0)
NUM_PROMPTS = 8
MAX_TOKENS = 96
PICKED = 0.2  # share of a text's steps that verified trees, from which on the policy picked them there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    pairs: dict[str, tuple[Any, Any]] = {"bundled": (pair.target, pair.draft)}
    pairs |= {name: (PAIRS / name / "target", PAIRS / name / "draft") for name in NAMES if (PAIRS / name).exists()}
    prompts = [prompt.text for prompt in read_prompts()][:NUM_PROMPTS]
    rows: list[dict[str, Any]] = []
    with machine_to_ourselves():
        for name, models in pairs.items():
            llms = {count: LLM(*models, config=EngineConfig(max_children=count)) for count in (1, MAX_AUTO_CHILDREN)}
            for llm in llms.values():
                llm.generate(prompts[:1], SamplingParams(temperature=1.0, seed=99, max_tokens=MAX_TOKENS))
            rows += [choose(name, llms, temperature, prompts, arguments.rounds) for temperature in TEMPERATURES]
    save("trees_auto", began, {"max_tokens": MAX_TOKENS, "picked": PICKED, "rows": rows, "engine": llms[1].describe()})


def choose(name: str, llms: dict[int, LLM], temperature: float, prompts: list[str], num_rounds: int) -> dict[str, Any]:
    """What the policy makes of trees at a temperature: tokens per second over chains only, prompt by prompt."""
    generator = random.Random(name)
    pairs: list[tuple[float, float]] = []
    for index, prompt in enumerate(prompts):
        params = SamplingParams(temperature=temperature, seed=index, max_tokens=MAX_TOKENS)
        tokens, seconds = dict.fromkeys(llms, 0), dict.fromkeys(llms, 0.0)
        num_branching = num_steps = 0
        for _ in range(num_rounds):
            texts: list[tuple[int, ...]] = []
            for count in generator.sample(sorted(llms), len(llms)):
                noise.forget()
                made = llms[count].generate([prompt], params)[0]
                texts.append(tuple(made.token_ids))
                tokens[count] += made.stats.num_emitted
                seconds[count] += made.stats.decode_seconds
                if count > 1:
                    num_branching += made.stats.num_branching
                    num_steps += made.stats.num_steps
            if len(set(texts)) > 1:
                raise SystemExit("trees changed a text: no count is worth it")
        chain, tree = (tokens[count] / seconds[count] for count in sorted(llms))
        pairs.append((tree / chain, num_branching / num_steps))
    picked = [ratio for ratio, share in pairs if share >= PICKED]
    row = {
        "pair": name,
        "temperature": temperature,
        "over_chain": median_interval([ratio for ratio, _ in pairs])._asdict(),
        "branching_share": sum(share for _, share in pairs) / len(pairs),
        "num_prompts": len(pairs),
        "num_picked": len(picked),
        "over_chain_where_picked": median_interval(picked)._asdict() if picked else None,
    }
    where = show(Interval(**row["over_chain_where_picked"])) if picked else "nowhere picked"
    print(
        f"{name} T={temperature:g}: trees allowed over chains only {show(Interval(**row['over_chain']))}; "
        f"where picked, {len(picked)} of {len(pairs)} prompts, {where}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
