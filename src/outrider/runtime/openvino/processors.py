"""What this processor is good at, and how a model is computed on it: in which dtype, from which matrices, how often.

Knows what OpenVINO says of a processor, and what its kernels were measured to do; computes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import openvino as ov

from outrider.errors import ParameterError
from outrider.model.config import ModelConfig
from outrider.model.weights import matrix_bytes, num_matrix_values
from outrider.runtime.base import RuntimeOptions
from outrider.runtime.openvino.forms import num_affordable
from outrider.runtime.openvino.graph import least_model
from outrider.runtime.remembered import isa_limits, processor

# Without AMX, up to so many rows of a large model are multiplied in the time of one: of 0.5 B 1 to 6 rows take 45 ms, 7
# take 55 and 9 take 61, since 6 rows are a block of the kernels. Of a model whose layers fit the processor's cache
# every row counts: of 32 M one takes 1.9 to 2.5 ms and two 2.4 to 3.0. With AMX every row counts in any model, and
# without products of bfloat16 numbers: a bundled step takes 2.5 ms for one row and 2.9 for five.
FREE_ROWS = 6
# Int8 products of fewer come out wrong with AMX (OpenVINO 2026.4.1: of two rows, logits are off by 1.6 of their
# spread).
RIGHT_ROWS = 5

# A model is small if its matrices are at most so many times as large as the last cache. Without products of bfloat16
# numbers, those of a small one are widened to float32: converting them anew in each step then costs more than reading
# twice the bytes; of larger ones, reading is what takes the time.
MAX_SMALL_CACHES = 2

# Of a number that is computed with.
VALUE_BYTES = {"float32": 4, "bfloat16": 2}

# As the libraries' limit names them; they have no products of bfloat16 numbers, though OpenVINO offers these anyway.
ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")

ISAS_WITH_AMX = ("AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16", "ALL", "DEFAULT")
ISAS_WITH_VNNI = ("AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16", *ISAS_WITH_AMX)

# Of memory, by either version of Linux' control groups, as a container sees its own.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# OpenVINO's one node for a feed-forward divides matrices into blocks of so many inputs and outputs.
FUSED_BLOCK = 32


def computes_bfloat16(core: ov.Core) -> bool:
    """Whether this processor has products of bfloat16 numbers, and no limit forbids them."""
    is_capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return is_capable and not any(limit in ISAS_WITHOUT_BFLOAT16 for limit in isa_limits().values())


class ComputedForm(NamedTuple):
    """How a model would be computed here.

    Attributes:
        dtype: resolved.
        is_widened: whether from matrices that are copied to float32.
        is_joined: whether queries', keys' and values' matrices are copied into one, if they are of one dtype.
        is_gate_joined: whether gates' and ups' are, too: there the bits of bfloat16 products may change.
        is_fused: whether each feed-forward is one node.
        num_forms: for single numbers of rows, at most.
    """

    dtype: str
    is_widened: bool
    is_joined: bool
    is_gate_joined: bool
    is_fused: bool
    num_forms: int


def computed_form(config: ModelConfig, num_bytes: int, options: RuntimeOptions) -> ComputedForm:
    """Of a checkpoint of so many bytes, with nothing of it read but what it says.

    Raises:
        ParameterError: this processor does not compute in the dtype asked for, or forms are fewer than none.
    """
    if options.num_forms is not None and options.num_forms < 0:
        raise ParameterError(f"num_forms is {options.num_forms}, but must be 0 or more")
    core = ov.Core()
    has_bfloat16 = computes_bfloat16(core)
    dtype = resolve_dtype(config, options.dtype, has_bfloat16=has_bfloat16)
    widens = is_widened(config, has_bfloat16=has_bfloat16)
    computed_bytes = matrix_bytes(config, num_bytes, dtype, is_widened=widens)
    num_affordable_forms = num_affordable(computed_bytes, memory_bytes())
    num_forms = num_affordable_forms if options.num_forms is None else min(options.num_forms, num_affordable_forms)
    fuses = dtype == "bfloat16" and is_fused(config) and _num_threads(core, options.num_threads) > 1
    joins = widens or is_joined(config, dtype)
    joins_gates = joins and (widens or config.is_quantised or not options.bitwise)
    return ComputedForm(dtype, widens, joins, joins_gates, fuses, num_forms)


def resolve_dtype(config: ModelConfig, asked: str | None, *, has_bfloat16: bool) -> str:
    """The dtype asked for, or the checkpoint's own as far as this processor computes in it."""
    if asked not in (None, *VALUE_BYTES):
        raise ParameterError(f"dtype is {asked!r}, but must be one of {', '.join(VALUE_BYTES)}")
    if asked == "bfloat16" and not has_bfloat16:
        raise ParameterError("dtype is 'bfloat16', which this processor does not compute in: use 'float32'")
    return asked or (config.dtype if has_bfloat16 else "float32")


def is_widened(config: ModelConfig, *, has_bfloat16: bool) -> bool:
    """Whether a model's matrices are copied to float32 when it is loaded."""
    if has_bfloat16 or config.dtype != "bfloat16" or config.is_quantised:
        return False
    return is_small(config, 4)


def is_joined(config: ModelConfig, dtype: str) -> bool:
    """Whether a small model's matrices that the same rows are multiplied with are copied into one.

    Products of few rows are short then, and what each takes besides counts. Untried with AMX.
    """
    return is_small(config, _value_bytes(config, dtype)) and not has_amx()


def _value_bytes(config: ModelConfig, dtype: str) -> int:
    """Of a matrix's number, as it is multiplied with."""
    return 1 if config.is_quantised else VALUE_BYTES[dtype]


def is_small(config: ModelConfig, value_bytes: int) -> bool:
    """Whether the matrices, of numbers of so many bytes, nearly fit the last cache."""
    return value_bytes * num_matrix_values(config) <= MAX_SMALL_CACHES * last_cache_bytes()


def least_rows(config: ModelConfig, dtype: str, *, has_bfloat16: bool, is_bitwise: bool) -> int:
    """How many rows a decoding forward computes at least, since fewer take as long, or come out wrong."""
    if not has_bfloat16:
        return 1
    if config.is_quantised and "amx_int8" in processor():  # a limit that forbids it may be one that we do not know
        return RIGHT_ROWS
    if dtype == "bfloat16" and has_amx():
        return 1
    return FREE_ROWS if is_bitwise or not is_small(config, _value_bytes(config, dtype)) else 1


def has_amx() -> bool:
    """Whether this processor multiplies tiles of bfloat16 numbers, and no limit forbids it."""
    return "amx_bf16" in processor() and _is_within_limits(ISAS_WITH_AMX)


def has_int8_products() -> bool:
    """Whether OpenVINO's own products of int8 matrices serve: with AVX512's VNNI it packs a matrix for them once.

    Without VNNI it packs each anew in every step. With AMX they are untried, and those of few rows may be wrong.
    """
    return "avx512_vnni" in processor() and _is_within_limits(ISAS_WITH_VNNI) and not has_amx()


def _is_within_limits(isas: Sequence[str]) -> bool:
    """Whether the limits, of which torch's own says nothing here, are all among these."""
    return all(limit in isas for name, limit in isa_limits().items() if name != "ATEN_CPU_CAPABILITY")


def is_fused(config: ModelConfig) -> bool:
    """Whether OpenVINO makes one node of a feed-forward in bfloat16, if two threads or more compute it.

    The node is of AMX, and of matrices that its blocks divide; with one thread OpenVINO 2026.4.1 divides by zero.
    """
    sizes = config.hidden_size, config.intermediate_size
    return has_amx() and not (config.is_quantised or config.mlp_bias) and not any(size % FUSED_BLOCK for size in sizes)


def last_cache_bytes() -> int:
    """Of the processor's largest cache; 0 where the system does not say."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes), default=0)


def memory_bytes() -> int:
    """All that this process may use, by the system and by a container's limit, used or not."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _num_threads(core: ov.Core, asked: int | None) -> int:
    """That would compute: OpenVINO's own choice, which only something compiled tells, unless a number is asked for."""
    return int(
        core.compile_model(least_model(), "CPU", properties("float32", asked)).get_property("INFERENCE_NUM_THREADS")
    )


def properties(dtype: str, num_threads: int | None) -> dict[str, Any]:
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    found: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return found if num_threads is None else {**found, "INFERENCE_NUM_THREADS": num_threads}
