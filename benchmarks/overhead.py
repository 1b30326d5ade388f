"""Time outside the models' forwards, as a share of a step: what our own Python costs.

    python -m benchmarks.overhead

Two targets with random weights: 0.44 B, greedy; and one with a vocabulary of 152,000 tokens at temperature 1, nothing
truncated. Each plain, and with a random draft model of depth 4, whose forwards count as forwards and whose sampling
does not (it is timed by wrapping the runtime).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import make_checkpoint
from benchmarks.common import machine_to_ourselves, read_prompts, save
from outrider import LLM, SamplingParams
from outrider.bench.provenance import provenance
from outrider.draft.cascade import Cascade
from outrider.draft.model import ModelDrafter


def time_forwards(runtime: Any) -> list[float]:
    """Make a runtime note how long each of its forwards takes."""
    seconds: list[float] = []
    forward = runtime.forward

    def timed(batch: Any) -> Any:
        began = time.perf_counter()
        output = forward(batch)
        if any(rows.output_rows and not rows.is_prompt for rows in batch):
            seconds.append(time.perf_counter() - began)
        return output

    runtime.forward = timed
    return seconds


def measure(name: str, folder: Path, temperature: float, depth: int, max_tokens: int) -> dict[str, Any]:
    llm = LLM(make_checkpoint(name, folder), draft=make_checkpoint(name, folder, draft=True))
    assert isinstance(llm.drafter, Cascade)
    (drafter,) = (member for member in llm.drafter.members if isinstance(member, ModelDrafter))
    in_target, in_draft = time_forwards(llm.target), time_forwards(drafter.runtime)
    prompts = [prompt.text for prompt in read_prompts()[:4]]
    llm.generate(prompts[0], SamplingParams(max_tokens=8, temperature=temperature, seed=0), depth=depth)
    in_target.clear()
    in_draft.clear()
    total = 0.0
    for seed, prompt in enumerate(prompts):
        params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
        (generation,) = llm.generate(prompt, params, depth=depth)
        total += generation.stats.decode_seconds
    share = 1 - (sum(in_target) + sum(in_draft)) / total
    num_steps = len(in_target)
    row = {
        "target": name, "temperature": temperature, "depth": depth, "share_outside_forwards": share,
        "milliseconds_per_step": {
            "all": 1000 * total / num_steps, "target": 1000 * sum(in_target) / num_steps,
            "draft": 1000 * sum(in_draft) / num_steps,
        },
        "memory_bytes": llm.memory(),
    }  # fmt: skip
    print(
        f"{name} T={temperature} depth {depth}: {100 * share:.1f} % of {row['milliseconds_per_step']['all']:.1f} ms",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/checkpoints"))
    parser.add_argument("--max-tokens", type=int, default=48)
    arguments = parser.parse_args()
    began = provenance()
    with machine_to_ourselves():
        rows = [
            measure(name, arguments.folder, temperature, depth, arguments.max_tokens)
            for name, temperature in (("0.44b", 0.0), ("152k", 1.0))
            for depth in (0, 4)
        ]
    save("overhead", began, {"batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
