"""How an engine runs, as asked for. One field is one option; resolved once, never changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from outrider.errors import ParameterError
from outrider.runtime.base import RuntimeOptions

RuntimeName = Literal["openvino", "torch"]
VerifyName = Literal["coupled", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How an `LLM` runs.

    Nothing here changes what is computed, though another runtime or precision rounds otherwise; and nothing but
    `verify` changes what a text's noise is used for.

    Args:
        runtime: what computes the models: "openvino" (CPU) or "torch" (reference, CUDA).
        device: "cpu" or "cuda" (torch only).
        options: precision and threads.
        exactness: "bitwise" refuses what cannot keep it; "seed" spares what it costs; None: bitwise where it is found.
        max_children: guesses at one place of a text. 1 makes chains. More than 1 makes trees: of a fixed depth with as
            many nodes as the depth says, and under depth "auto" where the policy finds that they pay. For "block" they
            are drawn in a shape that is settled before, and only of a fixed depth: under "auto" they stay chains.
        verify: what to keep of drafts. "coupled": guesses that are the target's own tokens, so that a seed's text is
            the same with any drafter and none. "block": more guesses at high temperature, and texts of the same
            distribution, but with a drafter a seed gives another text; at temperature 0 it is the same as "coupled".
        max_sequences: sequences that decode together; further requests wait.
        max_cache_tokens: cache slots for all sequences together, padding included; taken as they are needed.
        memory_limit: bytes that models, cache and buffers may take; `max_cache_tokens` is lowered to what fits.
        prefill_chunk: prompts are computed in pieces of this length, counted from position 0. Equal beginnings of
            prompts are computed once, piece by piece, if it is a multiple of 32.
        max_prefill_tokens: tokens of prompts in one step, in whole pieces, several of a prompt if no text waits for a
            token; one piece always may.
        max_prefix_tokens: of prompts that nobody uses any more, kept for requests that begin like them. They make room
            when it is needed; with 0, only texts in the making share.
        draft_deadline: seconds that one call of a drafter may take; a text whose drafter took longer goes on plain.
        self_test: check a checkpoint's numbers the first time it is loaded on this machine.
        prepares: spend seconds of loading on what makes steps faster, which some hundred tokens pay for.

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
    verify: VerifyName = "coupled"
    max_sequences: int = 16
    max_cache_tokens: int = 131_072
    memory_limit: int | None = None
    prefill_chunk: int = 128
    max_prefill_tokens: int = 512
    max_prefix_tokens: int = 16_384
    self_test: bool = True
    prepares: bool = True
    exactness: Literal["bitwise", "seed"] | None = None
    max_children: int = 1
    draft_deadline: float = 10.0

    def __post_init__(self) -> None:
        least = {"max_sequences": 1, "max_cache_tokens": 1, "prefill_chunk": 1, "max_prefill_tokens": 1}
        for name, lowest in {**least, "max_children": 1, "max_prefix_tokens": 0}.items():
            if getattr(self, name) < lowest:
                raise ParameterError(f"{name} is {getattr(self, name)}, but must be {lowest} or more")
        self._check_exactness()
        if not 0 < self.draft_deadline < math.inf:
            raise ParameterError(f"draft_deadline is {self.draft_deadline} s, but must be above 0")
        if self.memory_limit is not None and self.memory_limit < 1:
            raise ParameterError(f"memory_limit is {self.memory_limit} bytes, but must be 1 or more")
        for name, names in {"runtime": RuntimeName, "verify": VerifyName}.items():
            if (value := getattr(self, name)) not in get_args(names):
                raise ParameterError(f"{name} is {value!r}, but must be one of {', '.join(get_args(names))}")
        if self.device != "cpu" and self.runtime != "torch":
            raise ParameterError(f"device {self.device!r} needs the torch runtime, but runtime is {self.runtime!r}")

    def _check_exactness(self) -> None:
        if self.exactness not in (None, "bitwise", "seed"):
            raise ParameterError(f"exactness is {self.exactness!r}, but must be bitwise, seed or None")
        if self.exactness == "bitwise" and self.verify == "block":
            raise ParameterError(
                "exactness is 'bitwise', but verify is 'block', whose sampled texts are not plain decoding's: "
                "leave one of them out"
            )
        if self.exactness == "bitwise" and not (self.self_test and self.options.bitwise):
            raise ParameterError(
                "exactness is 'bitwise', which nobody knows without the self-test and rows computed for it: "
                "leave self_test and options.bitwise at True"
            )
