"""The compiled forms of a graph: one for any number of rows, and one for each number that comes again and again.

The form for any number prepares every layer anew when the number changes, which takes a small model about as long as
computing the rows, and works out shapes even where it does not. A form for one number never has to; but it has copies
of the matrices to itself, and compiling it takes half a second. So forms are compiled beside the decoding, as soon as
what they would have saved is a share of that: nobody knows the future, and decoding that has gone on for seconds mostly
goes on (the ski rental problem). All numbers that keep coming are compiled at once and used from the same step on: a
cheap forward of one number beside dear ones of others would make plans that do not last.

Of a large model, memory allows for few. Compiling one takes two seconds, and beside the decoding as much from that as
five: so one is compiled, when the model is loaded, for the rows that plain steps and short drafts compute.

Both forms compute the first forwards of a number: one that differs, where bits count in a bit, is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from outrider.runtime.openvino.graph import Graph
from outrider.runtime.openvino.heads import INPUTS, HeadLayout, Integers
from outrider.runtime.openvino.layout import NUM_FORM_COPIES

# A model that has fewer forms of its own than this gains little of changes: rows of decoding steps vary.
MIN_FORMS, MAX_FORMS = 4, 12
MAX_FORM_BYTES = 2**30
# What the only form of a large model may take, of all memory a share. Of 0.5 B it takes 0.92 of the time (docs/log.md).
MAX_ONLY_BYTES, MEMORY_SHARE = 2**32, 1 / 8
# What a form saves where the number of rows does not change, over what it saves where it does; measured as 0.1 to 0.2.
STEADY_SHARE = 0.12
# Forms are made for the numbers of rows that so much of what could be saved is of, once that is so much of their price.
MOST_SAVINGS, PRICE_SHARE = 0.95, 0.25

# Forwards that both forms compute; where bits do not count, how far a row may move, over its logits' spread. Rounding
# of bfloat16 numbers moves one of 32 M by 0.014, and the farthest of its 32,000 logits by 0.06: they may by 0.5.
NUM_COMPARED = 3
TOLERANCE, FARTHEST = 0.05, 0.5

Compile = Callable[[ov.Model], ov.CompiledModel]
Logits = NDArray[np.float32]


class Shape(NamedTuple):
    """What a form is compiled for; the number of sequences and the length of their texts may vary."""

    num_rows: int
    num_strands: int  # of these rows
    num_places: int  # of attention, one for each strand or more
    is_in_order: bool


def num_affordable(matrix_bytes: int, memory_bytes: int) -> int:
    """How many forms of its own a model may have, by its matrices' bytes as they are computed with."""
    form_bytes = NUM_FORM_COPIES * matrix_bytes
    count = min(MAX_FORMS, MAX_FORM_BYTES // form_bytes)
    return count if count >= MIN_FORMS else int(form_bytes <= min(MAX_ONLY_BYTES, MEMORY_SHARE * memory_bytes))


class _Making(NamedTuple):
    """Forms that are being compiled, one after the other, so that whoever stops waits for one at most."""

    shapes: list[Shape]
    forms: list[_Form]
    next: Future[_Form]


def _shape_of(layout: HeadLayout) -> Shape:
    values = layout.values
    return Shape(
        num_rows=len(values["input_ids"]),
        num_strands=len(values["own_strands"]),
        num_places=len(values["attended_strands"]),
        is_in_order=layout.is_in_order,
    )


class Forms:
    """Runs layouts, each in the form that serves it best.

    Args:
        graph: for any number of rows.
        compile_: makes it computable.
        num_fixed: forms for single numbers of rows that are made beside the decoding, at most.
        is_bitwise: whether those must give the same bits.

    Attributes:
        graph: with the weights, which must be there as long as anything is compiled from them.
        free: numbers of rows that a forward may have without any layer being prepared for them, as far as the last
            ones tell: how many rows attention has depends on the sequences, too.
        change_seconds: what preparing takes, once it is known; up to then no form is made.
        is_eager: whether a form is made at once for what has none.
    """

    def __init__(self, graph: Graph, compile_: Compile, *, num_fixed: int, is_bitwise: bool) -> None:
        began = time.perf_counter()
        self._any = _Form(compile_(graph.model))
        self._compile_seconds = time.perf_counter() - began
        # OpenVINO reads the graph's arrays in place, but does not keep them.
        self.graph, self._compile, self._num_fixed = graph, compile_, num_fixed
        self._is_bitwise = is_bitwise
        self._shared: dict[str, ov.Tensor] = {}
        self._last: Shape | None = None  # the lengths
        self._savings: dict[Shape, float] = {}  # seconds that forms would have saved since some were made
        self._making: _Making | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._fixed: dict[Shape, _Form] = {}
        self._num_to_compare: dict[Shape, int] = {}
        self._refused: set[Shape] = set()
        self.free: set[int] = set()
        self.change_seconds = 0.0
        self.is_eager = False

    @property
    def compiled(self) -> ov.CompiledModel:
        """The form for any number of rows."""
        return self._any.compiled

    def share(self, name: str, tensor: ov.Tensor) -> None:
        """Let every form read and write this memory, which the caller keeps."""
        self._shared[name] = tensor
        for form in (self._any, *self._fixed.values()):
            form.share(name, tensor)

    def run(self, layout: HeadLayout, *, is_prompt: bool) -> Logits:
        """Compute; the logits of the layout's output rows, in memory that the next run takes back."""
        outputs = layout.values["output_rows"]
        num_outputs = len(outputs)
        if is_prompt:  # of which no two pieces need be of one length
            self._last = None
            if not num_outputs:
                layout = layout.with_outputs([0])  # the nodes after the layers cannot do with no row at all
            return self._any.run(layout)[:num_outputs]
        wanted = _shape_of(layout)
        self._take_in()
        if self.is_eager and wanted not in self._fixed and wanted not in self._refused:
            self._making = _Making([wanted], [], self._start(wanted))
            self._making.next.exception()  # waits
            self._take_in()
        # what is made for any order serves rows in order too
        shape = wanted if wanted in self._fixed else wanted._replace(is_in_order=False)
        form = self._fixed.get(shape)
        if form is None:
            self.free.discard(wanted.num_rows)
            self._count(wanted)
            return self._any.run(layout)
        filling = [0] * (shape.num_rows - num_outputs)  # any row does, since nobody reads its logits
        logits = form.run(layout.with_outputs([*outputs, *filling]))[:num_outputs]
        if shape in self._num_to_compare:
            return self._compared(shape, logits, layout)
        self.free.add(shape.num_rows)
        return logits

    def _count(self, shape: Shape) -> None:
        """Note what a form would have saved, and begin to make the forms that would have saved enough."""
        lengths = shape._replace(is_in_order=False)
        is_change, self._last = self._last != lengths, lengths
        num_left = self._num_fixed - len(self._fixed)
        if not self.change_seconds or self._making or num_left <= 0 or shape in self._refused:
            return
        saved = self.change_seconds * (1.0 if is_change else STEADY_SHARE)
        self._savings[shape] = self._savings.get(shape, 0.0) + saved
        price, total = PRICE_SHARE * self._compile_seconds, sum(self._savings.values())
        if total < price:
            return
        wanted: list[Shape] = []
        covered = 0.0
        for each in sorted(self._savings, key=self._savings.__getitem__, reverse=True)[:num_left]:
            if covered < MOST_SAVINGS * total:
                wanted.append(each)
                covered += self._savings[each]
        if total >= price * len(wanted):
            self._savings.clear()
            self._making = _Making(wanted, [], self._start(wanted[0]))

    def _start(self, shape: Shape) -> Future[_Form]:
        self._worker = self._worker or ThreadPoolExecutor(max_workers=1)
        return self._worker.submit(self._make, shape)

    def _make(self, shape: Shape) -> _Form:
        model = (self.graph.in_order() if shape.is_in_order else self.graph.model).clone()
        num_rows = [shape.num_rows]
        lengths = {"input_ids": num_rows, "position_ids": num_rows, "output_rows": num_rows}
        if not shape.is_in_order:
            lengths |= {"own_strands": [shape.num_strands], "attended_strands": [shape.num_places]}
        model.reshape(lengths)
        return _Form(self._compile(model))

    def _take_in(self) -> None:
        """Go on making forms, and use them once all are there. What cannot be made is done without."""
        if self._making is None or not self._making.next.done():
            return
        shapes, forms, made = self._making
        if made.exception() is not None:  # too little memory, perhaps: the form for any number serves as before
            self._refused.update(shapes)
            self._making = None
            return
        forms.append(made.result())
        if len(forms) < len(shapes):
            self._making = _Making(shapes, forms, self._start(shapes[len(forms)]))
            return
        self._making = None
        for shape, form in zip(shapes, forms, strict=True):
            self._fixed[shape] = form
            self._num_to_compare[shape] = NUM_COMPARED
            for name, tensor in self._shared.items():
                form.share(name, tensor)

    def _compared(self, shape: Shape, logits: Logits, layout: HeadLayout) -> Logits:
        """What the form for any number gives, which also has the last word on what the cache holds."""
        expected = self._any.run(layout)
        self._last = shape._replace(is_in_order=False)
        if not np.isfinite(expected).all():  # a text whose logits are no numbers, which tells nothing
            return expected
        if not self._is_same(logits, expected):
            del self._fixed[shape], self._num_to_compare[shape]
            self._refused.add(shape)
            return expected
        self._num_to_compare[shape] -= 1
        if not self._num_to_compare[shape]:
            del self._num_to_compare[shape]
            self.free.add(shape.num_rows)
        return expected

    def _is_same(self, logits: Logits, expected: Logits) -> bool:
        if self._is_bitwise:
            return np.array_equal(logits.view(np.uint32), expected.view(np.uint32))
        moved, spread = logits - expected, expected.std(axis=-1)
        is_near = (moved.std(axis=-1) <= TOLERANCE * spread) & (np.abs(moved).max(axis=-1) <= FARTHEST * spread)
        return bool(is_near.all())


class _Form:
    """A compiled graph and its inputs."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._places = {port.get_any_name(): place for place, port in enumerate(compiled.inputs)}
        self._inputs = {
            name: _Input(self._request, self._places[name], name) for name in INPUTS if name in self._places
        }

    def share(self, name: str, tensor: ov.Tensor) -> None:
        self._request.set_input_tensor(self._places[name], tensor)

    def run(self, layout: HeadLayout) -> Logits:
        for name, input_ in self._inputs.items():
            input_.fill(layout.values[name])
        self._request.infer(share_outputs=True)
        return self._request.get_output_tensor(0).data


class _Input:
    """A list of integers that goes in with every forward, from memory that grows with the longest."""

    def __init__(self, request: ov.InferRequest, place: int, name: str) -> None:
        self._request = request
        self._place = place
        self._element_type = ov.Type.u8 if name == "qq_bias" else ov.Type.i32
        self._array: NDArray[Any] = np.zeros(0, np.uint8 if name == "qq_bias" else np.int32)
        self._values: NDArray[Any] | None = None  # what goes in, of the array

    def fill(self, values: list[int] | Integers) -> None:
        if len(values) > len(self._array):
            self._array = np.zeros(2 * len(values), self._array.dtype)
            self._values = None
        if self._values is None or len(values) != len(self._values):
            self._values = self._array[: len(values)]
            tensor = ov.Tensor(self._values, ov.Shape(self._values.shape), self._element_type)
            self._request.set_input_tensor(self._place, tensor)
        self._values[:] = values
