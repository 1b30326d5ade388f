# pyright: basic
# (torch's own types are partly unknown)
"""The forward of the four families over the rows of several sequences: embeddings in, logits out.

It rounds where transformers' own modules round, so that bf16 agrees as far as the kernels do. Knows tensors, slots
and masks; no blocks, no checkpoint files, no sampling.

Dimensions: rows = all rows of the batch, padding included; queries = rows of one sequence, padding included;
keys = slots that one sequence's queries are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from outrider.model.config import ModelConfig
from outrider.runtime.rope import inverse_frequencies

LoadTensor = Callable[[str], Tensor]


class Span(NamedTuple):
    """What attention must know of one sequence, or of one branch of a tree."""

    rows: slice | Tensor  # its queries within the batch; padding may be others' rows, whose result is dropped
    num_rows: int  # how many of them, the first ones, are its own
    slots: slice | Tensor  # where its keys and values stand; a slice costs no copy
    mask: Tensor  # [queries, keys], added to the scores


class RowBatch(NamedTuple):
    """The rows of one forward, laid flat. The first `len(write_slots)` are real, the rest is padding."""

    token_ids: Tensor  # [rows]
    positions: Tensor  # [rows]
    write_slots: Tensor  # [real rows]
    spans: Sequence[Span]
    output_rows: Tensor  # [wanted rows], padding included

    def attend(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """[rows, heads, head_dim] from queries like it and a layer's cache."""
        mixed = torch.zeros_like(queries)
        for span in self.spans:
            mixed[_own(span)] = _attend(queries[span.rows], keys_values[:, span.slots], span)
        return mixed


class Batch(Protocol):
    """What the forward asks of a batch, however its rows are laid out."""

    @property
    def token_ids(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...
    @property
    def write_slots(self) -> Tensor: ...
    @property
    def output_rows(self) -> Tensor: ...
    @property
    def attend(self) -> Callable[[Tensor, Tensor], Tensor]: ...


class Linear(NamedTuple):
    weight: Tensor  # [outputs, inputs]
    bias: Tensor | None

    def __call__(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.weight, self.bias)


class Layer(NamedTuple):
    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim]
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Rotation(NamedTuple):
    """Cosines and signed sines of the rows' angles: what turns queries and keys to their positions."""

    cos: Tensor  # [rows, 1, head_dim]
    sin: Tensor

    def __call__(self, heads: Tensor) -> Tensor:
        return heads * self.cos + heads.roll(heads.shape[-1] // 2, -1) * self.sin


class DenseModel:
    """The weights of a model, fused for few large products, and its forward."""

    def __init__(self, config: ModelConfig, load: LoadTensor) -> None:
        self._config = config
        self._embedding = load("model.embed_tokens.weight")
        self._layers = [_load_layer(config, load, f"model.layers.{index}") for index in range(config.num_layers)]
        self._norm = load("model.norm.weight")
        self._head = Linear(self._embedding if config.tie_word_embeddings else load("lm_head.weight"), None)
        frequencies = inverse_frequencies(config.rope, config.head_dim, config.max_context)
        self._inverse_frequencies = torch.tensor(frequencies.values, device=self._embedding.device)
        self._attention_scaling = frequencies.attention_scaling

    def forward(self, batch: Batch, cache: Sequence[Tensor]) -> Tensor:
        """Logits of the wanted rows; the real rows' keys and values go into `cache`.

        Args:
            batch: what to compute.
            cache: of each layer [2, slots, kv_heads, head_dim].
        """
        hidden = functional.embedding(batch.token_ids, self._embedding)
        rotate = self._rotation(batch.positions)
        for layer, keys_values in zip(self._layers, cache, strict=True):
            hidden = hidden + self._attention(layer, hidden, rotate, batch, keys_values)
            gate, up = layer.gate_up(self._normalise(hidden, layer.mlp_norm)).chunk(2, dim=-1)
            hidden = hidden + layer.down(_silu(gate) * up)
        return self._head(self._normalise(hidden[batch.output_rows], self._norm))

    def num_bytes(self) -> int:
        """Bytes of all weights; a tied head counts once."""
        layers = (tensor for layer in self._layers for tensor in _tensors(layer))
        tensors = {tensor.data_ptr(): tensor for tensor in (self._embedding, self._norm, self._head.weight, *layers)}
        return sum(tensor.nbytes for tensor in tensors.values())

    def _attention(self, layer: Layer, hidden: Tensor, rotate: Rotation, batch: Batch, keys_values: Tensor) -> Tensor:
        num_heads, num_kv_heads = self._config.num_heads, self._config.num_kv_heads
        qkv = layer.qkv(self._normalise(hidden, layer.attention_norm))
        qkv = qkv.unflatten(-1, (-1, self._config.head_dim))  # [rows, heads + 2 * kv_heads, head_dim]
        queries_keys, values = qkv.split([num_heads + num_kv_heads, num_kv_heads], dim=1)
        if layer.qk_norm is not None:
            queries_keys = self._normalise(queries_keys, layer.qk_norm)
        queries, keys = rotate(queries_keys).split([num_heads, num_kv_heads], dim=1)
        num_real = len(batch.write_slots)
        keys_values[0].index_copy_(0, batch.write_slots, keys[:num_real])
        keys_values[1].index_copy_(0, batch.write_slots, values[:num_real])
        return layer.output(batch.attend(queries, keys_values).flatten(1))

    def _rotation(self, positions: Tensor) -> Rotation:
        angles = positions[:, None, None].float() * self._inverse_frequencies
        dtype = self._embedding.dtype
        cos = (angles.cos() * self._attention_scaling).to(dtype)
        sin = (angles.sin() * self._attention_scaling).to(dtype)
        return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))

    def _normalise(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """RMS norm in float32, rounded before the weight as in transformers."""
        # CUDA's own kernel computes in float32 whatever comes in: one launch instead of three.
        wide = inputs if inputs.is_cuda else inputs.float()
        normalised = functional.rms_norm(wide, inputs.shape[-1:], eps=self._config.rms_norm_eps)
        return weight * normalised.to(weight.dtype)


def _own(span: Span) -> slice | Tensor:
    """The span's rows without padding. Branches share rows, whose results are the same."""
    if isinstance(span.rows, slice):
        return slice(span.rows.start, span.rows.start + span.num_rows)
    return span.rows[: span.num_rows]


def _attend(queries: Tensor, keys_values: Tensor, span: Span) -> Tensor:
    """One sequence's attention, for its own rows. Sequence by sequence, so that none can change another's bits."""
    keys, values = keys_values.transpose(1, 2).unsqueeze(1)  # each [1, kv_heads, keys, head_dim]
    mixed = functional.scaled_dot_product_attention(
        queries.transpose(0, 1).unsqueeze(0), keys, values, attn_mask=span.mask, enable_gqa=True
    )
    return mixed.squeeze(0).transpose(0, 1)[: span.num_rows]


def _silu(inputs: Tensor) -> Tensor:
    """Computed in float32, rounded once.

    torch's own has a vector and a scalar loop that differ in the last bit, and the numbers of rows and of threads
    decide which one an element meets; its exponential has not. On CUDA every element meets the same one.
    """
    if inputs.is_cuda:
        return functional.silu(inputs)
    wide = inputs.float()
    return (wide / torch.exp(-wide).add_(1)).to(inputs.dtype)


def _load_layer(config: ModelConfig, load: LoadTensor, prefix: str) -> Layer:
    def fuse(*names: str, has_bias: bool) -> Linear:
        weight = _join([load(f"{prefix}.{name}.weight") for name in names])
        return Linear(weight, _join([load(f"{prefix}.{name}.bias") for name in names]) if has_bias else None)

    qk_norm = None
    if config.qk_norm:
        query_norm = load(f"{prefix}.self_attn.q_norm.weight").expand(config.num_heads, -1)
        key_norm = load(f"{prefix}.self_attn.k_norm.weight").expand(config.num_kv_heads, -1)
        qk_norm = torch.cat((query_norm, key_norm))
    return Layer(
        attention_norm=load(f"{prefix}.input_layernorm.weight"),
        qkv=fuse("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", has_bias=config.qkv_bias),
        qk_norm=qk_norm,
        output=fuse("self_attn.o_proj", has_bias=config.output_bias),
        mlp_norm=load(f"{prefix}.post_attention_layernorm.weight"),
        gate_up=fuse("mlp.gate_proj", "mlp.up_proj", has_bias=config.mlp_bias),
        down=fuse("mlp.down_proj", has_bias=config.mlp_bias),
    )


def _join(tensors: list[Tensor]) -> Tensor:
    """Stack along the outputs; a single tensor stays where it is."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _tensors(layer: Layer) -> list[Tensor]:
    fields = [part for field in layer for part in (field if isinstance(field, Linear) else (field,))]
    return [tensor for tensor in fields if tensor is not None]
