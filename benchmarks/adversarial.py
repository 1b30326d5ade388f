"""The price of a bad drafter on the wall clock: `auto` with one that never helps, over plain decoding.

    python -m benchmarks.adversarial

Every text starts with a policy that has seen nothing, so each pays for finding out. A text has 512 tokens. The target's
side of the drafters' cost is real; "slow" sleeps nine times as long as its draft model computed.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.common import machine_to_ourselves, paired_ratio, read_prompts, save, show
from benchmarks.groups import Group, run_all
from outrider import LLM, Draft, Drafter, SamplingParams, TokenTree, bundled_pair
from outrider.bench.provenance import provenance
from outrider.cli.demo_drafters import random_copy
from outrider.demo import BundledPair
from outrider.engine.load import LoadedModel, make_member
from outrider.tree import DraftBudget

NUM_TOKENS = 512


class Wrong(Drafter):
    """Never right: tokens drawn by chance from a large vocabulary, for nothing."""

    name = "wrong"

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._random = random.Random(0)

    def propose(self, sequences: Sequence[Any], budgets: Sequence[DraftBudget]) -> Draft:
        return Draft(
            [
                TokenTree.chain(tuple(self._random.randrange(self._vocab_size) for _ in range(budget.limit)))
                for budget in budgets
            ]
        )


class Slow(Drafter):
    """Another drafter, ten times as slow."""

    name = "slow"

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter

    def propose(self, sequences: Sequence[Any], budgets: Sequence[DraftBudget]) -> Draft:
        began = time.perf_counter()
        draft = self._drafter.propose(sequences, budgets)
        time.sleep(9 * (time.perf_counter() - began))
        return draft

    def release(self, sequence: Any) -> None:
        self._drafter.release(sequence)


def measure(name: str, llm: LLM, rounds: int) -> dict[str, Any]:
    """`auto` over plain decoding, texts paired."""
    generator = random.Random(0)
    seconds: dict[int | str, dict[str, list[float]]] = {0: {}, "auto": {}}
    num_drafted = 0
    for round_index in range(rounds):
        for index, prompt in enumerate(read_prompts()):
            params = SamplingParams(
                max_tokens=NUM_TOKENS, temperature=1.0, ignore_eos=True, seed=100 * round_index + index
            )
            llm.forget()
            runs = run_all(llm, Group(prompt.name, [prompt.text], [params]), generator.sample((0, "auto"), 2))
            num_drafted += runs["auto"].num_drafted
            for setting, run in runs.items():
                seconds[setting].setdefault(prompt.name, []).append(run.seconds)
    interval = paired_ratio(seconds[0], seconds["auto"])
    print(f"{name}: {show(interval)}, {num_drafted} tokens drafted", flush=True)
    return {"drafter": name, "speed_over_plain": interval._asdict(), "num_drafted": num_drafted}


def drafters(pair: BundledPair) -> dict[str, Any]:
    """Each as `LLM` takes it; the first two have a model's cost."""
    target = LLM(pair.target)
    loaded = LoadedModel(target.target, target.tokenizer)
    with random_copy(pair.draft) as folder:
        useless = [make_member(folder, loaded, target.config) for _ in range(2)]
    return {
        "random weights": useless[0],
        "random weights, 10x slow": Slow(useless[1]),
        "draft model, 10x slow": Slow(make_member(pair.draft, loaded, target.config)),
        "always wrong, free": Wrong(target.target.config.vocab_size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    with machine_to_ourselves():
        rows = [
            measure(name, LLM(pair.target, draft=drafter), arguments.rounds) for name, drafter in drafters(pair).items()
        ]
    save("adversarial", began, {"tokens_per_text": NUM_TOKENS, "temperature": 1.0, "rows": rows})


if __name__ == "__main__":
    main()
