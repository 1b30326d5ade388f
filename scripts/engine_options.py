"""Which options the engines that recipes are exported to accept: read from their wheels, nothing imported.

    python scripts/engine_options.py vllm-0.33.0-....whl sglang-0.5.23-....whl > options.json

`pip download --no-deps` fetches the wheels. The result is part of tests/export/options.json, against which tests hold
exports. llama.cpp and TensorRT-LLM stand there as their sources and pages have them.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

VLLM_CONFIG, VLLM_ARGUMENTS = "vllm/config/speculative.py", "vllm/engine/arg_utils.py"
VLLM_CHOICES = {
    "method": "SpeculativeMethod",
    "rejection_sample_method": "RejectionSampleMethod",
    "draft_sample_method": "DraftSampleMethod",
}
SGLANG_FIELDS = "sglang/srt/arg_groups/fields/"
# of the flags that have nothing to do with drafting, those that an export writes
OTHER_FLAGS = {"--dtype", "--max-num-seqs", "--max-running-requests", "--model-path", "--revision"}


def vllm_options(wheel: ZipFile) -> dict[str, Any]:
    """Fields of its SpeculativeConfig, the values of those that have a choice, and the flags of its server."""
    module = ast.parse(wheel.read(VLLM_CONFIG))
    literals = {
        node.targets[0].id: node.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    (config,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "SpeculativeConfig")
    return {
        "source": VLLM_CONFIG,
        "fields": sorted(fields(config)),
        "choices": {field: sorted(values(literals[name], literals)) for field, name in VLLM_CHOICES.items()},
        "flags": wanted(set(re.findall(r'"(--[a-z][a-z-]+)"', wheel.read(VLLM_ARGUMENTS).decode()))),
    }


def sglang_options(wheel: ZipFile) -> dict[str, Any]:
    """Flags of its server: a field of its argument groups is one, with its aliases."""
    flags: set[str] = set()
    for name in wheel.namelist():
        if name.startswith(SGLANG_FIELDS) and name.endswith(".py"):
            for node in ast.parse(wheel.read(name)).body:
                if isinstance(node, ast.ClassDef):
                    flags |= {"--" + field.replace("_", "-") for field in fields(node)}
    algorithms = re.search(r"Builtins: ([A-Z0-9, ]+)\.", wheel.read(SGLANG_FIELDS + "spec.py").decode())
    assert algorithms
    return {
        "source": SGLANG_FIELDS,
        "flags": wanted(flags),
        "choices": {"--speculative-algorithm": algorithms[1].split(", ")},
    }


def wanted(flags: set[str]) -> list[str]:
    return sorted(flag for flag in flags if flag.startswith("--spec") or flag in OTHER_FLAGS)


def fields(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        is_field = isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if is_field and "no_cli=True" not in ast.unparse(each.annotation):
            yield each.target.id


def values(node: ast.expr, literals: dict[str, ast.expr]) -> Iterator[str]:
    """Of a Literal, whose parts may be names of others."""
    match node:
        case ast.Constant(value=str(value)):
            yield value
        case ast.Name(id=name) if name in literals:
            yield from values(literals[name], literals)
        case ast.Subscript(slice=inner):
            yield from values(inner, literals)
        case ast.Tuple(elts=parts):
            for part in parts:
                yield from values(part, literals)


def main() -> None:
    found: dict[str, Any] = {}
    for path in map(Path, sys.argv[1:]):
        name, version = path.name.split("-")[:2]
        read = {"vllm": vllm_options, "sglang": sglang_options}[name]
        with ZipFile(path) as wheel:
            found[name] = {"version": version, **read(wheel)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
