"""Facts about a checkpoint on this machine, kept between runs in small files. A damaged one says nothing."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from outrider.runtime.base import Runtime

# By these, libraries are kept from instruction sets that the processor has: other kernels run, which round otherwise.
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def isa_limits() -> dict[str, str]:
    """What the environment says of instruction sets, for a result's provenance."""
    return {name: os.environ[name].upper() for name in ISA_LIMITS if os.environ.get(name)}


def cache_folder() -> Path:
    """Where facts about this machine are kept between runs."""
    if folder := os.environ.get("OUTRIDER_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outrider"
    except RuntimeError:  # a user without a home: under this name nothing is found and nothing can be kept
        return Path(os.devnull)


def machine_key(runtime: Runtime, facts: list[Any]) -> str:
    """Of these facts and all else that bits and seconds can depend on: our code, libraries, options, the processor."""
    facts = [*facts, _code(type(runtime)), runtime.describe(), asdict(runtime.options), processor(), isa_limits()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def recall(name: str) -> Any:
    """What was remembered under this name; None if nothing."""
    try:
        return json.loads((cache_folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def remember(name: str, fact: Any) -> None:
    """Write the file whole or not at all. Where it cannot be written, the next load asks again."""
    path = cache_folder() / f"{name}.json"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(fact, file)
        Path(file.name).replace(path)


@cache
def _code(runtime_type: type[Runtime]) -> str:
    """Of the modules beside the runtime's own: what is computed may be the same, and rounded otherwise."""
    folder = Path(inspect.getfile(runtime_type)).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def processor() -> str:
    """Its instruction sets, as the system says: a virtual machine may offer others under the same name."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()
