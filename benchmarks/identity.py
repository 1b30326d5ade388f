"""Does anything but the seed change the text? Every setting against plain decoding, one sequence at a time.

    python -m benchmarks.identity

Prompts, temperatures, drafters and depths, chains and trees, alone and four, eight or twelve sequences at once, with
prompts' beginnings shared and with caches taken away and computed again; in bfloat16 and float32, and on a full-price
pair. Counts the tokens that were compared and the texts that diverge anywhere, be it in the last bit of a
log-probability; at level `bitwise` that number must be 0, and the benchmark fails if it is not.

The full-price pair is made by `outrider bench make-pair --size 0.5b --agreement 0.8 --out build/pairs/0.5b-0.8`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import read_prompts, save
from outrider import LLM, EngineConfig, Generation, RuntimeOptions, SamplingParams, bundled_pair
from outrider.bench.provenance import provenance
from outrider.request import TokenLogProbs

TEMPERATURES = (0.0, 0.7, 1.0)
MAX_TOKENS = 192
# Slots for some six of the prompts' texts, of which eight or twelve decode together: some lose theirs.
SCARCE_CACHE = 1536


class Setting(NamedTuple):
    """One way to write the texts."""

    engine: str
    depth: int | str
    num_together: int


SETTINGS = [
    *(Setting(*each) for each in itertools.product(("model", "suffix"), (1, 3, 4, 8, 12), (1, 4))),
    *(Setting("cascade", "auto", num_together) for num_together in (1, 8)),
    Setting("model", 0, 4),
    Setting("model", 0, 12),
    Setting("trees", 8, 1),
    Setting("trees", 8, 8),
    Setting("trees", 16, 4),
    Setting("scarce", 4, 12),
    Setting("scarce", 0, 12),
]


@dataclass
class Part:
    """One target in one precision, and what was found on it.

    Attributes:
        num_tokens: to compare at least, in whole rounds of all temperatures.
        num_prompts: the first so many; None: all.
        num_preempted: texts that lost their cache on the way.
        divergences: the setting of each text that was not plain decoding's, and the place of its first difference.
    """

    pair: str
    dtype: str
    target: Path
    draft: Path
    num_tokens: int
    num_prompts: int | None = None
    tokens_compared: int = 0
    texts_compared: int = 0
    num_preempted: int = 0
    divergences: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def compare(self) -> dict[str, Any]:
        """Every setting in turn, two of each round of plain texts; what the engine says of itself."""
        # The plain texts' prompts are computed by themselves; all others share beginnings and what was kept of them.
        alone = self._load(None, max_prefix_tokens=0)
        llms = {
            "model": self._load(self.draft),
            "suffix": self._load("suffix"),
            "cascade": self._load(["suffix", self.draft]),
            "trees": self._load(self.draft, max_children=3),
            "scarce": self._load(self.draft, max_cache_tokens=SCARCE_CACHE),
        }
        # By sevens, so that the first few are of all kinds already.
        turns = itertools.cycle(SETTINGS[(7 * index) % len(SETTINGS)] for index in range(len(SETTINGS)))
        prompts = [prompt.text for prompt in read_prompts()[: self.num_prompts]]
        for seed in itertools.count():
            for temperature in TEMPERATURES:
                params = [
                    SamplingParams(temperature=temperature, seed=100 * seed + index, max_tokens=MAX_TOKENS, log_probs=0)
                    for index in range(len(prompts))
                ]
                plain = [written(alone.generate(*each, depth=0)[0]) for each in zip(prompts, params, strict=True)]
                for setting in (next(turns), next(turns)):
                    self._compare(llms[setting.engine], setting, prompts, params, plain)
                print(
                    f"{self.pair} {self.dtype}: {self.tokens_compared:,} tokens in {self.texts_compared} texts "
                    f"compared, {self.num_preempted} preempted, {len(self.divergences)} diverge",
                    flush=True,
                )
            if self.tokens_compared >= self.num_tokens:
                return llms["model"].describe()
        raise AssertionError

    def _load(self, draft: Any, **config: Any) -> LLM:
        options = RuntimeOptions(dtype=self.dtype)
        # The prompts are short: what they share is found in pieces of 32.
        config = EngineConfig(exactness="bitwise", options=options, prefill_chunk=32, **config)
        return LLM(self.target, draft, config=config)

    def _compare(
        self,
        llm: LLM,
        setting: Setting,
        prompts: list[str],
        params: list[SamplingParams],
        plain: list[list[tuple[int, TokenLogProbs]]],
    ) -> None:
        for start in range(0, len(prompts), setting.num_together):
            part = slice(start, start + setting.num_together)
            generations = llm.generate(prompts[part], params[part], depth=setting.depth)
            for generation, asked, expected in zip(generations, params[part], plain[part], strict=True):
                text = written(generation)
                self.tokens_compared += len(expected)
                self.texts_compared += 1
                self.num_preempted += generation.num_preempted > 0
                if text != expected:
                    pairs = enumerate(zip(text, expected, strict=False))
                    first = next((at for at, (a, b) in pairs if a != b), min(len(text), len(expected)))
                    of_text = {"temperature": asked.temperature, "seed": asked.seed, "at": first}
                    self.divergences.append({**setting._asdict(), **of_text})


def written(generation: Generation) -> list[tuple[int, TokenLogProbs]]:
    """Each token with how likely it was."""
    return list(zip(generation.token_ids, generation.log_probs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=70_000, help="to compare at least on the bundled pair, bfloat16")
    parser.add_argument("--float32-tokens", type=int, default=40_000, help="and in float32")
    parser.add_argument("--full-price-tokens", type=int, default=5_000, help="and on the full-price pair")
    parser.add_argument("--full-price", type=Path, default=Path("build/pairs/0.5b-0.8"), help="where that is")
    arguments = parser.parse_args()
    began = provenance()
    pair, other = bundled_pair(), arguments.full_price
    parts = [
        Part("bundled", "bfloat16", pair.target, pair.draft, arguments.tokens),
        Part("bundled", "float32", pair.target, pair.draft, arguments.float32_tokens),
        Part(other.name, "bfloat16", other / "target", other / "draft", arguments.full_price_tokens, 8),
    ]
    parts = [part for part in parts if part.num_tokens]
    engines = [part.compare() for part in parts]
    rows = [
        {**asdict(part), "target": None, "draft": None, "engine": engine}
        for part, engine in zip(parts, engines, strict=True)
    ]
    num_divergences = sum(len(part.divergences) for part in parts)
    document = {
        "temperatures": TEMPERATURES,
        "tokens_compared": sum(part.tokens_compared for part in parts),
        "texts_compared": sum(part.texts_compared for part in parts),
        "texts_that_diverge": num_divergences,
        "rows": rows,
    }
    save("identity", began, document)
    sys.exit(1 if num_divergences else 0)


if __name__ == "__main__":
    main()
