"""What does `bitwise` cost over `seed`? Padding rows, and attention to each row and each branch of a tree by itself.

    python -m benchmarks.exactness_price

Bundled pair in the checkpoint's own precision, one text at a time: plain, in chains, and in trees. Two engines that
differ in nothing else take turns on the same prompts. A near-tie may part their texts, so what is compared is the
seconds of a decoding step; how many texts parted is counted.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from typing import Any, Literal, NamedTuple

from benchmarks.common import machine_to_ourselves, read_prompts, save, show
from benchmarks.groups import Group, GroupRun, run_group
from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams, bundled_pair
from outrider.bench.measure import median_interval
from outrider.bench.provenance import provenance

Level = Literal["bitwise", "seed"]
LEVELS: tuple[Level, ...] = ("bitwise", "seed")


class Setting(NamedTuple):
    """How texts are drafted."""

    name: str
    depth: int
    max_children: int


SETTINGS = (Setting("plain", 0, 1), Setting("chain", 4, 1), Setting("tree", 8, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, help="only the first so many")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="to compute in, if not the checkpoint's own")
    arguments = parser.parse_args()
    began = provenance()
    texts = [prompt.text for prompt in read_prompts()][: arguments.prompts]
    with machine_to_ourselves():
        rows = [price(setting, temperature, texts, arguments) for setting in SETTINGS for temperature in (0.0, 1.0)]
        engine = load("bitwise", SETTINGS[0], arguments.dtype).describe()
    save("exactness_price", began, {"max_tokens": arguments.max_tokens, "rows": rows, "engine": engine})


def load(level: Level, setting: Setting, dtype: str | None) -> LLM:
    """An engine of this level, which refuses to be of the other."""
    pair = bundled_pair()
    config = EngineConfig(
        exactness=level, max_children=setting.max_children, options=RuntimeOptions(dtype=dtype), max_prefix_tokens=0
    )
    return LLM(pair.target, pair.draft, config=config)


def price(setting: Setting, temperature: float, texts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step at one level over those at the other, prompt by prompt."""
    llms = {level: load(level, setting, arguments.dtype) for level in LEVELS}
    runs: dict[Level, dict[str, list[GroupRun]]] = {level: defaultdict(list) for level in LEVELS}
    generator = random.Random(setting.depth)
    for round_index in range(-1, arguments.rounds):
        for index, text in enumerate(texts[: None if round_index >= 0 else 2]):
            params = SamplingParams(
                max_tokens=arguments.max_tokens, temperature=temperature, seed=index, ignore_eos=True
            )
            group = Group(str(index), [text], [params])
            for level in generator.sample(LEVELS, len(LEVELS)):
                run = run_group(llms[level], group, setting.depth)
                if round_index >= 0:
                    runs[level][group.name].append(run)
    ratios = [_seconds_per_step(runs["bitwise"][name]) / _seconds_per_step(runs["seed"][name]) for name in runs["seed"]]
    num_parted = sum(runs["bitwise"][name][0].token_ids != runs["seed"][name][0].token_ids for name in runs["seed"])
    interval = median_interval(ratios)
    milliseconds = {
        level: 1e3 * _seconds_per_step([run for each in named.values() for run in each])
        for level, named in runs.items()
    }
    print(f"{setting.name} T={temperature:g}: {show(interval)}, {num_parted} of {len(texts)} texts parted", flush=True)
    return {
        **setting._asdict(),
        "temperature": temperature,
        "price": interval._asdict(),
        "ratios": ratios,
        "step_ms": milliseconds,
        "texts_parted": num_parted,
    }


def _seconds_per_step(runs: list[GroupRun]) -> float:
    return sum(run.seconds for run in runs) / sum(run.num_steps for run in runs)


if __name__ == "__main__":
    main()
