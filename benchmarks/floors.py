"""How far a step is from the least that it could take on this machine: bytes to read, operations to do, time taken.

    python -m benchmarks.floors                     all parts, one after the other
    python -m benchmarks.floors --part bundled      only this one, or these; others stay as the result file has them

A step's floor is the longer of two times: that of reading every weight as the checkpoint stores it, and every key and
value of the texts, once, at the rate at which this machine reads as much again and again; and that of its operations
at the rate of a large product of matrices. The rates are measured in part `machine`, which the other parts go by. Steps
are timed one after the other through the runtime's `forward`, as texts go on: some rows each, after so many tokens.

Models of a stated size have random weights and cached values, which cost what others cost. What would not fit into the
memory that is free is left out, and says so. Part `loop` is what a whole step of the engine takes, by its stages: with
the bundled pair, and with the pair of `outrider bench make-pair --size 0.5b --agreement 0.8 --out build/pairs/0.5b-0.8`
where it has been made.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.common import machine_to_ourselves, read_prompts, save
from benchmarks.limits import measure_machine, rate_of_multiplying, rate_of_reading
from outrider import LLM, SamplingParams, bundled_pair
from outrider.bench.embedding import Shape
from outrider.bench.machine import free_bytes
from outrider.bench.pairs import SIZES
from outrider.bench.provenance import provenance
from outrider.cache.table import num_blocks_for
from outrider.engine.memory import DTYPE_BYTES, NUM_PACKED_COPIES
from outrider.model.config import ModelConfig, read_config
from outrider.model.weights import RawTensor, Weights, as_float32, expected_shapes, num_matrix_values, scale_name
from outrider.quantize.checkpoint import round_rows
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino.runtime import OpenVinoRuntime

WIDTHS, CONTEXTS, CROWDS = (1, 4, 8, 16), (512, 4096), (1, 8)
# Of a step: so many, or as many as take so long.
MAX_TIMED, MAX_WARM, MAX_SECONDS = 15, 40, 1.0
NUM_PROMPTS, NUM_TOKENS = 4, 128
FULL_PRICE = Path("build/pairs/0.5b-0.8")
STORED_BYTES, QUANTISED_BYTES = 2, 1  # of a weight


class Model(NamedTuple):
    """What is timed: the bundled pair's own, or a shape with random weights.

    Attributes:
        name: in the result.
        is_target: bits count, as a target's do.
        folder: None: of random weights.
        shape: of those.
        vocab_size: of those; None: the bundled pair's.
        is_quantised: of those: they are made int8, as `outrider quantize` does.
    """

    name: str
    is_target: bool = True
    folder: Path | None = None
    shape: Shape | None = None
    vocab_size: int | None = None
    is_quantised: bool = False


DRAFT = Shape(hidden_size=512, intermediate_size=1536, num_layers=5, num_heads=8, num_kv_heads=4)
PARTS = {
    "bundled": (
        Model("target", folder=bundled_pair().target),
        Model("draft", is_target=False, folder=bundled_pair().draft),
    ),
    "draft": (
        Model("32 M", is_target=False, shape=DRAFT, vocab_size=32_000),
        Model("32 M, int8", is_target=False, shape=DRAFT, vocab_size=32_000, is_quantised=True),
    ),
    "0.5b": (Model("0.5b", shape=SIZES["0.5b"]),),
    "1.5b": (Model("1.5b", shape=SIZES["1.5b"]),),
}


class Step(NamedTuple):
    """So many sequences, each with so many rows after so many tokens."""

    num_sequences: int
    num_rows: int
    num_past: int


class Work(NamedTuple):
    """What a step cannot do without.

    Attributes:
        weight_bytes: as stored.
        cache_bytes: keys and values of what is past, in the dtype that is computed in.
        operations: multiplications and additions of products.
    """

    weight_bytes: int
    cache_bytes: int
    operations: int

    @property
    def num_bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes


def work_of(config: ModelConfig, dtype: str, step: Step) -> Work:
    """Every matrix for every row; the embedding counts where it is the head too. Attention for each key seen."""
    num_values, num_rows = num_matrix_values(config), step.num_sequences * step.num_rows
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * DTYPE_BYTES[dtype]
    seen = step.num_past + (step.num_rows + 1) / 2
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * seen
    return Work(
        (QUANTISED_BYTES if config.is_quantised else STORED_BYTES) * num_values,
        per_token * step.num_past * step.num_sequences,
        int(num_rows * (2 * num_values + attention)),
    )


def multiplied_in(config: ModelConfig, dtype: str) -> str:
    """What the numbers are that are multiplied, where everything else is computed in this dtype."""
    return "int8" if config.is_quantised else dtype


def floor_of(machine: dict[str, Any], work: Work, multiplied: str, num_threads: int) -> dict[str, float]:
    """Milliseconds of a step whose products are of numbers of this dtype."""
    reading = work.num_bytes / rate_of_reading(machine, work.num_bytes, num_threads)
    multiplying = work.operations / rate_of_multiplying(machine, multiplied, num_threads)
    return {"reading_ms": 1000 * reading, "multiplying_ms": 1000 * multiplying, "ms": 1000 * max(reading, multiplying)}


def random_weights(config: ModelConfig) -> Weights:
    """Numbers of about 0.02, as a fresh model's are, int8 where the model is; norms of 1."""
    generator = np.random.default_rng(0)
    tensors: dict[str, RawTensor] = {}
    for name, shape in expected_shapes(replace(config, is_quantised=False)).items():
        if len(shape) == 1:
            bits = np.full(shape, 0x3F80, np.uint16)
        else:
            bits = generator.integers(2**16, size=shape, dtype=np.uint16)
            bits &= 0x807F
            bits |= 0x3C80
        tensors[name] = RawTensor("BF16", bits)
    original = Weights(tensors, Path())
    return quantised(original) if config.is_quantised else original


def quantised(weights: Weights) -> Weights:
    """The same with int8 matrices."""
    tensors: dict[str, RawTensor] = {}
    for name in weights.names:
        values = as_float32(weights[name])
        if values.ndim == 2:
            rounded = round_rows(values)
            tensors |= {name: RawTensor("I8", rounded.levels), scale_name(name): RawTensor("F32", rounded.scales)}
        else:
            tensors[name] = RawTensor("F32", values)
    return Weights(tensors, Path())


def load(model: Model) -> OpenVinoRuntime:
    options = RuntimeOptions(bitwise=model.is_target)
    if model.folder:
        runtime = OpenVinoRuntime.from_folder(model.folder, options)
    else:
        config = config_of(model)
        runtime = OpenVinoRuntime(config, random_weights(config), options)
    runtime.prepare()  # as engines do
    return runtime


def config_of(model: Model) -> ModelConfig:
    config = read_config(model.folder or bundled_pair().target)
    if model.shape is None:
        return config
    config = replace(config, **asdict(model.shape), max_context=max(CONTEXTS) + 2 * max(WIDTHS))
    config = replace(config, vocab_size=model.vocab_size or config.vocab_size)
    return replace(config, is_quantised=True, dtype="float32") if model.is_quantised else config


def fill_cache(runtime: OpenVinoRuntime, num_blocks: int) -> None:
    """Random keys and values: memory that nobody has written is not there to be read."""
    runtime.resize(num_blocks)
    for array in runtime._caches():  # noqa: SLF001 - computing them all would take minutes
        values = np.random.default_rng(0).standard_normal(array.shape[1:], np.float32)
        array[...] = values if array.dtype == np.float32 else values.view(np.uint32) >> 16


def time_step(runtime: OpenVinoRuntime, step: Step, tables: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Seconds of a step like the one before."""
    batch = [
        SequenceRows([7] * step.num_rows, step.num_past, table, range(step.num_rows))
        for table in tables[: step.num_sequences]
    ]
    began = time.perf_counter()
    for number in range(MAX_WARM):
        output = runtime.forward(batch)
        if number and time.perf_counter() - began > MAX_SECONDS / 4:
            break
    seconds: list[float] = []
    while len(seconds) < MAX_TIMED and (len(seconds) < 2 or sum(seconds) < MAX_SECONDS):
        began = time.perf_counter()
        output = runtime.forward(batch)
        seconds.append(time.perf_counter() - began)
    return {"num_computed_rows": output.num_computed_rows, "ms": 1000 * median(seconds), "best_ms": 1000 * min(seconds)}


def measure_model(model: Model, machine: dict[str, Any]) -> dict[str, Any]:
    """Every step that fits, the model loaded once."""
    config = config_of(model)
    contexts = sorted({min(context, config.max_context - 2 * max(WIDTHS)) for context in CONTEXTS})
    runtime: OpenVinoRuntime | None = None
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for num_past in contexts:
        for num_sequences in CROWDS:
            steps = [Step(num_sequences, num_rows, num_past) for num_rows in WIDTHS]
            free = free_bytes() or 0
            needed = _bytes_needed(config, steps[-1]) - (runtime.memory().cache if runtime else 0)
            if needed * (1 if runtime is None else 0.5) > 0.9 * free:
                left_out.append({"num_sequences": num_sequences, "num_past": num_past, "needed_bytes": needed})
                continue
            runtime = runtime or load(model)
            per_sequence = num_blocks_for(num_past + 2 * max(WIDTHS))
            runtime.resize(0)
            fill_cache(runtime, per_sequence * num_sequences)
            tables = [range(first, first + per_sequence) for first in range(0, runtime.num_blocks, per_sequence)]
            rows += [measure_step(runtime, step, tables, machine) for step in steps]
    return {
        "name": model.name,
        "num_parameters": sum(map(math.prod, expected_shapes(replace(config, is_quantised=False)).values())),
        "target": runtime.describe() if runtime else None,
        "multiplied_in": multiplied_in(config, str(runtime.options.dtype)) if runtime else None,
        "rows": rows,
        "left_out": left_out,
    }


def _bytes_needed(config: ModelConfig, step: Step) -> int:
    work = work_of(replace(config, is_quantised=False), "float32", step)
    return work.weight_bytes + 2 * work.weight_bytes * NUM_PACKED_COPIES["float32"] + work.cache_bytes


def measure_step(
    runtime: OpenVinoRuntime, step: Step, tables: Sequence[Sequence[int]], machine: dict[str, Any]
) -> dict[str, Any]:
    dtype, num_threads = str(runtime.options.dtype), int(runtime.options.num_threads or 1)
    work = work_of(runtime.config, dtype, step)
    floor = floor_of(machine, work, multiplied_in(runtime.config, dtype), num_threads)
    measured = time_step(runtime, step, tables)
    distance = measured["ms"] / floor["ms"]
    print(
        f"{runtime.config.hidden_size} {step}: {measured['ms']:.2f} ms, {distance:.2f} x {floor['ms']:.2f}", flush=True
    )
    return {**step._asdict(), **work._asdict(), "floor": floor, **measured, "over_floor": distance}


class Loop(NamedTuple):
    """A pair whose steps are taken apart."""

    name: str
    target: Path
    draft: Path
    depths: tuple[int, ...]


def loops() -> list[Loop]:
    """Those that are there."""
    bundled = Loop("bundled pair", bundled_pair().target, bundled_pair().draft, (0, 4))
    full_price = Loop(FULL_PRICE.name, FULL_PRICE / "target", FULL_PRICE / "draft", (0, 4, 8))
    return [each for each in (bundled, full_price) if each.target.is_dir()]


def measure_loop(pair: Loop) -> list[dict[str, Any]]:
    """Milliseconds of the engine's steps with a pair, by stage."""
    llm = LLM(pair.target, draft=pair.draft)
    prompts = [prompt.text for prompt in read_prompts()[:NUM_PROMPTS]]
    rows: list[dict[str, Any]] = []
    for temperature in (0.0, 1.0):
        for depth in pair.depths:
            params = [SamplingParams(temperature=temperature, seed=seed, max_tokens=NUM_TOKENS) for seed in range(9)]
            llm.generate(prompts[0], params[0], depth=depth)
            seconds: Counter[str] = Counter()
            num_steps = num_emitted = 0
            for prompt, each in zip(prompts, params, strict=False):
                (generation,) = llm.generate(prompt, each, depth=depth)
                seconds.update(generation.stats.seconds)
                num_steps += generation.stats.num_steps
                num_emitted += generation.stats.num_emitted
            stages = {stage: 1000 * spent / num_steps for stage, spent in seconds.items() if stage != "prefill"}
            rows.append(
                {
                    "pair": pair.name, "temperature": temperature, "depth": depth, "num_steps": num_steps,
                    "tokens_per_step": num_emitted / num_steps, "ms": sum(stages.values()), "stages_ms": stages,
                }
            )  # fmt: skip
            print(f"{pair.name}, T = {temperature:g}, depth {depth}: {stages}", flush=True)
    return rows


def main() -> None:
    names = ("machine", *PARTS, "loop")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=names, action="append", help="only this one, or these")
    arguments = parser.parse_args()
    path = common.RESULTS / "floors.json"
    parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    for name in arguments.part or names:
        began = provenance()
        with machine_to_ourselves():
            if name == "machine":
                found: dict[str, Any] = {"machine": measure_machine()}
            elif name == "loop":
                found = {"rows": [row for pair in loops() for row in measure_loop(pair)]}
            else:
                found = {"models": [measure_model(model, parts["machine"]["machine"]) for model in PARTS[name]]}
        parts[name] = {"provenance": began, **found}
        save("floors", began, {"parts": {each: parts[each] for each in names if each in parts}})


if __name__ == "__main__":
    main()
