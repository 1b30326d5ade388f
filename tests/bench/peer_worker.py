"""A peer's worker that computes nothing: it does what the environment variable PEER says, and claims the times it says.

Run by the tests as a peer is run: a process of its own that imports nothing of Outrider.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src/outrider/bench/peers/workers"))

from serve import serve

# rates: tokens/s of each setting; long_rates: others, after prompts of 600 tokens or more; differs: settings whose
# texts are not the plain ones; fails: settings, and why; dies_at: the number of the answer that is never given;
# asked: a file that gets every request.
PEER = {"rates": {"plain": 10, "draft 4": 40, "draft 8": 20}, "differs": [], "fails": {}} | json.loads(
    os.environ.get("PEER", "{}")
)
LONG_PROMPT = 600


class Peer:
    def __init__(self, **asked):
        sys.stdout.write("a library says hello on stdout\n")
        self.num_answers = 0
        note({"load": asked})
        if "refuses" in PEER:
            raise ValueError(PEER["refuses"])

    def describe(self):
        return PEER.get("describes") or {
            "version": "1.2", "settings": [*PEER["rates"]], "dtype": "bfloat16", "num_threads": 2, "notes": "",
        }  # fmt: skip

    def write(self, texts, temperature, setting):
        note({"texts": texts, "temperature": temperature, "setting": setting})
        self.num_answers += 1
        if self.num_answers == PEER.get("dies_at"):
            sys.stderr.write("out of luck\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if setting in PEER["fails"]:
            raise RuntimeError(PEER["fails"][setting])
        time.sleep(PEER.get("sleeps", 0))
        num_tokens = sum(text["max_tokens"] for text in texts) + PEER.get("num_too_many", 0)
        is_long = len(texts[0]["token_ids"]) >= LONG_PROMPT
        rates = PEER["rates"] | (PEER.get("long_rates", {}) if is_long else {})
        value = 8 if setting in PEER["differs"] else 7
        return {
            "token_ids": [[value] * (text["max_tokens"] + PEER.get("num_too_many", 0)) for text in texts],
            "seconds": num_tokens / rates[setting],
            "first_seconds": 0.001 if len(texts) == 1 else None,
        }


def note(request):
    if "asked" in PEER:
        with Path(PEER["asked"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(request) + "\n")


if __name__ == "__main__":
    serve(Peer)
