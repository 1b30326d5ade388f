"""Plain decoding against transformers' `generate` on the same checkpoints: bf16, batch 1, greedy, prompt by prompt.

    python -m benchmarks.plain

Both are given the same token ids and the same number of tokens, one after the other in changing order; a pair's ratio
is of seconds for the whole call, prompt included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import make_checkpoint
from benchmarks.common import machine_to_ourselves, paired_ratio, read_prompts, save, show
from outrider import LLM, SamplingParams, bundled_pair
from outrider.bench.provenance import provenance

# Unpinned, torch's rows ran at half their speed on some machines: the peer gets its best setting.
PEER_ENVIRONMENT = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}


class Peer:
    """transformers in its own process."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.transformers_worker", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **PEER_ENVIRONMENT}
        )
        self.num_threads = self._answer()["ready"]

    def generate(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"prompt": prompt, "max_tokens": max_tokens}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


def compare(name: str, folder: Path, *, rounds: int, max_tokens: int) -> dict[str, Any]:
    llm, peer = LLM(folder), Peer(folder)
    assert llm.tokenizer
    generator = random.Random(0)
    seconds: dict[str, dict[str, list[float]]] = {"ours": defaultdict(list), "theirs": defaultdict(list)}
    num_same = 0
    for round_index in range(-1, rounds):
        for prompt in read_prompts()[: None if round_index >= 0 else 2]:
            token_ids = llm.tokenizer.encode(prompt.text)
            texts: dict[str, list[int]] = {}
            for side in generator.sample(("ours", "theirs"), 2):
                once = ours_once(llm, token_ids, max_tokens) if side == "ours" else peer.generate(token_ids, max_tokens)
                texts[side] = once["token_ids"]
                if round_index >= 0:  # the first round only warms up
                    # Ours stops at an end token: seconds are for each token that was written.
                    seconds[side][prompt.name].append(once["seconds"] / len(once["token_ids"]))
            num_same += round_index >= 0 and texts["theirs"][: len(texts["ours"])] == texts["ours"]
    peer.close()
    ratio = paired_ratio(seconds["theirs"], seconds["ours"])
    rates = {side: 1 / statistics.mean(itertools.chain(*by_prompt.values())) for side, by_prompt in seconds.items()}
    print(f"{name}: {show(ratio)}; tokens/s {rates}", flush=True)
    return {
        "target": name, "speedup_over_transformers": ratio._asdict(), "max_tokens": max_tokens,
        "tokens_per_second": {"ours": rates["ours"], "transformers": rates["theirs"]},
        "texts_equal_bf16": f"{num_same} of {rounds * len(read_prompts())}", "engine": llm.describe(),
        "peer_threads": peer.num_threads,
    }  # fmt: skip


def ours_once(llm: LLM, prompt: list[int], max_tokens: int) -> dict[str, Any]:
    began = time.perf_counter()
    (generation,) = llm.generate([prompt], SamplingParams(max_tokens=max_tokens), depth=0)
    return {"seconds": time.perf_counter() - began, "token_ids": list(generation.token_ids)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/checkpoints"), help="where checkpoints are made")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    began = provenance()
    with machine_to_ourselves():
        rows = [
            compare("bundled", bundled_pair().target, rounds=arguments.rounds, max_tokens=128),
            compare("0.44b", make_checkpoint("0.44b", arguments.folder), rounds=1, max_tokens=32),
        ]
    save("plain", began, {"temperature": 0, "batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
