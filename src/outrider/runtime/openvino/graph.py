# pyright: basic
# (openvino's opset functions are generated and carry no usable types.)
"""A decoder as an OpenVINO graph, made from what its checkpoint says. Knows no requests and holds no cache.

    input_ids ─ embedding ─┬─ norm ─ qkv ─ norm ─ rope ─ attention ─ o ─┬─ norm ─ gate, up ─ down ─┬─ ... ─ norm ─ head
                           └─────────────────────────────────────────── + ──────────────────────── +      │      │
    output_rows ──────────────────────────────────────────────────────────────────────────────────────────┘   logits

The rows of all sequences lie one after the other; only attention is told whose is whose. Its places are of strands,
which are what one key-value head of a row has (heads.py); some it gets twice. Between the nodes, values have the
precision that the model is compiled for; inside them, norms, rotations and softmax are computed in float32.

A quantised model's products are of int8 numbers and exact: a row is divided by its largest number and rounded to 255
levels; the sums, which are integers, are multiplied by that number and by the output's scale. Where OpenVINO's products
of int8 matrices serve badly, they are convolutions over the rows, of width 1, which are the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import Node, Output, Type, opset15 as ops
from openvino.op import _PagedAttentionExtension as PagedAttention  # pyright: ignore[reportAttributeAccessIssue]
from openvino.utils.node_factory import NodeFactory

from outrider.model.config import ModelConfig
from outrider.model.weights import Weights, as_float32, scale_name
from outrider.runtime.openvino.heads import PLACE_INPUTS, ROW_INPUTS, SEQUENCE_INPUTS

ELEMENT_TYPES = {"F32": Type.f32, "BF16": Type.bf16, "I8": Type.i8}

# Of an int8 number, on either side of zero.
NUM_STEPS = 127


class Graph(NamedTuple):
    """A model, and the weights that it reads in place: they must outlive what is compiled from it.

    Attributes:
        model: for any rows.
        in_order: the model, of the same weights, for rows whose strands are at their own places in attention; made when
            it is first asked for.
        arrays: the weights.
    """

    model: ov.Model
    in_order: Callable[[], ov.Model]
    arrays: list[NDArray[Any]]


class MatrixForm(NamedTuple):
    """How matrices are laid out, for speed.

    Attributes:
        is_widened: they are copied to float32; else OpenVINO converts as it multiplies.
        is_joined: those for queries, keys and values are copied into one.
        is_gate_joined: those for gates and ups too. Of products of bfloat16 numbers, the bits are others in a model for
            one number of rows than in that for any.
        is_fused: feed-forwards are laid out so that OpenVINO makes one node of each.
        is_convolved: products of int8 numbers are convolutions.
    """

    is_widened: bool
    is_joined: bool
    is_gate_joined: bool
    is_fused: bool
    is_convolved: bool


class QuantisedRows(NamedTuple):
    """Rows rounded to int8, and each one's largest number."""

    values: Node  # [rows, inputs]; for convolutions [1, inputs, 1, rows]
    largest: Node  # [rows, 1]


Rows = Node | Output | QuantisedRows


class AttentionInputs(NamedTuple):
    """What every layer's attention needs besides its own queries, keys and values."""

    attended_strands: Node | None  # None: each strand is at its own place
    own_strands: Node | None
    past_lens: Node
    subsequence_begins: Node
    block_indices: Node
    block_indices_begins: Node
    max_context_len: Node
    qq_bias: Node
    qq_bias_begins: Node
    cosines: Node
    sines: Node


def build_graph(config: ModelConfig, weights: Weights, form: MatrixForm) -> Graph:
    """Lay out the model's nodes around its weights, of which nothing is copied but what the form says."""
    builder = _GraphBuilder(config, weights, form)
    model = builder.build(in_order=False)
    return Graph(model, cache(partial(builder.build, in_order=True)), list(builder.arrays.values()))


def least_model() -> ov.Model:
    """Hardly anything, which compiles at once: for what OpenVINO says only of something compiled."""
    row = ops.parameter(ov.PartialShape([1]), Type.f32)
    return ov.Model([ops.result(ops.abs(row))], [row], "least")  # pyright: ignore[reportGeneralTypeIssues]


def cache_input_names(layer: int) -> tuple[str, str]:
    return f"key_cache.{layer}", f"value_cache.{layer}"


class _GraphBuilder:
    def __init__(self, config: ModelConfig, weights: Weights, form: MatrixForm) -> None:
        self.config = config
        self.weights = weights
        self.form = form
        self.arrays: dict[str, NDArray[Any]] = {}
        self.parameters: list[Node] = []
        self.constants: dict[tuple[Any, ...], Node] = {}

    def build(self, *, in_order: bool) -> ov.Model:
        self.parameters = []
        rows = {name: self.parameter(name, [-1], Type.i32) for name in ROW_INPUTS}
        hidden = self.embedded(rows["input_ids"])
        inputs = self.attention_inputs(rows["position_ids"], in_order=in_order)
        for layer in range(self.config.num_layers):
            hidden = ops.add(hidden, self.attention(hidden, layer, inputs))
            hidden = ops.add(hidden, self.feed_forward(hidden, f"model.layers.{layer}"))
        hidden = ops.gather(hidden, rows["output_rows"], self.integers(0))
        hidden = self.operand(self.norm(hidden, "model.norm"))
        logits = self.product(hidden, "model.embed_tokens" if self.config.tie_word_embeddings else "lm_head")
        return ov.Model([ops.result(logits)], self.parameters, "decoder")  # pyright: ignore[reportGeneralTypeIssues]

    def parameter(self, name: str, shape: list[int], dtype: Type) -> Node:
        node = ops.parameter(ov.PartialShape(shape), dtype, name=name)
        node.output(0).get_tensor().set_names({name})
        self.parameters.append(node)
        return node

    def integers(self, value: int | list[int]) -> Node:
        return self.constant(np.array(value, np.int32))

    def floats(self, value: float | NDArray[Any]) -> Node:
        return self.constant(np.array(value, np.float32))

    def constant(self, array: NDArray[Any]) -> Node:
        """One node for each value: compiling takes its time by the node."""
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = ops.constant(array)
        return self.constants[key]

    def stored(self, *names: str, shape: Sequence[int] | None = None) -> Node:
        """A constant that reads the checkpoint's own memory, or of several tensors a copy, one after the other.

        In another shape if one is given; one node for each shape.
        """
        key = (names, shape)
        if key not in self.constants:
            raws = [self.weights[name] for name in names]
            array = raws[0].array if len(raws) == 1 else np.concatenate([raw.array for raw in raws])
            self.constants[key] = self.kept(names, array if shape is None else array.reshape(shape), raws[0].dtype)
        return self.constants[key]

    def kept(self, names: Sequence[str], array: NDArray[Any], dtype: str) -> Node:
        self.arrays[" ".join(names)] = array
        tensor = ov.Tensor(array, ov.Shape(array.shape), ELEMENT_TYPES[dtype])
        return ops.constant(tensor, shared_memory=True)

    def weight(self, name: str) -> Node:
        return _decompressed(self.stored(name))

    def embedded(self, token_ids: Node) -> Node:
        name = "model.embed_tokens.weight"
        table = self.matrix(name) if self.config.tie_word_embeddings else self.stored(name)
        hidden = ops.convert(ops.gather(table, token_ids, self.integers(0)), Type.f32)
        if not self.config.is_quantised:
            return hidden
        scales = self.stored(scale_name(name), shape=(self.config.vocab_size, 1))
        return ops.multiply(hidden, ops.gather(scales, token_ids, self.integers(0)))

    def matrix(self, *names: str) -> Node:
        """A constant with these matrices' rows, one matrix after the other; one node for each."""
        if not self.form.is_widened:
            return self.stored(*names)
        if names not in self.constants:
            array = np.concatenate([as_float32(self.weights[name]) for name in names])
            self.constants[names] = self.kept(names, array, "F32")
        return self.constants[names]

    def attention_inputs(self, positions: Node, *, in_order: bool) -> AttentionInputs:
        places = {name: None if in_order else self.parameter(name, [-1], Type.i32) for name in PLACE_INPUTS}
        vectors = {name: self.parameter(name, [-1], Type.i32) for name in SEQUENCE_INPUTS}
        tables = [
            ops.gather(self.parameter(name, [-1, 1, 1, self.config.head_dim], Type.f32), positions, self.integers(0))
            for name in ("cosines", "sines")
        ]
        return AttentionInputs(
            **places,
            **vectors,
            max_context_len=ops.squeeze(self.parameter("max_context_len", [1], Type.i32)),
            qq_bias=self.parameter("qq_bias", [-1], Type.u8),
            cosines=tables[0],
            sines=tables[1],
        )

    def operand(self, rows: Node | Output) -> Rows:
        """What stands for rows where matrices are multiplied with them: themselves, or rounded."""
        if not self.config.is_quantised:
            return rows
        largest = ops.reduce_max(ops.abs(rows), self.integers([-1]), keep_dims=True)
        tiny = self.floats(float(np.finfo(np.float32).tiny))  # a row of zeros stays one
        levels = ops.multiply(rows, ops.power(ops.add(largest, tiny), self.floats(-1)))  # as OpenVINO would divide
        if self.form.is_convolved:
            levels = self.reshaped(levels, [1, 1, -1, _num_columns(rows)])
        # 256 of them from -128 to 127, of which -128 is never reached
        low, high = self.floats(-(NUM_STEPS + 1) / NUM_STEPS), self.floats(1)
        rounded = ops.fake_quantize(levels, low, high, low, high, 256)
        if self.form.is_convolved:
            rounded = ops.transpose(rounded, self.integers([0, 3, 1, 2]))
        return QuantisedRows(rounded, largest)

    def product(self, rows: Rows, *names: str) -> Node:
        """Rows times a matrix, or times several in one product, [rows, outputs]."""
        names = tuple(f"{name}.weight" for name in names)
        if not isinstance(rows, QuantisedRows):
            return ops.matmul(rows, _decompressed(self.matrix(*names)), transpose_a=False, transpose_b=True)
        num_outputs, num_inputs = sum(map(self.num_outputs, names)), self.weights[names[0]].array.shape[1]
        window = (1, 1) if self.form.is_convolved else ()
        matrix = ops.convert(self.stored(*names, shape=(num_outputs, num_inputs, *window)), Type.f32)
        scales = self.stored(*map(scale_name, names), shape=(num_outputs, 1, *window))
        scaled = ops.multiply(matrix, scales)
        if self.form.is_convolved:
            sums = ops.convolution(rows.values, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
            sums = self.reshaped(ops.transpose(sums, self.integers([0, 2, 3, 1])), [-1, num_outputs])
        else:
            sums = ops.matmul(rows.values, scaled, transpose_a=False, transpose_b=True)
        return ops.multiply(sums, rows.largest)

    def reshaped(self, value: Node | Output, shape: list[int]) -> Node:
        return ops.reshape(value, self.integers(shape), special_zero=False)

    def linear(self, value: Rows, *names: str) -> Node:
        product = self.product(value, *names)
        biases = [f"{name}.bias" for name in names if f"{name}.bias" in self.weights.names]
        return ops.add(product, _decompressed(self.matrix(*biases))) if biases else product

    def is_alike(self, names: Sequence[str]) -> bool:
        """Whether these matrices, and their biases, can be copied into one."""
        dtypes = [
            {self.weights[tensor].dtype for name in names if (tensor := f"{name}.{kind}") in self.weights.names}
            for kind in ("weight", "bias")
        ]
        return self.form.is_widened or all(len(each) < 2 for each in dtypes)

    def num_outputs(self, matrix: str) -> int:
        return len(self.weights[matrix].array)

    def linears(self, value: Rows, *names: str, is_joined: bool) -> list[Output]:
        """What each gives of the same rows, perhaps of one product."""
        if not (is_joined and self.is_alike(names)):
            return [self.linear(value, name).output(0) for name in names]
        sizes = [self.num_outputs(f"{name}.weight") for name in names]
        product = self.linear(value, *names)
        return ops.variadic_split(product, self.integers(1), self.integers(sizes)).outputs()

    def norm(self, value: Node, name: str) -> Node:
        """The form that OpenVINO fuses into one node, which normalises in float32 and rounds once."""
        mean_square = ops.reduce_mean(ops.power(value, self.floats(2)), self.integers([-1]), keep_dims=True)
        scale = ops.power(ops.add(mean_square, self.floats(self.config.rms_norm_eps)), self.floats(-0.5))
        return ops.multiply(ops.multiply(value, scale), self.weight(f"{name}.weight"))

    def attention(self, hidden: Node, layer: int, inputs: AttentionInputs) -> Node:
        config, prefix = self.config, f"model.layers.{layer}.self_attn"
        hidden = self.norm(hidden, f"model.layers.{layer}.input_layernorm")
        names = (f"{prefix}.{name}_proj" for name in "qkv")
        query, key, value = self.linears(self.operand(hidden), *names, is_joined=self.form.is_joined)
        query = self.rotated_heads(query, f"{prefix}.q", config.num_heads, inputs)
        key = self.rotated_heads(key, f"{prefix}.k", config.num_kv_heads, inputs)
        # to attention every key-value head is a sequence of its own
        strands = [self.strands(projected, inputs.attended_strands) for projected in (query, key, value)]
        caches = [self.parameter(name, [-1, 1, -1, config.head_dim], Type.dynamic) for name in cache_input_names(layer)]
        attended = self.paged_attention([node.output(0) for node in (*strands, *caches)], inputs)
        if inputs.own_strands is not None:
            attended = ops.gather(attended, inputs.own_strands, self.integers(0))
        attended = self.reshaped(attended, [-1, config.num_heads * config.head_dim])
        return self.linear(self.operand(attended), f"{prefix}.o_proj")

    def strands(self, projected: Node | Output, places: Node | None) -> Node:
        """What each key-value head has of rows, [places, values]."""
        strands = self.reshaped(projected, [-1, _num_columns(projected) // self.config.num_kv_heads])
        return strands if places is None else ops.gather(strands, places, self.integers(0))

    def rotated_heads(self, projected: Output, prefix: str, num_heads: int, inputs: AttentionInputs) -> Node:
        head_dim = self.config.head_dim
        heads = self.reshaped(projected, [-1, num_heads, 1, head_dim])
        if self.config.qk_norm:
            heads = self.norm(heads, f"{prefix}_norm")
        # axis 3 rather than -1: only so is the rotation recognised and fused into one node
        first, second = ops.variadic_split(heads, self.integers(3), self.integers([head_dim // 2] * 2)).outputs()
        half_turned = ops.concat([ops.multiply(second, self.floats(-1)), first], -1)
        turned = ops.add(ops.multiply(heads, inputs.cosines), ops.multiply(half_turned, inputs.sines))
        return self.reshaped(turned, [-1, num_heads * head_dim])

    def paged_attention(self, states: list[Output], inputs: AttentionInputs) -> Output:
        """The op's 28 inputs have places, not names; many are for features that we do not use."""
        head_dim, no_integers, no_floats = self.config.head_dim, self.integers([]), self.floats(np.zeros(0))
        cache_rotation = [no_integers, no_integers, no_floats]
        sparse_attention = [no_floats, self.integers(64), self.integers(8)]
        eviction = [self.integers(0), no_integers, no_integers, no_integers]
        places = [
            inputs.past_lens,
            inputs.subsequence_begins,
            inputs.block_indices,
            inputs.block_indices_begins,
            self.floats(head_dim**-0.5),  # scale
            self.integers(0),  # sliding window
            no_floats,  # ALiBi slopes
            inputs.max_context_len,
            no_integers,  # score aggregation window
            *cache_rotation,
            *sparse_attention,
            self.floats(np.zeros((0, 0, 0, 0))),  # sinks
            *eviction,
            no_integers,  # token types
            inputs.qq_bias,
            inputs.qq_bias_begins,
        ]
        node = PagedAttention([*states, *(place.output(0) for place in places)])
        sizes = {"num_k_heads": 1, "num_v_heads": 1, "k_head_size": head_dim, "v_head_size": head_dim}
        for name, size in sizes.items():
            node.get_rt_info()[name] = size
        return node.output(0)

    def feed_forward(self, hidden: Node, prefix: str) -> Node:
        normed = self.norm(hidden, f"{prefix}.post_attention_layernorm")
        if self.form.is_fused:
            # What OpenVINO looks for has rows of rank 3, and a swish without the second input that ours always has.
            rows = self.reshaped(normed, [1, -1, self.config.hidden_size])
            gated = self.gated(rows, prefix, lambda gate: NodeFactory("opset4").create("Swish", [gate], {}))
            return self.reshaped(self.linear(gated, f"{prefix}.mlp.down_proj"), [-1, self.config.hidden_size])
        gated = self.gated(self.operand(normed), prefix, ops.swish)
        return self.linear(self.operand(gated), f"{prefix}.mlp.down_proj")

    def gated(self, rows: Rows, prefix: str, swish: Callable[[Output], Node]) -> Node:
        names = f"{prefix}.mlp.gate_proj", f"{prefix}.mlp.up_proj"
        gate, up = self.linears(rows, *names, is_joined=self.form.is_gate_joined)
        return ops.multiply(swish(gate), up)


def _num_columns(rows: Node | Output) -> int:
    return (rows if isinstance(rows, Output) else rows.output(0)).get_partial_shape()[-1].get_length()


def _decompressed(constant: Node) -> Node:
    """The constant as float32 in name only: the mark keeps OpenVINO from storing the converted copy."""
    if constant.get_element_type() == Type.f32:
        return constant
    node = ops.convert(constant, Type.f32)
    node.get_rt_info()["decompression_0"] = True
    return node
