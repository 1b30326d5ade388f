"""How an engine runs, as asked for. One field is one option; resolved once, never changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from outrider.errors import ParameterError
from outrider.runtime.base import RuntimeOptions

RuntimeName = Literal["openvino", "torch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How an `LLM` runs. Nothing here changes what is computed, though another runtime or precision rounds otherwise.

    Args:
        runtime: what computes the models: "openvino" (CPU) or "torch" (reference, CUDA).
        device: "cpu" or "cuda" (torch only).
        options: precision, threads, and whether rows must be bitwise.
        max_sequences: sequences that decode together; further requests wait.
        max_cache_tokens: cache slots for all sequences together, padding included.
        prefill_chunk: prompts are computed in pieces of this length, counted from position 0.
        draft_deadline: seconds that one call of a drafter may take; a text whose drafter took longer goes on plain.
        self_test: check a checkpoint's numbers the first time it is loaded on this machine.

    Raises:
        ParameterError: a value is out of its range.

    Example:
        >>> from outrider import EngineConfig
        >>> EngineConfig(max_sequences=4).runtime
        'openvino'
    """

    runtime: RuntimeName = "openvino"
    device: Literal["cpu", "cuda"] = "cpu"
    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    max_sequences: int = 16
    max_cache_tokens: int = 131_072
    prefill_chunk: int = 256
    self_test: bool = True
    draft_deadline: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_sequences", "max_cache_tokens", "prefill_chunk"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} is {getattr(self, name)}, but must be 1 or more")
        if self.runtime not in get_args(RuntimeName):
            raise ParameterError(f"runtime is {self.runtime!r}, but must be one of {', '.join(get_args(RuntimeName))}")
        if self.device != "cpu" and self.runtime != "torch":
            raise ParameterError(f"device {self.device!r} needs the torch runtime, but runtime is {self.runtime!r}")
