"""Can a runtime's numbers be trusted, and which forwards give a row the same bits?

Asked the first time that a checkpoint meets a machine, through `forward` alone, and remembered. Knows no runtime in
particular. Every probe computes rows that plain decoding computed before, in another company, and measures how far
they moved. Rounding moves them a little, and then it matters in which company: forwards of so many rows at most,
prompts alone, chains but not trees. The engine keeps to the class that did not move. If that is large enough for a text
with its deepest draft, the runtime is `bitwise`; else it is `seed`. What moves by more than rounding is not the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import BLOCK_SIZE, num_blocks_for
from outrider.errors import ModelError, NumericsError
from outrider.request import MAX_DEPTH, Exactness
from outrider.runtime.base import RowClass, Runtime, SequenceRows
from outrider.runtime.remembered import machine_key, recall, remember

Logits = NDArray[np.float32]
Reference = Callable[[list[int]], Logits]  # token ids -> [tokens, vocab], by another implementation

# Raised when the probes change, so that what older ones said is asked again.
PROBE_VERSION = 8
# How far a row may move, relative to the spread of its logits. Rounding moves it by 1e-6 and 0.02, a wrong model by 1.
_LEVELS = ("bitwise", "seed")
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}
# Where rows are rounded to int8, a last bit may decide between two levels.
QUANTISED_TOLERANCE = 0.1

WIDTHS = (2, 3, 5, 8, 9, 16, 17, 33, MAX_DEPTH + 1)
RAGGED_WIDTHS = (1, 5, 17, 2) * 4
NUM_COPIES = len(RAGGED_WIDTHS)
# Rows of each of so many sequences together: up to what a decoding step may have.
CROWD_WIDTHS = (1, 5, 6, 8, 12, 16, 24, 33)
NUM_ALONE = 17
# Bounds of parts of a prompt that end with its last row: a single one before that, one more than what runtimes may fill
# up to, and as many as a step usually may have.
ROOTED = ((128, 130), (0, 65), (0, 73), (0, 129), (0, 193), (0, 257), (0, 512))
# Wide above, deep below, and longer than what is left of a block.
TREE = (-1, 0, 0, 0, 1, 1, 2, 4, 4, 6, 7, 9, 10, 11)


class Lengths(NamedTuple):
    """Tokens of a prompt, and of what is decoded after it."""

    num_prompt: int
    num_decoded: int


# One is decoded across borders between blocks, one across a usual border of padding.
SHORT, LONG = Lengths(25, max(WIDTHS)), Lengths(505, 17)


class SelfTest(NamedTuple):
    """What was found.

    Attributes:
        exactness: of chains, as far as the row class goes.
        row_difference: the largest.
        reference_difference: None where there was nothing to compare with.
        row_class: which forwards give a row the same bits.
        reason: why the level is not `bitwise`, in words; empty where it is.
    """

    exactness: Exactness
    row_difference: float
    reference_difference: float | None = None
    row_class: RowClass = RowClass()
    reason: str = ""


class Finding(NamedTuple):
    """How far rows moved in one forward; of decoding and of roots, also how many rows it had."""

    what: str
    difference: float
    kind: Literal["decode", "prefill", "root", "tree"]
    num_rows: int = 0


def check_numerics(runtime: Runtime, fingerprint: str, reference: Reference | None = None) -> SelfTest:
    """Test a runtime, or recall what was found when it was tested, and set its `exactness` and `row_class`.

    Args:
        runtime: freshly loaded; its cache serves the test and is emptied.
        fingerprint: the checkpoint's identity.
        reference: another implementation's logits; None where asking costs too much.

    Raises:
        ModelError: the logits are not finite.
        NumericsError: rows moved by more than rounding, or differ from the reference.
    """
    name = f"numerics/{machine_key(runtime, [PROBE_VERSION, fingerprint])}"
    found = _recall(name)
    if found is None or (reference and found.reference_difference is None):
        found = run_self_test(runtime, reference)
        remember(name, found._asdict() | {"row_class": found.row_class._asdict()})
    runtime.exactness, runtime.row_class = found.exactness, found.row_class
    return found


def run_self_test(runtime: Runtime, reference: Reference | None = None) -> SelfTest:
    """Test a runtime whose cache nobody uses yet; raises as `check_numerics` does."""
    findings: list[Finding] = []
    try:
        for finding in _probe(runtime):
            _refuse_beyond_rounding(runtime, finding)
            findings.append(finding)
        reference_difference = None
        if reference:
            finding = _compare_with(runtime, reference)
            _refuse_beyond_rounding(runtime, finding)
            reference_difference = finding.difference
    finally:
        runtime.resize(0)
    return _conclude(runtime, findings, reference_difference)


def _conclude(runtime: Runtime, findings: list[Finding], reference_difference: float | None) -> SelfTest:
    """The largest class of forwards in which nothing moved, and whether it is large enough.

    No class is larger than what was compared: what nobody has tried may move.
    """
    moved = [finding for finding in findings if finding.difference]
    limit, max_rows = _limits(findings, "decode")
    reason = ""
    if not runtime.options.bitwise:
        reason = "it was not asked for"
    elif max_rows < max(WIDTHS) and limit < math.inf:
        first = next(each for each in moved if each.kind == "decode" and each.num_rows == limit)
        reason = f"{first.what} differ by {first.difference:.2g} of the logits' spread"
    trees = [finding.difference for finding in findings if finding.kind == "tree"]
    # A tree's branches make more rows of it, so that no limit may be near.
    are_bitwise = limit == math.inf and trees and not any(trees)
    is_shared = not any(finding.kind == "prefill" for finding in moved)
    _, max_root_rows = _limits(findings, "root")
    trees_level: Exactness = "bitwise" if are_bitwise else "seed"
    row_class = RowClass() if reason else RowClass(max_rows, is_shared, trees_level, max_root_rows)
    largest = max(finding.difference for finding in findings)
    return SelfTest("seed" if reason else "bitwise", largest, reference_difference, row_class, reason)


def _limits(findings: Sequence[Finding], kind: Literal["decode", "root"]) -> tuple[float, int]:
    """The least number of rows at which any moved, and the largest that was compared below it."""
    numbers = [(finding.num_rows, bool(finding.difference)) for finding in findings if finding.kind == kind]
    limit = min((num_rows for num_rows, has_moved in numbers if has_moved), default=math.inf)
    return limit, max((num_rows for num_rows, _ in numbers if num_rows < limit), default=0)


def _probe(runtime: Runtime) -> Iterator[Finding]:
    """Rows put together as the engine does, against plain decoding: deepest drafts, many sequences, trees."""
    text = _Text(runtime, SHORT, num_copies=NUM_COPIES)
    plain = text.decode_plainly()
    yield from text.decode_in_widths(plain)
    yield from text.prefill_together()
    if runtime.options.bitwise:  # else no root comes with its prompt
        yield from text.prefill_with_root(0, text.num_prompt)
    yield from text.decode_beside_others(plain)
    yield from text.decode_trees()
    text = _Text(runtime, LONG, num_copies=2)
    yield from text.decode_in_widths(text.decode_plainly())
    text.prefill(1)
    yield from text.decode_trees()
    yield from text.prefill_in_chunks()
    for first, end in ROOTED if runtime.options.bitwise else ():
        yield from text.prefill_with_root(first, end)


def _compare_with(runtime: Runtime, reference: Reference) -> Finding:
    text = _Text(runtime, SHORT)
    found = text.forward((0, len(text.token_ids), 0))
    difference = _difference(found, reference(text.token_ids))
    return Finding("a short text's logits against the reference", difference, "prefill")


class _Text:
    """A random text, as long as the context allows, in copies that each have blocks of their own."""

    def __init__(self, runtime: Runtime, lengths: Lengths, *, num_copies: int = 1) -> None:
        num_tokens = min(sum(lengths), runtime.config.max_context)
        self.runtime = runtime
        self.num_prompt = max(num_tokens - lengths.num_decoded, 1)
        generator = np.random.default_rng(lengths)
        self.token_ids: list[int] = generator.integers(runtime.config.vocab_size, size=num_tokens).tolist()
        num_blocks = num_blocks_for(num_tokens + runtime.min_rows)
        runtime.resize(max(runtime.num_blocks, num_blocks * num_copies))
        # neither in order nor side by side
        self.tables = [list(range(copy, num_blocks * num_copies, num_copies))[::-1] for copy in range(num_copies)]

    def rows(self, first: int, end: int, copy: int, output_rows: Sequence[int] | None = None) -> SequenceRows:
        wanted = range(end - first) if output_rows is None else output_rows
        return SequenceRows(self.token_ids[first:end], first, self.tables[copy], wanted)

    def chunk(self, first: int, end: int, copy: int, output_rows: Sequence[int] = ()) -> SequenceRows:
        return self.rows(first, end, copy, output_rows)._replace(is_prompt=True)

    def forward(self, *spans: tuple[int, int, int]) -> Logits:
        """Logits of all rows of spans (first, end, copy) in one call."""
        return self.compute([self.rows(*span) for span in spans])

    def compute(self, batch: list[SequenceRows]) -> Logits:
        logits = np.array(self.runtime.forward(batch).logits)
        if not np.isfinite(logits).all():
            raise ModelError(
                "the model's logits are not finite: its weights are damaged, download the checkpoint again"
            )
        return logits

    def prefill(self, *copies: int) -> Logits:
        """Logits of the prompt's last row, once for each copy."""
        return self.compute([self.chunk(0, self.num_prompt, copy, [self.num_prompt - 1]) for copy in copies])

    def decode_plainly(self) -> Logits:
        """Row by row; the rest of a long text, to save time, in a width that is itself among those compared."""
        self.prefill(0)
        steps = range(self.num_prompt, len(self.token_ids))
        borders = (*steps[:NUM_ALONE], *steps[NUM_ALONE::16], steps.stop)
        return np.concatenate([self.forward((first, end, 0)) for first, end in pairwise(borders)])

    def decode_in_widths(self, plain: Logits) -> Iterator[Finding]:
        """Rows together after tokens that were rolled back."""
        start = self.num_prompt
        wrong = [(token + 1) % self.runtime.config.vocab_size for token in self.token_ids[start:]]
        self.compute([SequenceRows(wrong, start, self.tables[0], [])])
        for width in (width for width in WIDTHS if width <= len(plain)):
            difference = _difference(self.forward((start, start + width, 0)), plain[:width])
            what = f"{width} rows in one call against one by one"
            yield Finding(what, difference, "decode", width)

    def prefill_in_chunks(self) -> Iterator[Finding]:
        """Chunks of whole blocks and a rest in one call, where other keys stood, and one after the other."""
        first, second, end = 3 * BLOCK_SIZE, 6 * BLOCK_SIZE, 6 * BLOCK_SIZE + 11
        if end > self.num_prompt:
            return
        chunks = [self.chunk(0, first, 0), self.chunk(first, second, 0), self.chunk(second, end, 0, [10])]
        self.compute([self.chunk(0, end, 0)._replace(token_ids=self.token_ids[end - 1 :: -1])])
        together = self.compute(chunks)
        *_, apart = (self.compute([chunk]) for chunk in chunks)
        what = "chunks of a prompt in one call against one after the other"
        yield Finding(what, _difference(together, apart), "prefill")

    def prefill_with_root(self, first: int, end: int) -> Iterator[Finding]:
        """A prompt's last row computed with its chunk and after it, and the row after that; if the text is so long."""
        num_rows, root = end - first, end - 1
        if num_rows < 2 or end >= len(self.token_ids):
            return
        self.compute([self.chunk(first, root, 0)])
        apart = np.concatenate([self.forward((row, row + 1, 0)) for row in (root, end)])
        with_chunk = self.compute([self.chunk(first, end, 0, [num_rows - 1])])
        together = np.concatenate([with_chunk, self.forward((end, end + 1, 0))])
        what = f"the last of {num_rows} rows of a prompt, and the one after it, in one call against one by one"
        yield Finding(what, _difference(together, apart), "root", num_rows)

    def prefill_together(self) -> Iterator[Finding]:
        """Prompts of several sequences in one call; then each alone, which is how the texts go on."""
        alone = self.prefill(0)
        together = self.prefill(*range(NUM_COPIES))
        difference = _difference(together, alone.repeat(NUM_COPIES, 0))
        yield Finding("prompts side by side against alone", difference, "prefill")
        if self.num_prompt > 1:
            yield Finding("prompts' last rows side by side", difference, "root", NUM_COPIES * self.num_prompt)
        for copy in range(NUM_COPIES):
            self.prefill(copy)

    def decode_beside_others(self, plain: Logits) -> Iterator[Finding]:
        """Sequences together: a few rows and many, all alike and each with its own."""
        for asked in (RAGGED_WIDTHS, *((width,) * NUM_COPIES for width in CROWD_WIDTHS)):
            widths = [min(width, len(plain)) for width in asked]
            start = self.num_prompt
            found = self.forward(*((start, start + width, copy) for copy, width in enumerate(widths)))
            difference = _difference(found, np.concatenate([plain[:width] for width in widths]))
            what = f"{sum(widths)} rows of {len(widths)} sequences in one call against one by one"
            yield Finding(what, difference, "decode", sum(widths))

    def decode_trees(self) -> Iterator[Finding]:
        """A tree, if the text is long enough, against each of its branches; the prompt is in two copies already."""
        start = self.num_prompt
        nodes = self.token_ids[start : start + len(TREE)]
        if len(nodes) < len(TREE):
            return
        tree = SequenceRows(nodes, start, self.tables[0], range(len(TREE)), TREE)
        found = self.compute([tree])
        for branch in tree.branches():
            wanted = self.compute([self._chain(nodes, branch)])
            yield Finding("rows of a tree against their branch alone", _difference(found[branch], wanted), "tree")
        branch = tree.branches()[-1]
        self.runtime.move(self.tables[0], [(start + row, start + place) for place, row in enumerate(branch)])
        last = [self.rows(start, start + 1, copy) for copy in (0, 1)]
        kept, wanted = (self.compute([rows._replace(num_past=start + len(branch), output_rows=[0])]) for rows in last)
        yield Finding("a row after a branch that was kept", _difference(kept, wanted), "tree")

    def _chain(self, nodes: Sequence[int], branch: Sequence[int]) -> SequenceRows:
        tokens = [nodes[row] for row in branch]
        return SequenceRows(tokens, self.num_prompt, self.tables[1], range(len(branch)))


def _difference(found: Logits, wanted: Logits) -> float:
    """The most that a row moved: 0 if no bit did, else relative to the spread of its logits."""
    if np.array_equal(found, wanted):
        return 0.0
    # what is added to all logits of a row changes no probability
    moved, spread = (found - wanted).std(axis=-1), wanted.std(axis=-1)
    return float((moved / np.maximum(spread, np.finfo(np.float32).tiny)).max())


def _refuse_beyond_rounding(runtime: Runtime, finding: Finding) -> None:
    tolerance = QUANTISED_TOLERANCE if runtime.config.is_quantised else TOLERANCES[str(runtime.options.dtype)]
    if finding.difference > tolerance:
        raise NumericsError(
            f"the {runtime.name} runtime miscomputes this model in {runtime.options.dtype}: {finding.what} differ by "
            f"{finding.difference:.2g} of the logits' spread, of which rounding explains {tolerance:g}: "
            "try another --dtype, and please report it"
        )


def _recall(name: str) -> SelfTest | None:
    """What a file says; a damaged one says nothing."""
    found: Any = recall(name)
    try:
        test = SelfTest(**found)._replace(row_class=RowClass(**found["row_class"]))
    except (TypeError, KeyError):
        return None
    rows, is_bitwise = test.row_class, test.exactness == "bitwise"
    is_sound = (
        _is_difference(test.row_difference)
        and (test.reference_difference is None or _is_difference(test.reference_difference))
        and test.exactness in _LEVELS
        and rows.trees in _LEVELS
        and (rows.max_rows is None or (type(rows.max_rows) is int and rows.max_rows > 0))
        and type(rows.max_root_rows) is int
        and rows.max_root_rows >= 0
        and type(rows.is_prefill_shared) is bool
        and type(test.reason) is str
        and is_bitwise == (not test.reason)
    )
    return test if is_sound else None


def _is_difference(number: Any) -> bool:
    return type(number) in (int, float) and 0 <= number < math.inf
