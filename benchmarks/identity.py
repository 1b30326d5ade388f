"""Does anything but the seed change the text? Every setting against plain decoding, one sequence at a time.

    python -m benchmarks.identity --tokens 100000

Prompts, temperatures, drafters and depths, chains and trees, alone and four, eight or twelve sequences at once. Counts
the tokens that were compared and the texts that diverge anywhere, be it in the last bit of a log-probability; at level
`bitwise` that number must be 0, and the benchmark fails if it is not.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from benchmarks.common import read_prompts, save
from outrider import LLM, EngineConfig, Generation, RuntimeOptions, SamplingParams, bundled_pair
from outrider.bench.provenance import provenance
from outrider.request import TokenLogProbs

TEMPERATURES = (0.0, 0.7, 1.0)
MAX_TOKENS = 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens to compare at least")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="to compute in, if not the checkpoint's own")
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    options = RuntimeOptions(dtype=arguments.dtype)
    llms = {
        name: LLM(pair.target, draft=draft, config=EngineConfig(options=options, max_children=max_children))
        for name, draft, max_children in (("model", pair.draft, 1), ("suffix", "suffix", 1), ("trees", pair.draft, 3))
    }
    prompts = [prompt.text for prompt in read_prompts()]
    num_compared, num_texts, divergences = 0, 0, []
    for seed in itertools.count():
        for temperature in TEMPERATURES:
            params = [
                SamplingParams(temperature=temperature, seed=100 * seed + index, max_tokens=MAX_TOKENS, log_probs=0)
                for index in range(len(prompts))
            ]
            plain = [written(llms["model"].generate(*pair_, depth=0)[0]) for pair_ in zip(prompts, params, strict=True)]
            for drafter, depth, num_together in settings(seed):
                texts = []
                for start in range(0, len(prompts), num_together):
                    part = slice(start, start + num_together)
                    generations = llms[drafter].generate(prompts[part], params[part], depth=depth)
                    texts += map(written, generations)
                for index, (text, expected) in enumerate(zip(texts, plain, strict=True)):
                    num_compared += len(expected)
                    num_texts += 1
                    if text != expected:
                        pairs = enumerate(zip(text, expected, strict=False))
                        first = next((at for at, (a, b) in pairs if a != b), min(len(text), len(expected)))
                        setting = {"drafter": drafter, "depth": depth, "sequences": num_together}
                        divergences.append(
                            {"temperature": temperature, "seed": params[index].seed, "at": first, **setting}
                        )
        print(f"{num_compared:,} tokens in {num_texts} texts compared, {len(divergences)} diverge", flush=True)
        if num_compared >= arguments.tokens:
            break
    engine = llms["model"].describe()
    counts = {"tokens_compared": num_compared, "texts_compared": num_texts, "texts_that_diverge": len(divergences)}
    save("identity", began, {**counts, "divergences": divergences[:50], "temperatures": TEMPERATURES, "engine": engine})
    sys.exit(1 if divergences and engine["exactness"] == "bitwise" else 0)


def written(generation: Generation) -> list[tuple[int, TokenLogProbs]]:
    """Each token with how likely it was."""
    return list(zip(generation.token_ids, generation.log_probs, strict=True))


def settings(seed: int) -> list[tuple[str, int, int]]:
    """Two settings a round, so that rounds go through all of them: drafter, depth, sequences at once."""
    everything = list(itertools.product(("model", "suffix"), (1, 3, 4, 8, 12), (1, 4)))
    everything += [("model", 0, 4), ("model", 0, 12), ("trees", 8, 1), ("trees", 8, 8), ("trees", 16, 4)]
    return [everything[(7 * (2 * seed + offset)) % len(everything)] for offset in range(2)]


if __name__ == "__main__":
    main()
