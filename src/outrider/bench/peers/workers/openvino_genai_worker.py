"""OpenVINO GenAI's continuous batching: plain, with a draft model, or by looking up the prompt; see `serve`.

Checkpoints are converted once, by optimum-intel, in their own precision and without quantising anything, and kept
beside the environment by the checkpoint's hash. Runs in the peer's own environment and imports nothing of Outrider.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from converted import converted
from serve import serve

DEPTHS = (2, 4, 8, 16)
LOOKUP_DEPTHS = (4, 10)
LOOKUP_NGRAM = 3
# Drafts until the draft model is less sure than this, which is what its documentation shows.
CONFIDENCE = 0.4
CACHE_GB = 1
PREFILL_TOKENS = 2048
CONVERSION = 2  # another number when what is converted changes: what was kept is made again
PRECISIONS = {"bfloat16": "bf16", "float32": "f32"}


class OpenVinoGenAi:
    """Pipelines of one target; each kind of speculation has its own, made when it is first asked for."""

    def __init__(self, *, target: str, draft: str | None, dtype: str, threads: int, folder: str) -> None:
        how = f"{CONVERSION} {metadata.version('optimum-intel')}"
        self.target, self.draft = (converted(each, folder, __file__, how) if each else None for each in (target, draft))
        precision = PRECISIONS[dtype]
        # Its own default keeps keys and values in 8 bits, which is another precision than was asked for.
        self.properties = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
        }
        self.dtype, self.num_threads = dtype, threads
        self.pipelines: dict[str, Any] = {}
        self._pipeline("plain")

    def describe(self) -> dict[str, Any]:
        """What is here, and how it can decode."""
        drafted = [f"draft {depth}" for depth in DEPTHS] + [f"draft until {CONFIDENCE}"] if self.draft else []
        return {
            "version": metadata.version("openvino-genai"),
            "versions": {name: metadata.version(name) for name in ("openvino", "optimum-intel", "transformers")},
            "settings": ["plain", *drafted, *(f"lookup {depth}" for depth in LOOKUP_DEPTHS)],
            "num_threads": self.num_threads,
            "dtype": self.dtype,
            "notes": f"weights {_weight_type(self.target)}, keys and values {self.properties['KV_CACHE_PRECISION']}, "
            "prefix caching off",
        }

    def write(self, texts: list[dict[str, Any]], temperature: float, setting: str) -> dict[str, Any]:
        """All at once."""
        import numpy as np  # noqa: PLC0415 - with openvino, not before it is needed
        import openvino as ov  # noqa: PLC0415

        pipeline = self._pipeline(setting.partition(" ")[0])
        configs = [_config(text, temperature, setting) for text in texts]
        began = time.perf_counter()
        prompts = [ov.Tensor(np.array([text["token_ids"]], np.int64)) for text in texts]
        results = pipeline.generate(prompts, configs)
        seconds = time.perf_counter() - began
        first = results[0].perf_metrics.get_ttft().mean / 1000 if len(results) == 1 else None
        return {
            "token_ids": [list(result.m_generation_ids[0]) for result in results],
            "seconds": seconds,
            "first_seconds": first if first and 0 < first < seconds else None,
        }

    def _pipeline(self, kind: str) -> Any:
        if kind not in self.pipelines:
            import openvino_genai as genai  # noqa: PLC0415 - not for a conversion

            scheduler = genai.SchedulerConfig()
            scheduler.cache_size = CACHE_GB
            scheduler.max_num_batched_tokens = PREFILL_TOKENS
            scheduler.enable_prefix_caching = False  # or a prompt that was seen before would look free
            extra: dict[str, Any] = {}
            if kind == "draft":
                extra["draft_model"] = genai.draft_model(str(self.draft), "CPU", **self.properties)
            if kind == "lookup":
                extra["prompt_lookup"] = True
            self.pipelines[kind] = genai.ContinuousBatchingPipeline(
                str(self.target), scheduler, "CPU", {**self.properties, **extra}
            )
        return self.pipelines[kind]


def _config(text: dict[str, Any], temperature: float, setting: str) -> Any:
    """Nothing truncated, nothing ended: the target's own distribution at a temperature."""
    import openvino_genai as genai  # noqa: PLC0415

    config = genai.GenerationConfig()
    config.max_new_tokens = text["max_tokens"]
    config.ignore_eos = True
    config.do_sample = temperature > 0
    if temperature > 0:
        config.temperature = temperature
        config.top_p = 1.0
        config.rng_seed = text["seed"]
    kind, _, depth = setting.partition(" ")
    if kind == "lookup":
        config.max_ngram_size = LOOKUP_NGRAM
    if depth.startswith("until "):
        config.update_generation_config(assistant_confidence_threshold=float(depth.removeprefix("until ")))
    elif depth:
        config.update_generation_config(num_assistant_tokens=int(depth))
    return config


def _convert(checkpoint: str, out: str, *_: str) -> None:
    """With a configuration that asks for no quantisation, or from a billion weights on it would be 8 bits."""
    from optimum.exporters.openvino import main_export  # noqa: PLC0415 - only here
    from optimum.intel import OVConfig  # noqa: PLC0415

    # Only speculation with a draft model needs a tokenizer: both must have the same one.
    config = OVConfig(dtype="auto")
    main_export(checkpoint, out, task="text-generation-with-past", ov_config=config, convert_tokenizer=True)


def _weight_type(folder: Path) -> str:
    """That most of the graph's weights are in."""
    import openvino as ov  # noqa: PLC0415

    sizes: Counter[str] = Counter()
    for node in ov.Core().read_model(folder / "openvino_model.xml").get_ops():
        if node.get_type_name() == "Constant":
            sizes[node.get_element_type().get_type_name()] += node.get_byte_size()
    return sizes.most_common(1)[0][0]


if __name__ == "__main__":
    if sys.argv[1:2] == ["convert"]:
        _convert(*sys.argv[2:])
    else:
        serve(OpenVinoGenAi)
