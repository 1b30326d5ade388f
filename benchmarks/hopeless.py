"""Is a pair that cannot pay told so? Ten such pairs and some that do pay, through the whole checklist.

    python -m benchmarks.hopeless

The target is the bundled one. What cannot pay: drafts as large as the target, which err as weaker models err; drafts
that were disturbed, know other ids or know nothing; and a good draft where too many texts at once leave no free rows.
Of each the truth is measured, too, on prompts of all kinds: the draft model alone at each depth, in turns with plain
decoding. Judged is what is said of the draft model: it is told off if the check says not to speculate with it, or not
at all, and has it neither in what it recommends nor in the recipe. What pays without it, looking guesses up, is no
part of that. The prompts are those of which not much can be looked up.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import machine_to_ourselves, save
from benchmarks.predictions import write_texts
from benchmarks.stands import Pairs, model_of
from benchmarks.steady import SteadyRun, run_steadily
from outrider import EngineConfig, bundled_pair
from outrider.bench.embedding import write_damped
from outrider.bench.provenance import provenance
from outrider.bench.workloads import read_workloads
from outrider.check.budget import Budget
from outrider.check.checklist import Checklist, CheckPlan
from outrider.check.judgement import members
from outrider.check.prediction import WORTH
from outrider.check.prompts import CheckPrompt
from outrider.check.recipe import recipe_of
from outrider.check.stand import Stand
from outrider.check.texts import Watch
from outrider.check.verdict import Verdict
from outrider.model.weights import SINGLE_NAME

DEPTHS = (1, 2, 4)
KINDS = ("code", "prose", "chat")
NUM_TOKENS = 64

Maker = Callable[[Path], None]


class Case(NamedTuple):
    """One pair and load, and whether it can pay."""

    name: str
    make: Maker | None
    temperature: float
    num_sequences: int
    pays: bool = False


def damped(damping: float) -> Maker:
    return lambda folder: write_damped(bundled_pair().target, folder, damping)


def disturbed(scale: float) -> Maker:
    """The bundled draft, to each of whose matrices numbers are added that are so many times as large as its own."""

    def change(_: str, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return values + scale * values.std() * generator.standard_normal(values.shape, np.float32)

    return lambda folder: _write_changed(folder, change)


def of_other_ids() -> Maker:
    """The bundled draft as if its vocabulary were in another order: it was trained on something else."""

    def change(name: str, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(values) if "embed" in name else values

    return lambda folder: _write_changed(folder, change)


def _write_changed(folder: Path, change: Callable[[str, np.ndarray, np.random.Generator], np.ndarray]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    source, generator = bundled_pair().draft, np.random.default_rng(0)
    for file in source.iterdir():
        if file.name != SINGLE_NAME:
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = {
        name: torch.from_numpy(change(name, tensor.float().numpy(), generator)).bfloat16()
        if tensor.ndim > 1
        else tensor
        for name, tensor in sorted(load_file(source / SINGLE_NAME).items())
    }
    save_file(tensors, folder / SINGLE_NAME, {"format": "pt"})


CASES = (
    Case("as large as the target, agreement 0.6", damped(0.95703125), 0.0, 1),
    Case("as large as the target, agreement 0.4", damped(1.75), 0.0, 1),
    Case("as large as the target, agreement 0.7", damped(0.65625), 1.0, 1),
    Case("as large as the target, agreement 0.9", damped(0.21875), 1.0, 4),
    Case("as large as the target, agreement 0.7", damped(0.65625), 0.7, 8),
    Case("disturbed by as much as itself", disturbed(1.0), 0.7, 1),
    Case("disturbed by half of itself", disturbed(0.5), 1.0, 1),
    Case("trained on other ids", of_other_ids(), 1.0, 1),
    Case("disturbed by as much as itself", disturbed(1.0), 1.0, 8),
    Case("bundled draft, too many texts at once", None, 1.0, 16),
    Case("bundled draft", None, 0.0, 1, pays=True),
    Case("bundled draft", None, 0.7, 1, pays=True),
    Case("bundled draft", None, 1.0, 1, pays=True),
    Case("bundled draft", None, 0.0, 4, pays=True),
)


def is_told_off(verdict: Verdict, draft: Path) -> bool:
    """Whether it is said not to speculate with this draft, or not at all, and nothing with it is recommended."""
    is_used = verdict.decision == "speculate" and draft.name in members(verdict.drafter or "")
    told = ("Do not speculate:", f"Do not speculate with {draft.name}:", "Decode plainly:")
    return not is_used and any(sentence.startswith(told) for sentence in verdict.sentences)


def _is_in_recipe(document: dict[str, Any], verdict: Verdict, draft: Path) -> bool:
    recipe = recipe_of(document, verdict, bundled_pair().target, [draft])
    return recipe is not None and any(each.kind == "model" for each in recipe.drafts)


def check(case: Case, draft: Path, seconds: float, began: dict[str, Any]) -> dict[str, Any]:
    """What the checklist says, on every other prompt."""
    rows = zip(*(workload.prompts for workload in read_workloads(KINDS)), strict=True)
    prompts = [
        CheckPrompt(prompt.name, workload, prompt.text, None)
        for row in [*rows][:4]
        for workload, prompt in zip(KINDS, row, strict=True)
    ]
    plan = CheckPlan(
        target=bundled_pair().target,
        drafts=(draft,),
        prompts=tuple(prompts),
        is_own=True,
        temperatures=(case.temperature,),
        concurrencies=(case.num_sequences,),
        contexts=(512,),
    )
    document, verdict = Checklist(plan, Budget(seconds), Watch()).run()
    alone = [row for row in document["predictions"] if row["drafter"] == draft.name]
    best = max(alone, key=lambda row: row["speedup"]["value"])
    is_in_recipe = _is_in_recipe(document | {"provenance": began}, verdict, draft)
    judged = next(each for each in verdict.drafts if each.name == draft.name)
    return {
        "decision": verdict.decision,
        "drafter": verdict.drafter,
        "depth": verdict.depth,
        "sentences": verdict.sentences,
        "speedup": verdict.speedup._asdict() if verdict.speedup else None,
        "judgement": judged.as_dict(),
        "is_told_off": is_told_off(verdict, draft) and not is_in_recipe,
        "best_prediction_of_model": {"depth": best["depth"], **best["speedup"]},
        "agreement": best["agreement"],
        "used_seconds": document["plan"]["used_seconds"],
    }


def measure(case: Case, draft: Path, num_rounds: int, num_texts: int) -> dict[str, float]:
    """Speedup of the draft model alone at every depth, on other prompts, of all six workloads."""
    stand = Stand.load(bundled_pair().target, draft, EngineConfig(max_sequences=36))
    pairs = Pairs("bundled", stand, {"it": model_of(stand)})
    pairs.use("it")
    texts = write_texts(stand.llm, case.temperature, NUM_TOKENS).measured_on
    texts = texts[: max(num_texts, case.num_sequences)]
    generator = random.Random(0)
    runs: dict[int, list[SteadyRun]] = {depth: [] for depth in (0, *DEPTHS)}
    for number in range(-1, num_rounds):
        for depth in generator.sample(list(runs), len(runs)):
            run = run_steadily(
                stand.llm, texts if number >= 0 else texts[: case.num_sequences], case.num_sequences, depth
            )
            if number >= 0:
                runs[depth].append(run)
    rates = {depth: [run.num_tokens / run.seconds for run in each] for depth, each in runs.items()}
    return {
        str(depth): median(fast / plain for fast, plain in zip(rates[depth], rates[0], strict=True)) for depth in DEPTHS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of each checklist")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring what is true")
    parser.add_argument("--texts", type=int, default=8, help="of each round, at least")
    parser.add_argument("--cases", type=int, nargs="*", help="only these, by number; nothing is saved")
    arguments = parser.parse_args()
    began = provenance()
    rows: list[dict[str, Any]] = []
    with machine_to_ourselves(), tempfile.TemporaryDirectory() as scratch:
        for number in range(len(CASES)) if arguments.cases is None else arguments.cases:
            case = CASES[number]
            draft = bundled_pair().draft
            if case.make is not None:
                draft = Path(scratch) / f"draft-{number}"
                draft.mkdir()
                case.make(draft)
            row = {
                "name": case.name, "temperature": case.temperature, "num_sequences": case.num_sequences,
                "pays": case.pays, **check(case, draft, arguments.budget, began),
                "measured": measure(case, draft, arguments.rounds, arguments.texts),
            }  # fmt: skip
            row["is_truly"] = max(row["measured"].values()) >= WORTH
            rows.append(row)
            print(json.dumps(row, indent=1), flush=True)
    if arguments.cases is None:
        save("hopeless", began, {"rows": rows, **counts(rows)})


def _is_sure(row: dict[str, Any]) -> bool:
    """Told off because it does not pay, and not because that is open."""
    return row["is_told_off"] and row["judgement"]["conclusion"] == "does not pay"


def counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    hopeless, paying = ([row for row in rows if row["pays"] == pays] for pays in (False, True))
    return {
        "num_hopeless": len(hopeless),
        "num_told_off": sum(row["is_told_off"] for row in hopeless),
        "num_told_for_sure": sum(_is_sure(row) for row in hopeless),
        "num_paying": len(paying),
        "num_paying_told_off": sum(row["is_told_off"] for row in paying),
    }


if __name__ == "__main__":
    main()
