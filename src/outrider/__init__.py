"""Speculative decoding you can trust: the target's own text, sooner.

A small drafter guesses several tokens, the large target checks them in one forward pass, and what comes out is exactly
what the target alone would have written. The public names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outrider.demo import bundled_pair as bundled_pair
    from outrider.draft.base import Draft as Draft, Drafter as Drafter
    from outrider.engine.config import EngineConfig as EngineConfig
    from outrider.engine.llm import LLM as LLM, Generation as Generation
    from outrider.engine.stream import Delta as Delta
    from outrider.errors import OutriderError as OutriderError, UsageError as UsageError
    from outrider.request import SamplingParams as SamplingParams
    from outrider.runtime.base import RuntimeOptions as RuntimeOptions
    from outrider.tree import TokenTree as TokenTree

__version__ = "0.1.0"

_HOMES = {
    "Delta": "outrider.engine.stream",
    "Draft": "outrider.draft.base",
    "Drafter": "outrider.draft.base",
    "EngineConfig": "outrider.engine.config",
    "Generation": "outrider.engine.llm",
    "LLM": "outrider.engine.llm",
    "OutriderError": "outrider.errors",
    "RuntimeOptions": "outrider.runtime.base",
    "SamplingParams": "outrider.request",
    "TokenTree": "outrider.tree",
    "UsageError": "outrider.errors",
    "bundled_pair": "outrider.demo",
}

__all__ = [
    "LLM",
    "Delta",
    "Draft",
    "Drafter",
    "EngineConfig",
    "Generation",
    "OutriderError",
    "RuntimeOptions",
    "SamplingParams",
    "TokenTree",
    "UsageError",
    "bundled_pair",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import outrider` stays light (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'outrider' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
