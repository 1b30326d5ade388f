"""The CUDA path, all of it in one call: parity, identity, and the speed of a full-price pair against its limits.

    benchmarks/gpu.sh                      # on a GPU
    benchmarks/gpu.sh --tiny --device cpu  # the same code, small, without graphs: what the tests run

The pair is made on the device: the bundled target inside a larger model, in bf16, and inside a smaller one whose added
layers are as quiet. So the draft agrees almost always, and its price is that of its size: what is compared is the speed
reached against the speed that the acceptance and the costs of this very run allow, not an agreement.
Parts come cheapest first and each is saved when it is done, so that a run that is cut off leaves what it had.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import outrider.runtime.torch.runtime as torch_runtime
from benchmarks.common import RESULTS, read_prompts
from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams, bundled_pair
from outrider.bench.embedding import OUTPUTS, QUIET, Embedding, Shape
from outrider.bench.pairs import EPSILON
from outrider.bench.provenance import provenance, write_json
from outrider.runtime.base import SequenceRows
from outrider.runtime.torch.transformers import reference_logits

# 8.1e9 and 0.48e9 parameters with the bundled vocabulary.
SHAPES = {
    "8b": Shape(hidden_size=4096, intermediate_size=14_336, num_layers=37, num_heads=64, num_kv_heads=16),
    "0.5b": Shape(hidden_size=1536, intermediate_size=5120, num_layers=16, num_heads=24, num_kv_heads=8),
    "tiny": Shape(hidden_size=320, intermediate_size=640, num_layers=15, num_heads=4, num_kv_heads=2),
}
SECONDS = 450.0


class Run:
    """What is asked for, what was found, and the file that it is kept in."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device, self.is_tiny = arguments.device, arguments.tiny
        self.dtypes = ("float32",) if self.is_tiny else ("float32", "bfloat16")
        self.num_tokens = 8 if self.is_tiny else 96
        self.prompts = [prompt.text for prompt in read_prompts()][: 1 if self.is_tiny else 4]
        self.began = time.perf_counter()
        self.path = Path(os.environ.get("OUT") or RESULTS) / ("gpu_tiny.json" if self.is_tiny else "gpu.json")
        self.found: dict[str, Any] = {"benchmark": "gpu", "provenance": provenance(), "device": self.describe_device()}

    def part(self, name: str, measure: Callable[[], Any]) -> None:
        """Measure, print and save; one that fails says how, and the others go on."""
        elapsed = time.perf_counter() - self.began
        if elapsed > SECONDS * 0.8:
            self.found[name] = {"skipped": f"{elapsed:.0f} s had passed"}
        else:
            print(f"[{elapsed:5.0f} s] {name} ...", flush=True)
            try:
                self.found[name] = measure()
            except Exception as error:  # noqa: BLE001 - a lent machine is not asked twice for what one part did wrong
                self.found[name] = {"failed": repr(error), "where": traceback.format_exc().splitlines()[-12:]}
        print(f"          {self.found[name]}", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.found)

    def config(self, **changed: Any) -> EngineConfig:
        options = changed.pop("options", None) or RuntimeOptions(dtype=self.dtypes[-1], num_threads=1)
        return EngineConfig(runtime="torch", device=self.device, options=options, max_cache_tokens=16_384, **changed)

    def describe_device(self) -> str:
        return torch.cuda.get_device_name() if self.device == "cuda" else "cpu, without graphs"

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def parity(run: Run) -> dict[str, Any]:
    """The most that a logit of the bundled target differs from transformers' own forward, in its row's spread."""
    folder, found = bundled_pair().target, {}
    token_ids = list(range(5, 45))
    for dtype in run.dtypes:
        runtime = torch_runtime.TorchRuntime.from_folder(
            folder, RuntimeOptions(dtype=dtype, num_threads=1), device=run.device
        )
        runtime.resize(4)
        ours = np.array(runtime.forward([SequenceRows(token_ids, 0, (0, 1), range(40))]).logits)
        theirs = reference_logits(folder, token_ids, dtype)
        found[dtype] = float((np.abs(ours - theirs).max(-1) / theirs.std(-1)).max())
    return found


def identity(run: Run) -> dict[str, Any]:
    """Texts of the bundled pair with drafts against without, one at a time and together."""
    pair, found = bundled_pair(), {}
    for dtype in run.dtypes:
        config = run.config(options=RuntimeOptions(dtype=dtype, num_threads=1), self_test=not run.is_tiny)
        llm = LLM(pair.target, pair.draft, config=config)
        num_different = num_texts = 0
        for temperature in (0.0, 1.0):
            params = [
                SamplingParams(temperature=temperature, seed=seed, max_tokens=run.num_tokens)
                for seed in range(len(run.prompts))
            ]
            texts = [llm.generate(run.prompts, params, depth=depth) for depth in (4, 0)]
            pairs = [
                (prompt, each, [one[index] for one in texts])
                for index, (prompt, each) in enumerate(zip(run.prompts, params, strict=True))
            ]
            for prompt, each, together in pairs:
                alone = llm.generate(prompt, each, depth=0)[0].token_ids
                num_different += sum(one.token_ids != alone for one in together)
                num_texts += len(together)
        found[dtype] = {
            "level": llm.target.exactness, "row_class": llm.target.row_class._asdict(),
            "texts_that_differ": f"{num_different} of {num_texts}",
        }  # fmt: skip
    return found


def bandwidth(run: Run) -> float:
    """Bytes per second of reading and writing together, by the fastest of some copies."""
    source = torch.empty(2**22 if run.is_tiny else 2**31, dtype=torch.uint8, device=run.device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(10):
        run.wait()
        began = time.perf_counter()
        target.copy_(source)
        run.wait()
        best = max(best, 2 * source.numel() / (time.perf_counter() - began))
    return best


def make(run: Run, shape: Shape, seed: int) -> Qwen3ForCausalLM:
    """A transformers model of this shape around the bundled target, in bf16, made where it will run."""
    embedding = Embedding(bundled_pair().target, shape, seed)
    config = Qwen3Config(**embedding.model_config(), attn_implementation="sdpa")
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device=run.device)
    generator = torch.Generator(run.device).manual_seed(seed)
    model.tie_weights()
    with torch.no_grad():
        for name, tensor in model.named_parameters():  # of tied ones the first alone
            fill(tensor, name, embedding, generator)
    # Its numbers are no weights, so that they were made on no device.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(run.device)
    return model.eval()


def fill(tensor: torch.Tensor, name: str, embedding: Embedding, generator: torch.Generator) -> None:
    """As `Embedding` does, but for the random numbers, which are the device's own."""
    shape, holds = tuple(tensor.shape), embedding.holds(name)
    if len(shape) == 1:
        inner = embedding.inner_values(name, shape) if holds else np.ones(shape, np.float32)
        tensor.copy_(torch.from_numpy(inner))
        return
    scale = QUIET if holds else EPSILON if name.endswith(OUTPUTS) else 1.0
    tensor.normal_(0.0, scale * shape[1] ** -0.5, generator=generator)
    if holds:
        inner = embedding.inner_values(name, shape)
        rows, columns = (torch.from_numpy(places).to(tensor.device) for places in embedding.places(name, inner.shape))
        tensor[rows[:, None], columns] = torch.from_numpy(inner).to(tensor)


def speed(run: Run) -> dict[str, Any]:
    """Plain against the bandwidth limit, drafted against what acceptance and costs allow, transformers beside them."""
    names = ("tiny", "tiny") if run.is_tiny else ("8b", "0.5b")
    target, draft = (make(run, SHAPES[name], seed) for seed, name in enumerate(names))
    num_bytes = [
        sum(tensor.numel() * tensor.element_size() for tensor in each.parameters()) for each in (target, draft)
    ]
    best = bandwidth(run)
    llm = LLM(target, draft, tokenizer=bundled_pair().target, config=run.config(self_test=not run.is_tiny))
    found: dict[str, Any] = {
        "bytes": num_bytes, "copy_bandwidth": best, "level": llm.target.exactness, "engine": llm.describe(),
    }  # fmt: skip
    for temperature in (0.0,) if run.is_tiny else (0.0, 1.0):
        by_depth = {
            depth: timed(run, llm, temperature, depth) for depth in ((0, 2) if run.is_tiny else (0, 2, 4, 6, 8))
        }
        floor = num_bytes[0] / best
        plain = by_depth[0]["seconds_per_step"]
        for depth, each in by_depth.items():
            if depth:
                ideal = each["tokens_per_step"] * plain / (plain + each["draft_seconds_per_step"])
                each["speedup"] = by_depth[0]["seconds_per_token"] / each["seconds_per_token"]
                each["over_ideal"] = each["speedup"] / ideal
        found[f"T={temperature:g}"] = {"plain_over_limit": floor / plain, "by_depth": by_depth}
    found["peak_bytes"] = torch.cuda.max_memory_allocated() if run.device == "cuda" else None
    found["transformers"] = assisted(run, llm, target, draft)
    return found


def timed(run: Run, llm: LLM, temperature: float, depth: int) -> dict[str, float]:
    """Medians over the prompts, of steps after the prompt, when every shape was recorded before."""
    rows: list[tuple[float, float, float, float]] = []
    for is_warm in (False, True):
        for seed, prompt in enumerate(run.prompts):
            params = SamplingParams(temperature=temperature, seed=seed, max_tokens=run.num_tokens, ignore_eos=True)
            stats = llm.generate(prompt, params, depth=depth)[0].stats
            seconds = {stage: value for stage, value in stats.seconds.items() if stage != "prefill"}
            if is_warm:
                decoding = sum(seconds.values())
                steps, tokens = stats.num_steps, stats.num_emitted
                rows.append((decoding / steps, decoding / tokens, tokens / steps, seconds["draft"] / steps))
    names = ("seconds_per_step", "seconds_per_token", "tokens_per_step", "draft_seconds_per_step")
    return {name: statistics.median(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def assisted(run: Run, llm: LLM, target: Qwen3ForCausalLM, draft: Qwen3ForCausalLM) -> dict[str, Any]:
    """Seconds a token of transformers' generation, plain and assisted, greedy, prompts included."""
    assert llm.tokenizer
    settings = {"max_new_tokens": run.num_tokens, "min_new_tokens": run.num_tokens, "do_sample": False}
    found: dict[str, Any] = {}
    for name, more in {"plain": {}, "assisted": {"assistant_model": draft}}.items():
        each: list[float] = []
        for prompt in run.prompts:
            token_ids = torch.tensor([llm.tokenizer.encode(prompt)], device=run.device)
            for _ in range(2):  # the first warms up
                run.wait()
                began = time.perf_counter()
                mask = torch.ones_like(token_ids)
                target.generate(token_ids, attention_mask=mask, pad_token_id=0, **settings, **more)
                run.wait()
                seconds = time.perf_counter() - began
            each.append(seconds / run.num_tokens)
        found[name] = statistics.median(each)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small models and few tokens: tests the script itself")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch_runtime.STATIC_DEVICES.add("cpu")
    elif not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: try --tiny --device cpu, which tests the script")
    run = Run(arguments)
    for measure in (parity, identity, speed):
        run.part(measure.__name__, lambda measure=measure: measure(run))
    print(f"[{time.perf_counter() - run.began:5.0f} s] written to {run.path.name}", flush=True)
    if any("failed" in part for part in run.found.values() if isinstance(part, dict)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
