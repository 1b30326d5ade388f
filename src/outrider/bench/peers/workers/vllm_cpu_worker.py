"""vLLM on the CPU: plain, with a draft model, or by looking up the prompt; see `serve`.

An engine has its speculation fixed when it is made, so there is one for each setting, made when it is first asked.
Runs in the peer's own environment and imports nothing of Outrider.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from serve import serve

DEPTHS = (4, 8)
LOOKUP_DEPTH = 4
LOOKUP_NGRAM = 3
CACHE_GB = 1  # of each engine
# An engine that has nothing to do yields the processor in a loop for a second, and then sleeps.
QUIET_SECONDS = 1.2


class VllmCpu:
    """Engines of one target, perhaps with a draft."""

    def __init__(self, *, target: str, draft: str | None, dtype: str, threads: int, folder: str) -> None:
        del folder  # nothing is converted
        self.dtype, self.num_threads = dtype, threads
        _set_environment(threads)
        speculations: dict[str, dict[str, Any] | None] = {"plain": None}
        for depth in DEPTHS if draft else ():
            speculations[f"draft {depth}"] = {
                "method": "draft_model",
                "model": draft,
                "num_speculative_tokens": depth,
                # Its default drafts greedily at every temperature, of which less is accepted.
                "draft_sample_method": "probabilistic",
            }
        speculations[f"lookup {LOOKUP_DEPTH}"] = {
            "method": "ngram",
            "prompt_lookup_max": LOOKUP_NGRAM,
            "num_speculative_tokens": LOOKUP_DEPTH,
        }
        self.target, self.speculations = target, speculations
        self.engines: dict[str, Any] = {}
        self.asked_last, self.ended = "plain", time.monotonic()
        self._engine("plain")

    def describe(self) -> dict[str, Any]:
        """What is here, and how it can decode."""
        import torch  # noqa: PLC0415 - as in `_engine`
        import vllm  # noqa: PLC0415

        return {
            "version": vllm.__version__,
            "versions": {"torch": torch.__version__},
            "settings": list(self.speculations),
            "num_threads": self.num_threads,
            "dtype": self.dtype,
            "notes": "prefix caching off; drafts are drawn at the temperature of the text"
            + ("" if "tcmalloc" in os.environ["LD_PRELOAD"] else "; without tcmalloc, which is not installed"),
        }

    def write(self, texts: list[dict[str, Any]], temperature: float, setting: str) -> dict[str, Any]:
        """All at once. Nothing truncated, nothing ended: the target's own distribution at a temperature."""
        from vllm import SamplingParams  # noqa: PLC0415 - as in `_engine`

        params = [
            SamplingParams(
                temperature=temperature,
                top_p=1.0,
                top_k=0,
                max_tokens=text["max_tokens"],
                seed=text["seed"] if temperature else None,
                ignore_eos=True,
                detokenize=False,
            )
            for text in texts
        ]
        prompts = [{"prompt_token_ids": text["token_ids"]} for text in texts]
        engine = self._engine(setting)
        if setting != self.asked_last:
            time.sleep(max(0.0, self.ended + QUIET_SECONDS - time.monotonic()))
        began = time.perf_counter()
        outputs = engine.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - began
        self.asked_last, self.ended = setting, time.monotonic()
        return {
            "token_ids": [list(output.outputs[0].token_ids) for output in outputs],
            "seconds": seconds,
            "first_seconds": None,
        }

    def _engine(self, setting: str) -> Any:
        if setting not in self.engines:
            from vllm import LLM  # noqa: PLC0415 - it reads the environment when it is imported

            self.engines[setting] = LLM(
                self.target,
                dtype=self.dtype,
                enable_prefix_caching=False,  # or a prompt that was seen before would look free
                speculative_config=self.speculations[setting],
            )
            self.asked_last, self.ended = setting, time.monotonic()
        return self.engines[setting]


def _set_environment(num_threads: int) -> None:
    """What its documentation advises: cores of its own, and an allocator and an OpenMP that are loaded first."""
    cores = sorted(os.sched_getaffinity(0))[:num_threads]
    libraries = [*Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"), *Path(sys.prefix).glob("lib/libiomp5.so")]
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GB),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_NO_USAGE_STATS": "1",
        "LD_PRELOAD": ":".join(map(str, libraries)),
    }


if __name__ == "__main__":
    serve(VllmCpu)
