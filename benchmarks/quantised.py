"""What an int8 target gains beside the bf16 checkpoint it was made from: steps of few and many rows, and texts.

    outrider bench make-pair --size 0.5b --agreement 0.8 --out build/pair
    python -m benchmarks.quantised build/pair

Forwards of both take turns at each number of rows. Then each prompt is continued four times in turns: by either target,
plainly and with the pair's draft. A target's own two texts must be equal, or nothing is written; the two targets' need
not be, since they are two models.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import machine_to_ourselves, paired_ratio, read_prompts, save, show
from outrider import LLM, SamplingParams
from outrider.bench.provenance import provenance
from outrider.cache.table import num_blocks_for
from outrider.model.fields import Fields
from outrider.quantize.checkpoint import Original
from outrider.runtime.base import Runtime, RuntimeOptions, SequenceRows
from outrider.runtime.openvino.runtime import OpenVinoRuntime

WIDTHS = (1, 2, 5, 9, 17, 33)
CONTEXT = 512
NUM_TIMED = 9
SETTINGS = [(target, depth) for target in ("original", "int8") for depth in (0, "auto")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", type=Path, help="a folder that bench make-pair wrote")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    began = provenance()
    pair: Path = arguments.pair
    with tempfile.TemporaryDirectory() as scratch, machine_to_ourselves():
        original = Original(pair / "target")
        original.write_quantised(Path(scratch), lambda _: None)
        folders = {"original": pair / "target", "int8": Path(scratch)}
        steps = time_steps(folders)
        llms = {name: LLM(folder, draft=pair / "draft") for name, folder in folders.items()}
        texts = time_texts(llms, arguments.prompts, arguments.max_tokens)
        document = {
            "num_parameters": Fields.read(pair / "pair.json").section("num_parameters").values,
            "agreement": Fields.read(pair / "pair.json").section("agreement").values,
            "bytes": {"original": original.num_bytes, "int8": original.num_quantised_bytes},
            "context": CONTEXT,
            "prompts": arguments.prompts,
            "max_tokens": arguments.max_tokens,
            "engines": {name: llm.describe() for name, llm in llms.items()},
            "steps": steps,
            "texts": texts,
        }
    save("quantised", began, document)


def time_steps(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Median milliseconds of a forward of so many rows, the targets taking turns."""
    runtimes = {name: OpenVinoRuntime.from_folder(folder, RuntimeOptions()) for name, folder in folders.items()}
    for runtime in runtimes.values():
        runtime.prepare()  # as engines do
        runtime.resize(num_blocks_for(CONTEXT + max(WIDTHS)))
        forward(runtime, CONTEXT, 0)
    steps: list[dict[str, Any]] = []
    for width in WIDTHS:
        seconds: dict[str, list[float]] = defaultdict(list)
        for turn in range(NUM_TIMED + 2):
            for name, runtime in runtimes.items():
                start = time.perf_counter()
                forward(runtime, width, CONTEXT)
                if turn > 1:
                    seconds[name].append(time.perf_counter() - start)
        steps.append({"rows": width} | {name: 1000 * median(each) for name, each in seconds.items()})
        print(steps[-1], flush=True)
    return steps


def forward(runtime: Runtime, num_rows: int, num_past: int) -> None:
    tokens = [7 * place % 1000 for place in range(num_rows)]
    runtime.forward([SequenceRows(tokens, num_past, range(runtime.num_blocks), range(min(num_rows, max(WIDTHS))))])


def time_texts(llms: dict[str, LLM], num_prompts: int, max_tokens: int) -> list[dict[str, Any]]:
    """How much sooner int8 writes, plainly and with drafts, and what drafts gain of each."""
    seconds: dict[tuple[str, int | str], dict[str, list[float]]] = {each: {} for each in SETTINGS}
    lengths: dict[tuple[str, int | str], list[float]] = defaultdict(list)
    generator = random.Random(0)
    for index, prompt in enumerate(read_prompts()[:num_prompts]):
        params = SamplingParams(temperature=0.0, seed=index, max_tokens=max_tokens)
        written: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        for target, depth in generator.sample(SETTINGS, len(SETTINGS)):
            (text,) = llms[target].generate([prompt.text], params, depth=depth)
            written[target].add(text.token_ids)
            seconds[target, depth][prompt.name] = [text.stats.decode_seconds / text.stats.num_emitted]
            lengths[target, depth].append(text.stats.acceptance_length or 1.0)
        if any(len(texts) > 1 for texts in written.values()):
            raise SystemExit(f"speculation changed a target's text of {prompt.name!r}: no speed is worth reporting")
    compared = {
        "int8 over original, plain": (("original", 0), ("int8", 0)),
        "int8 over original, speculative": (("original", "auto"), ("int8", "auto")),
        "speculation, original": (("original", 0), ("original", "auto")),
        "speculation, int8": (("int8", 0), ("int8", "auto")),
    }
    rows: list[dict[str, Any]] = []
    for name, (base, other) in compared.items():
        ratio = paired_ratio(seconds[base], seconds[other])
        speed = 1 / median(each for (each,) in seconds[other].values())
        rows.append(
            {"what": name, "ratio": ratio._asdict(), "tokens_per_second": speed, "accepted": median(lengths[other])}
        )
        print(f"{name}: {show(ratio)}, {speed:.1f} tokens/s", flush=True)
    return rows


if __name__ == "__main__":
    main()
