"""Do trees beat chains? Tokens per target forward at equal verified nodes, on the bundled pair with its draft model.

    python -m benchmarks.trees

The same texts, drafted in chains of N tokens and in trees of at most N nodes, with two to four children a node; the
texts must come out equal. Counts forwards and draft steps, no seconds: what either costs is the machine's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.common import read_prompts, save, show
from outrider import LLM, EngineConfig, Generation, SamplingParams, bundled_pair
from outrider.bench.measure import Interval, median_interval
from outrider.bench.provenance import provenance

TEMPERATURES = (0.0, 1.0)
NUM_NODES = (4, 8, 16)
NUM_CHILDREN = (1, 2, 3, 4)
MAX_TOKENS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, help="only the first so many")
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    llms = {count: LLM(pair.target, pair.draft, config=EngineConfig(max_children=count)) for count in NUM_CHILDREN}
    prompts = [prompt.text for prompt in read_prompts()][: arguments.prompts]
    rows: list[dict[str, Any]] = []
    for temperature in TEMPERATURES:
        params = [
            SamplingParams(temperature=temperature, seed=index, max_tokens=MAX_TOKENS) for index in range(len(prompts))
        ]
        plain = [each.token_ids for each in llms[1].generate(prompts, params, depth=0)]
        for num_nodes in NUM_NODES:
            chains: Sequence[Generation] = ()
            for num_children, llm in llms.items():
                generations = llm.generate(prompts, params, depth=num_nodes)
                if [each.token_ids for each in generations] != plain:
                    raise SystemExit(
                        f"{num_children} children and {num_nodes} nodes changed a text: no count is worth it"
                    )
                chains = chains or generations
                rows.append({"temperature": temperature, "num_nodes": num_nodes, "max_children": num_children})
                rows[-1] |= counts_of(generations, chains)
                say(rows[-1])
    save(
        "trees", began, {"max_tokens": MAX_TOKENS, "prompts": len(prompts), "rows": rows, "engine": llms[2].describe()}
    )


def counts_of(generations: Sequence[Generation], chains: Sequence[Generation]) -> dict[str, Any]:
    """Over all texts together, and text by text against chains."""
    stats = [each.stats for each in generations]
    num_steps = sum(each.num_steps for each in stats)
    ratios = [chain.stats.num_steps / each.num_steps for chain, each in zip(chains, stats, strict=True)]
    return {
        "exactness": sorted({each.exactness for each in generations}),
        "tokens_per_forward": sum(each.num_emitted for each in stats) / num_steps,
        "nodes_per_forward": sum(each.num_drafted for each in stats) / num_steps,
        "mean_depth": sum(sum(each.drafted_at) for each in stats) / num_steps,
        "branching_share": sum(each.num_branching for each in stats) / num_steps,
        "over_chain": median_interval(ratios)._asdict(),
    }


def say(row: dict[str, Any]) -> None:
    over = show(Interval(**row["over_chain"]))
    print(
        f"T={row['temperature']:g} {row['num_nodes']:>2} nodes {row['max_children']} children: "
        f"{row['tokens_per_forward']:.2f} tokens, {row['nodes_per_forward']:.1f} nodes, depth {row['mean_depth']:.1f}, "
        f"over chain {over}",
        flush=True,
    )


if __name__ == "__main__":
    main()
