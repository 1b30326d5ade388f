"""Do trees beat chains? Tokens per target forward at equal verified nodes, on the bundled pair with its draft model.

    python -m benchmarks.trees
    python -m benchmarks.trees --auto [--target DIR --draft DIR]

The same texts, drafted in chains of N tokens and in trees of at most N nodes, with two to four children a node; the
texts must come out equal. Counts forwards and draft steps, no seconds: what either costs is the machine's.

With --auto the policy plans, once with trees allowed and once with chains only, each prompt with both, one after the
other and in turns. Tokens per second, trees over chains: of all prompts, and of those where it picked trees. Takes
less than five minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.common import machine_to_ourselves, read_prompts, save, show
from outrider import LLM, EngineConfig, Generation, SamplingParams, bundled_pair
from outrider.bench.measure import Interval, median_interval
from outrider.bench.provenance import provenance
from outrider.policy.branching import MAX_AUTO_CHILDREN

TEMPERATURES = (0.0, 1.0)
NUM_NODES = (4, 8, 16)
NUM_CHILDREN = (1, 2, 3, 4)
MAX_TOKENS = 128
NUM_AUTO, AUTO_TOKENS = 8, 96
PICKED = 0.2  # share of a text's steps that verified trees, from which on the policy picked them there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, help="only the first so many")
    parser.add_argument("--auto", action="store_true", help="let the policy choose, and measure seconds")
    parser.add_argument("--target", help="with --auto: another pair's target")
    parser.add_argument("--draft", help="with --auto: another pair's draft model")
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    if arguments.auto:
        models = (arguments.target or pair.target, arguments.draft or pair.draft)
        with machine_to_ourselves():
            document = choose(models, [prompt.text for prompt in read_prompts()][: arguments.prompts or NUM_AUTO])
        save("trees_auto", began, document)
        return
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


def choose(models: tuple[Any, Any], prompts: list[str]) -> dict[str, Any]:
    """What the policy makes of trees."""
    llms = {count: LLM(*models, config=EngineConfig(max_children=count)) for count in (1, MAX_AUTO_CHILDREN)}
    for llm in llms.values():
        llm.generate(prompts[:1], SamplingParams(temperature=1.0, seed=99, max_tokens=AUTO_TOKENS))
    rows: list[dict[str, Any]] = []
    for temperature in TEMPERATURES:
        pairs: list[tuple[float, float]] = []
        for index, prompt in enumerate(prompts):
            params = SamplingParams(temperature=temperature, seed=index, max_tokens=AUTO_TOKENS)
            order = sorted(llms, reverse=index % 2 == 1)
            made = {count: llms[count].generate([prompt], params)[0] for count in order}
            chain, tree = (made[count] for count in llms)
            if tree.token_ids != chain.token_ids:
                raise SystemExit("trees changed a text: no count is worth it")
            speeds = [each.stats.num_emitted / each.stats.decode_seconds for each in (chain, tree)]
            pairs.append((speeds[1] / speeds[0], tree.stats.num_branching / tree.stats.num_steps))
        picked = [ratio for ratio, share in pairs if share >= PICKED]
        rows.append(
            {
                "temperature": temperature,
                "over_chain": median_interval([ratio for ratio, _ in pairs])._asdict(),
                "branching_share": sum(share for _, share in pairs) / len(pairs),
                "num_picked": len(picked),
                "over_chain_where_picked": median_interval(picked)._asdict() if picked else None,
            }
        )
        where = show(Interval(**rows[-1]["over_chain_where_picked"])) if picked else "nowhere picked"
        print(
            f"T={temperature:g}: trees allowed over chains only {show(Interval(**rows[-1]['over_chain']))}; "
            f"where picked, {len(picked)} of {len(pairs)} prompts, {where}",
            flush=True,
        )
    return {"models": [str(model) for model in models], "max_tokens": AUTO_TOKENS, "rows": rows}


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
