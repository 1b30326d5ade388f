"""The engines that a recipe can be handed to, by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from outrider.export import llama_cpp, sglang, tensorrt_llm, transformers, vllm
from outrider.export.base import Export
from outrider.recipe import Recipe

EngineName = Literal["vllm", "transformers", "llama.cpp", "sglang", "tensorrt-llm"]

EXPORTS: dict[EngineName, Callable[[Recipe], Export]] = {
    "vllm": vllm.export,
    "transformers": transformers.export,
    "llama.cpp": llama_cpp.export,
    "sglang": sglang.export,
    "tensorrt-llm": tensorrt_llm.export,
}
