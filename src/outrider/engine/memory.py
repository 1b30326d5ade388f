"""How much memory an engine will take, by component, before any of it is taken. Computes; allocates nothing.

What a checkpoint says settles weights, cache and logits to the byte. The rest is measured, and an upper bound:

    program        the interpreter and its libraries
    graph          what OpenVINO keeps of a compiled model besides its weights
    widened        the matrices in float32, where the processor has no products of bfloat16 numbers
    joined         of a small model, those for the same rows side by side, once more
    fused          where feed-forwards are one node each, their matrices in float16, of which OpenVINO packs them
    packed         OpenVINO's own copies of the matrices, in the order in which its kernels read them. The first forward
                   makes one; in float32, a forward of another number of rows makes a second, unless they are widened
    forms          further compilations of a small model, each for one number of rows, of those that keep coming;
                   none where there is a memory limit, of which the cache makes more
    activations    values between layers, for the most rows that a forward may have
    drafter        automata and indexes of texts, at most so many bytes a token
"""

from __future__ import annotations

import dataclasses
import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from outrider.cache.table import BLOCK_SIZE
from outrider.draft.base import Drafter
from outrider.engine.config import EngineConfig
from outrider.engine.scheduler import MAX_DECODE_ROWS, MAX_TILE
from outrider.errors import ParameterError, UsageError
from outrider.model.config import ModelConfig
from outrider.model.weights import expected_shapes, matrix_bytes
from outrider.runtime.openvino.layout import MAX_BRANCH_BLOCKS, NUM_FORM_COPIES
from outrider.sequence import MAX_TOLD_TOGETHER

MIB = 2**20
# With fewer, no text is worth the loading.
MIN_CACHE_TOKENS = 256

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
PROGRAM_BYTES = {"openvino": 100 * MIB, "torch": 260 * MIB}
GRAPH_BYTES, GRAPH_BYTES_PER_LAYER = 8 * MIB, 1 * MIB
FUSED_BYTES = 2  # a weight
NUM_PACKED_COPIES = {"float32": 2, "bfloat16": 1}
# Of a row's widest layer, all its values together; measured as 7 to 14 of them.
NUM_ACTIVATIONS = 16
# A rope table's cosines and sines, and what is made on the way to them.
ROPE_BYTES_PER_VALUE = 20

_THOUSANDS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = {**_THOUSANDS, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class ModelSize(NamedTuple):
    """What a model's memory follows from.

    Attributes:
        config: what the checkpoint says.
        weight_bytes: of its tensors, as stored.
        dtype: computed in, resolved.
        is_widened: whether the matrices are copied to float32 to be multiplied with.
        is_joined: whether queries', keys' and values' are copied into one.
        is_gate_joined: whether gates' and ups' are, too.
        is_fused: whether each feed-forward is one node.
        num_forms: for single numbers of rows, at most.
    """

    config: ModelConfig
    weight_bytes: int
    dtype: str
    is_widened: bool = False
    is_joined: bool = False
    is_gate_joined: bool = False
    is_fused: bool = False
    num_forms: int = 0


class Entry(NamedTuple):
    """One component: its name, its bytes at most, and what they are."""

    name: str
    num_bytes: int
    note: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What an engine takes at most, component by component.

    Attributes:
        entries: in the order in which they are taken.
        num_cache_tokens: that the cache may hold.
        limit: bytes that were allowed; None: no limit.
    """

    entries: tuple[Entry, ...]
    num_cache_tokens: int
    limit: int | None = None

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self.entries)

    @property
    def largest(self) -> Entry:
        return max(self.entries, key=lambda entry: entry.num_bytes)

    def table(self) -> list[tuple[str, str, str]]:
        """Name, size and note of each component, then of all together."""
        limit = "" if self.limit is None else f"of {readable(self.limit)} allowed"
        total = Entry("at most", self.num_bytes, limit)
        return [(entry.name, readable(entry.num_bytes), entry.note) for entry in (*self.entries, total)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: bytes."""
        return {
            "total": self.num_bytes,
            "limit": self.limit,
            "num_cache_tokens": self.num_cache_tokens,
            "entries": [{"name": name, "bytes": num_bytes, "note": note} for name, num_bytes, note in self.entries],
        }

    def __str__(self) -> str:
        allowed = "" if self.limit is None else f" of {readable(self.limit)} allowed"
        weights = sum(entry.num_bytes for entry in self.entries if "weights" in entry.name)
        caches = sum(entry.num_bytes for entry in self.entries if entry.name.endswith("cache"))
        return (
            f"{readable(self.num_bytes)} at most{allowed}: weights {readable(weights)}, "
            f"cache {readable(caches)} for {self.num_cache_tokens} tokens, "
            f"the rest {readable(self.num_bytes - weights - caches)}"
        )


def plan_memory(
    target: ModelSize, drafts: Sequence[ModelSize], config: EngineConfig, drafters: Sequence[Drafter] = ()
) -> tuple[Ledger, EngineConfig]:
    """What these models will take with this config, whose cache is made small enough for its limit.

    Args:
        target: the model whose text it is.
        drafts: the models that draft.
        config: what bounds them.
        drafters: that draft without a model, each held to as many tokens as the cache holds.

    Raises:
        UsageError: not even a small cache is within the limit.
    """
    limit = config.memory_limit

    def ledger_for(num_tokens: int) -> Ledger:
        ledger = _ledger(target, drafts, config, num_tokens)
        return dataclasses.replace(ledger, entries=(*ledger.entries, *_kept_by(drafters, num_tokens)))

    if limit is None:
        return ledger_for(config.max_cache_tokens), config
    max_blocks = max(1, config.max_cache_tokens // BLOCK_SIZE)

    def total(num_blocks: int) -> int:
        return ledger_for(num_blocks * BLOCK_SIZE).num_bytes

    num_blocks = bisect_right(range(1, max_blocks + 1), limit, key=total)
    least = min(MIN_CACHE_TOKENS // BLOCK_SIZE, max_blocks)
    if num_blocks < least:
        raise _too_little(ledger_for(least * BLOCK_SIZE), limit)
    num_tokens = min(config.max_cache_tokens, num_blocks * BLOCK_SIZE)
    ledger = dataclasses.replace(ledger_for(num_tokens), limit=limit)
    return ledger, dataclasses.replace(config, max_cache_tokens=num_tokens)


def parse_memory(text: str) -> int:
    """Bytes of "2GiB", "800MB" or "1500000000".

    Raises:
        ParameterError: it says nothing of the kind.
    """
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if found is None or found[2].upper() not in _UNITS:
        raise ParameterError(
            f"the memory limit is {text!r}, but must be a number of bytes, alone or with a unit out of "
            "KB, MB, GB, TB (thousands), KiB, MiB, GiB, TiB (1024s): try 2GiB"
        )
    num_bytes = int(float(found[1]) * _UNITS[found[2].upper()])
    if num_bytes < 1:
        raise ParameterError(f"the memory limit is {text!r}, but must be 1 byte or more: try 2GiB")
    return num_bytes


def readable(num_bytes: int) -> str:
    """Three digits, in the largest unit of which there is one at least."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            count = num_bytes / size
            return f"{count:.{0 if count >= 99.5 else 1 if count >= 9.95 else 2}f} {unit}"
    return f"{num_bytes} bytes"


def _ledger(target: ModelSize, drafts: Sequence[ModelSize], config: EngineConfig, num_tokens: int) -> Ledger:
    num_rows = max(config.max_prefill_tokens, config.prefill_chunk, MAX_DECODE_ROWS, 2 * config.max_sequences)
    num_outputs = max(config.max_sequences, min(MAX_DECODE_ROWS, config.max_sequences * MAX_TILE))
    entries = [Entry("program", PROGRAM_BYTES[config.runtime], f"Python, {config.runtime} and the rest")]
    entries += _Model("target", target, config.runtime, num_tokens).entries(num_rows, num_outputs)
    for index, draft in enumerate(drafts):
        role = "draft" if len(drafts) == 1 else f"draft {index + 1}"
        entries += _Model(role, draft, config.runtime, num_tokens).entries(
            MAX_DECODE_ROWS, max(config.max_sequences, MAX_TOLD_TOGETHER)
        )
    if config.max_children > 1 and config.runtime == "openvino" and config.exactness != "seed":
        entries.append(_Model("target", target, config.runtime, MAX_BRANCH_BLOCKS * BLOCK_SIZE).branches())
    return Ledger(tuple(entries), num_tokens)


def _kept_by(drafters: Sequence[Drafter], num_tokens: int) -> list[Entry]:
    """What these know of texts: automata, indexes, outputs to draft from; and what they hold already."""
    note = f"what it keeps of texts and to find it by, held to {num_tokens} tokens of those that run"
    entries = [
        Entry(f"{drafter.name} drafter", max(drafter.max_memory(num_tokens), drafter.memory()), note)
        for drafter in drafters
    ]
    return [entry for entry in entries if entry.num_bytes]


class _Model(NamedTuple):
    """One model's components."""

    role: str
    size: ModelSize
    runtime: str
    num_tokens: int

    def entries(self, num_rows: int, num_outputs: int) -> list[Entry]:
        """For forwards of so many rows, of which so many are wanted."""
        return [*self._weights(), self._cache(), self._buffers(num_rows, num_outputs)]

    def _weights(self) -> list[Entry]:
        config, stored, dtype, is_widened, is_joined, is_gate_joined, is_fused, num_forms = self.size
        num_values = sum(map(math.prod, expected_shapes(config).values()))
        if self.runtime == "torch":
            num_bytes = num_values * DTYPE_BYTES[dtype]
            return [Entry(f"{self.role} weights", num_bytes, f"{num_values} numbers in {dtype}")]
        num_copies = 1 if is_widened else NUM_PACKED_COPIES[dtype]
        matrices = matrix_bytes(config, stored, dtype, is_widened=is_widened)
        packed = num_copies * matrices
        times = "once" if num_copies == 1 else "twice, for few and for many rows"
        graph = GRAPH_BYTES + GRAPH_BYTES_PER_LAYER * config.num_layers
        widened = Entry(f"{self.role} widened weights", packed, "the matrices in float32")
        width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        width += is_gate_joined * 2 * config.intermediate_size
        beside = stored * config.num_layers * config.hidden_size * width // num_values
        joined = Entry(f"{self.role} joined weights", beside, "matrices for the same rows, side by side")
        num_fused = 3 * config.num_layers * config.hidden_size * config.intermediate_size
        fused = FUSED_BYTES * num_fused * is_fused
        before_packing = Entry(f"{self.role} fused weights", fused, "feed-forwards' matrices in float16")
        forms = num_forms * (NUM_FORM_COPIES * matrices + fused + graph)
        more_forms = Entry(f"{self.role} forms", forms, f"up to {num_forms} for single numbers of rows")
        return [
            Entry(f"{self.role} weights", stored, "the checkpoint's own file, mapped"),
            *[widened] * is_widened,
            *[joined] * (is_joined and not is_widened),
            *[before_packing] * is_fused,
            Entry(f"{self.role} packed weights", packed, f"the matrices as the kernels read them, {times}"),
            Entry(f"{self.role} graph", graph, f"{config.num_layers} layers compiled"),
            *[more_forms] * bool(forms),
        ]

    def _cache(self) -> Entry:
        config, dtype = self.size.config, self.size.dtype
        per_layer = 2 * config.num_kv_heads * config.head_dim * DTYPE_BYTES[dtype]
        per_token = per_layer * config.num_layers
        # while it grows, one layer's array stands beside its successor
        num_bytes = (per_token + per_layer) * (self.num_tokens + BLOCK_SIZE)
        return Entry(f"{self.role} cache", num_bytes, f"{per_token} bytes a token, taken as texts grow")

    def branches(self) -> Entry:
        """Copies of the texts' last blocks, one for each branch of a tree."""
        return self._cache()._replace(name=f"{self.role} branches", note="blocks lent to branches of trees")

    def _buffers(self, num_rows: int, num_outputs: int) -> Entry:
        config, dtype = self.size.config, self.size.dtype
        query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        width = config.hidden_size + config.intermediate_size + query + 2 * key_value
        activations = NUM_ACTIVATIONS * width * num_rows * DTYPE_BYTES[dtype]
        logits = num_outputs * config.vocab_size * 4
        num_positions = min(self.num_tokens + BLOCK_SIZE, config.max_context)
        rope = ROPE_BYTES_PER_VALUE * num_positions * config.head_dim if self.runtime == "openvino" else 0
        note = f"logits of {num_outputs} rows {readable(logits)}, activations of {num_rows} {readable(activations)}"
        return Entry(f"{self.role} buffers", activations + logits + rope, note)


def _too_little(least: Ledger, limit: int) -> UsageError:
    advice = (
        "take a smaller model, or lower max_sequences" if "buffers" in least.largest.name else "take a smaller model"
    )
    return UsageError(
        f"the memory limit is {readable(limit)}, but these models need {readable(least.num_bytes)} with a cache of "
        f"{least.num_cache_tokens} tokens; the largest part is {least.largest.name}, "
        f"{readable(least.largest.num_bytes)}: raise the limit, or {advice}"
    )
