"""How many tokens come out of a forward of the target under each rule of verification; counted, not timed.

    python -m benchmarks.verification

Draft model alone, fixed depths. Both rules continue the same prompts with the same seeds, all prompts at once, to the
same length; what they write is not the same text. A prompt's ratio is of the forwards that its texts took.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.common import paired_ratio, read_prompts, save, show
from outrider import LLM, EngineConfig, Generation, SamplingParams, bundled_pair
from outrider.bench.provenance import provenance

RULES = ("coupled", "block")


class Case(NamedTuple):
    """How to sample, and how much to draft."""

    temperature: float
    depth: int


CASES = (Case(1.0, 8), Case(1.0, 4), Case(1.0, 16), Case(0.7, 8))


def write(llm: LLM, case: Case, seed: int, max_tokens: int) -> list[Generation]:
    """A text of each prompt."""
    prompts = read_prompts()
    params = [
        SamplingParams(temperature=case.temperature, seed=seed + index, max_tokens=max_tokens, ignore_eos=True)
        for index in range(len(prompts))
    ]
    return llm.generate([prompt.text for prompt in prompts], params, depth=case.depth)


def measure(llms: dict[str, LLM], case: Case, num_rounds: int, max_tokens: int) -> dict[str, Any]:
    """One row of the result."""
    written = {
        rule: [write(llm, case, 1000 * number, max_tokens) for number in range(num_rounds)]
        for rule, llm in llms.items()
    }
    steps = {rule: _by_prompt(rounds) for rule, rounds in written.items()}
    ratio = paired_ratio(steps["coupled"], steps["block"])
    stats = {rule: [text.stats for texts in rounds for text in texts] for rule, rounds in written.items()}
    lengths = {
        rule: sum(each.num_emitted for each in found) / sum(each.num_steps for each in found)
        for rule, found in stats.items()
    }
    print(f"{case}: {lengths['coupled']:.3f} and {lengths['block']:.3f} tokens a forward, {show(ratio)}", flush=True)
    return {
        **case._asdict(),
        "num_tokens": {rule: sum(each.num_emitted for each in found) for rule, found in stats.items()},
        "acceptance_length": lengths,
        "ratio": lengths["block"] / lengths["coupled"],
        "ratio_by_prompt": ratio._asdict(),
    }


def _by_prompt(rounds: Sequence[Sequence[Generation]]) -> dict[str, list[float]]:
    """Forwards that each prompt's texts took."""
    return {
        prompt.name: [float(texts[index].stats.num_steps) for texts in rounds]
        for index, prompt in enumerate(read_prompts())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=192)
    arguments = parser.parse_args()
    began = provenance()
    pair = bundled_pair()
    llms = {rule: LLM(pair.target, draft=pair.draft, config=EngineConfig(verify=rule)) for rule in RULES}
    rows = [measure(llms, case, arguments.rounds, arguments.max_tokens) for case in CASES]
    save("verification", began, {"drafter": "model", "rows": rows, "engine": llms["block"].describe()})


if __name__ == "__main__":
    main()
