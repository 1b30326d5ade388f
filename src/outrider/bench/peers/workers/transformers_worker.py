"""transformers' `generate`, plain, assisted by a draft model, or by looking up the prompt; see `serve`.

Runs in the peer's own environment and imports nothing of Outrider.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from serve import serve
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.streamers import BaseStreamer

DEPTHS = (2, 4, 8, 16)
LOOKUP_DEPTHS = (4, 10)  # the second is what its documentation shows
FIRST_DEPTH = 5  # where the heuristic begins; it keeps what it has learned from text to text


class FirstToken(BaseStreamer):
    """Notes when the first token came: what is put first is the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        if len(self.times) < 2:
            self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Transformers:
    """Models of one target, perhaps with a draft."""

    def __init__(self, *, target: str, draft: str | None, dtype: str, threads: int, folder: str) -> None:
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        self.target = _model(target, dtype)
        self.draft = _model(draft, dtype) if draft else None
        self.heuristic_depth = FIRST_DEPTH

    def describe(self) -> dict[str, Any]:
        """What is here, and how it can decode."""
        drafted = [f"draft {depth}" for depth in DEPTHS] + ["draft heuristic"] if self.draft else []
        return {
            "version": transformers.__version__,
            "versions": {"torch": torch.__version__},
            "settings": ["plain", *drafted, *(f"lookup {depth}" for depth in LOOKUP_DEPTHS)],
            "num_threads": torch.get_num_threads(),
            "dtype": str(self.target.dtype).removeprefix("torch."),
            "notes": "speculates for one text at a time: several are written one after another",
        }

    def write(self, texts: list[dict[str, Any]], temperature: float, setting: str) -> dict[str, Any]:
        """All at once where it can be, which is without speculation."""
        options = self._options(setting)
        torch.manual_seed(texts[0]["seed"])
        groups = [texts] if setting == "plain" else [[text] for text in texts]
        first = FirstToken() if len(texts) == 1 else None
        began = time.perf_counter()
        with torch.inference_mode():
            token_ids = [row for group in groups for row in self._write(group, temperature, options, first)]
        seconds = time.perf_counter() - began
        if setting == "draft heuristic":
            self.heuristic_depth = self.draft.generation_config.num_assistant_tokens
        is_known = first is not None and len(first.times) > 1
        return {
            "token_ids": token_ids,
            "seconds": seconds,
            "first_seconds": first.times[1] - began if is_known else None,
        }

    def _options(self, setting: str) -> dict[str, Any]:
        kind, _, depth = setting.partition(" ")
        if kind == "plain":
            return {}
        if kind == "lookup":
            return {"prompt_lookup_num_tokens": int(depth)}
        is_heuristic = depth == "heuristic"
        self.draft.generation_config.update(
            num_assistant_tokens=self.heuristic_depth if is_heuristic else int(depth),
            num_assistant_tokens_schedule="heuristic" if is_heuristic else "constant",
        )
        return {"assistant_model": self.draft}

    def _write(
        self, texts: list[dict[str, Any]], temperature: float, options: dict[str, Any], first: FirstToken | None
    ) -> list[list[int]]:
        length = max(len(text["token_ids"]) for text in texts)
        num_missing = [length - len(text["token_ids"]) for text in texts]
        rows = [[0] * missing + text["token_ids"] for missing, text in zip(num_missing, texts, strict=True)]
        mask = [[0] * missing + [1] * (length - missing) for missing in num_missing]
        output = self.target.generate(
            torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            generation_config=_how(temperature, max(text["max_tokens"] for text in texts)),
            **options,
            **({"streamer": first} if first else {}),
        )
        return [row[length : length + text["max_tokens"]].tolist() for row, text in zip(output, texts, strict=True)]


def _how(temperature: float, max_tokens: int) -> GenerationConfig:
    """Nothing truncated, nothing ended: the target's own distribution at a temperature."""
    sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    return GenerationConfig(max_new_tokens=max_tokens, pad_token_id=0, **{"do_sample": False, **sampled})


def _model(folder: str, dtype: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    # Whatever a checkpoint says of sampling and of its end is not asked for here.
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model


if __name__ == "__main__":
    serve(Transformers)
