"""What this machine can do at best: how fast it reads, by how much is read again and again, and how fast it multiplies.

Reading is numpy's largest-of-an-array, which does nothing else at these sizes; multiplying is a product of two matrices
in OpenVINO, whose kernels the models' are. Of several trials the best counts, since whatever else runs only ever slows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from outrider.runtime.openvino.processors import computes_bfloat16

MIB = 2**20
READ_BYTES = tuple(size * MIB for size in (2, 8, 16, 24, 32, 48, 96, 384))
PASS_BYTES = 384 * MIB  # read in one trial, in as many passes as it takes
NUM_READS, NUM_PRODUCTS = 7, 40  # trials: the best of 7 products once was as if one of two threads were missing
NUM_ROWS, WIDTH = 256, 1024  # of the product
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # with int8 products, of all else


def measure_machine() -> dict[str, Any]:
    """Rates by number of threads: bytes and operations a second."""
    threads = (1, 2)
    core = ov.Core()
    dtypes = [dtype for dtype in PRECISIONS if dtype != "bfloat16" or computes_bfloat16(core)]
    return {
        "reading": [
            {"num_threads": number, "num_bytes": size, "bytes_per_second": read_rate(size, number)}
            for number in threads
            for size in READ_BYTES
        ],
        "multiplying": [
            {"num_threads": number, "dtype": dtype, "operations_per_second": product_rate(core, dtype, number)}
            for number in threads
            for dtype in dtypes
        ],
    }


def read_rate(num_bytes: int, num_threads: int) -> float:
    """Bytes a second at which as many are read together, each thread reading a share of its own."""
    shares = [np.ones(num_bytes // 4 // num_threads, np.int32) for _ in range(num_threads)]
    num_passes = max(1, PASS_BYTES // num_bytes)

    def read(share: np.ndarray[Any, Any]) -> None:
        for _ in range(num_passes):
            share.max()

    with ThreadPoolExecutor(num_threads) as pool:
        return num_passes * num_bytes / _least_seconds(lambda: list(pool.map(read, shares)), NUM_READS)


def product_rate(core: ov.Core, dtype: str, num_threads: int) -> float:
    """Operations a second, a multiplication and an addition being two."""
    generator = np.random.default_rng(0)
    rows = ops.parameter(ov.PartialShape([NUM_ROWS, WIDTH]), ov.Type.f32)
    left, right = rows, ops.constant(generator.standard_normal((WIDTH, WIDTH), np.float32))
    if dtype == "int8":
        levels = ops.constant(generator.integers(-63, 64, (WIDTH, WIDTH), np.int8))
        right = ops.multiply(ops.convert(levels, ov.Type.f32), ops.constant(np.float32(0.02)))
        low, high = (ops.constant(np.float32(end)) for end in (-128 / 127, 1))
        left = ops.fake_quantize(left, low, high, low, high, 256)
    model = ov.Model([ops.result(ops.matmul(left, right, transpose_a=False, transpose_b=True))], [rows], "product")  # pyright: ignore[reportGeneralTypeIssues]
    properties = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "INFERENCE_NUM_THREADS": num_threads}
    request = core.compile_model(model, "CPU", properties).create_infer_request()
    request.set_input_tensor(0, ov.Tensor(generator.standard_normal((NUM_ROWS, WIDTH), np.float32)))
    request.infer()
    return 2 * NUM_ROWS * WIDTH**2 / _least_seconds(lambda: request.infer(share_outputs=True), NUM_PRODUCTS)


def rate_of_reading(machine: dict[str, Any], num_bytes: float, num_threads: int) -> float:
    """Bytes a second, between the sizes that were measured by their distance."""
    points = [
        (row["num_bytes"], row["bytes_per_second"]) for row in machine["reading"] if row["num_threads"] == num_threads
    ]
    return float(np.interp(num_bytes, *zip(*points, strict=True)))


def rate_of_multiplying(machine: dict[str, Any], dtype: str, num_threads: int) -> float:
    """Operations a second."""
    return next(
        row["operations_per_second"]
        for row in machine["multiplying"]
        if (row["dtype"], row["num_threads"]) == (dtype, num_threads)
    )


def _least_seconds(work: Callable[[], object], num_trials: int) -> float:
    def seconds() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return min(seconds() for _ in range(num_trials))
