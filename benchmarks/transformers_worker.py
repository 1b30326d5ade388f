"""transformers' `generate` in a process of its own, so that its threads may be pinned as suits it.

Reads one JSON request a line, `{"prompt": [ids], "max_tokens": n}`, and answers `{"seconds": s, "token_ids": [...]}`.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def main() -> None:
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None  # every run has its whole length
    model.generation_config.pad_token_id = 0
    print(json.dumps({"ready": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        prompt = torch.tensor([request["prompt"]])
        began = time.perf_counter()
        with torch.inference_mode():
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=request["max_tokens"], do_sample=False
            )
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "token_ids": output[0, prompt.shape[1] :].tolist()}), flush=True)


if __name__ == "__main__":
    main()
