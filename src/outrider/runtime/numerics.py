"""Can a runtime's numbers be trusted, and are they the same to the bit however rows are put together?

Asked the first time that a checkpoint meets a machine, through `forward` alone, and remembered. Knows no runtime in
particular. Every probe computes rows that plain decoding computed before, in another company, and measures how far
they moved: not at all in any probe, and the runtime is `bitwise`; by rounding, and it is `seed`; by more, and it
computes something other than the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import num_blocks_for
from outrider.errors import ModelError, NumericsError
from outrider.request import MAX_DEPTH, Exactness
from outrider.runtime.base import Runtime, SequenceRows
from outrider.runtime.remembered import machine_key, recall, remember

Logits = NDArray[np.float32]
Reference = Callable[[list[int]], Logits]  # token ids -> [tokens, vocab], by another implementation

# Raised when the probes change, so that what older ones said is asked again.
PROBE_VERSION = 3
# How far a row may move, relative to the spread of its logits. Rounding moves it by 1e-6 and 0.02, a wrong model by 1.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}

WIDTHS = (2, 3, 5, 8, 9, 16, 17, 33, MAX_DEPTH + 1)
RAGGED_WIDTHS = (1, 5, 17, 2) * 4
NUM_ALONE = 17
TREE = (-1, 0, 0, 1)
TREE_PATHS = ((0, 2), (0, 1, 3))


class Lengths(NamedTuple):
    """Tokens of a prompt, and of what is decoded after it."""

    num_prompt: int
    num_decoded: int


# One is decoded across borders between blocks, one across a usual border of padding.
SHORT, LONG = Lengths(25, max(WIDTHS)), Lengths(505, 17)


class SelfTest(NamedTuple):
    """What was found: the largest differences, None where there was nothing to compare with."""

    exactness: Exactness
    row_difference: float
    reference_difference: float | None


class Finding(NamedTuple):
    """How far rows moved. A tree's rows may always move: siblings stand between a row and its ancestors."""

    what: str
    difference: float
    may_round: bool = False


def check_numerics(runtime: Runtime, fingerprint: str, reference: Reference | None = None) -> SelfTest:
    """Test a runtime, or recall what was found when it was tested, and set its `exactness`.

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
        remember(name, found._asdict())
    runtime.exactness = found.exactness
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
    is_bitwise = runtime.options.bitwise and all(finding.may_round or not finding.difference for finding in findings)
    largest = max(finding.difference for finding in findings)
    return SelfTest("bitwise" if is_bitwise else "seed", largest, reference_difference)


def _probe(runtime: Runtime) -> Iterator[Finding]:
    """Rows put together as the engine does, against plain decoding: up to the deepest draft, up to 16 sequences."""
    text = _Text(runtime, SHORT, num_copies=len(RAGGED_WIDTHS))
    plain = text.decode_plainly()
    yield from text.decode_in_widths(plain)
    yield from text.decode_beside_others(plain)
    yield from text.decode_trees()
    text = _Text(runtime, LONG)
    yield from text.decode_in_widths(text.decode_plainly())


def _compare_with(runtime: Runtime, reference: Reference) -> Finding:
    text = _Text(runtime, SHORT)
    found = text.forward((0, len(text.token_ids), 0))
    return Finding("a short text's logits against the reference", _difference(found, reference(text.token_ids)))


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
        return self.compute([self.rows(0, self.num_prompt, copy, [self.num_prompt - 1]) for copy in copies])

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
            found = self.forward((start, start + width, 0))
            yield Finding(f"{width} rows in one call against one by one", _difference(found, plain[:width]))

    def decode_beside_others(self, plain: Logits) -> Iterator[Finding]:
        """Sequences together, in prefill and in decoding."""
        copies = range(len(RAGGED_WIDTHS))
        alone = self.prefill(0)
        together = self.prefill(*copies)
        yield Finding("prompts side by side against alone", _difference(together, np.repeat(alone, len(copies), 0)))
        for widths in ([min(width, len(plain)) for width in RAGGED_WIDTHS], [1] * len(copies)):
            spans = [
                (self.num_prompt, self.num_prompt + width, copy) for copy, width in zip(copies, widths, strict=True)
            ]
            wanted = np.concatenate([plain[:width] for width in widths])
            yield Finding("sequences side by side against alone", _difference(self.forward(*spans), wanted))

    def decode_trees(self) -> Iterator[Finding]:
        """A tree, if the text is long enough, against each of its paths; the prompt is in all copies already."""
        start = self.num_prompt
        nodes = self.token_ids[start : start + len(TREE)]
        if len(nodes) < len(TREE):
            return
        tree = self.compute([SequenceRows(nodes, start, self.tables[0], range(len(TREE)), TREE)])
        for path in TREE_PATHS:
            chain = SequenceRows([nodes[row] for row in path], start, self.tables[1], [len(path) - 1])
            difference = _difference(tree[path[-1:],], self.compute([chain]))
            yield Finding("a row of a tree against its path alone", difference, may_round=True)


def _difference(found: Logits, wanted: Logits) -> float:
    """The most that a row moved: 0 if no bit did, else relative to the spread of its logits."""
    if np.array_equal(found, wanted):
        return 0.0
    # what is added to all logits of a row changes no probability
    moved, spread = (found - wanted).std(axis=-1), wanted.std(axis=-1)
    return float((moved / np.maximum(spread, np.finfo(np.float32).tiny)).max())


def _refuse_beyond_rounding(runtime: Runtime, finding: Finding) -> None:
    tolerance = TOLERANCES[str(runtime.options.dtype)]
    if finding.difference > tolerance:
        raise NumericsError(
            f"the {runtime.name} runtime miscomputes this model in {runtime.options.dtype}: {finding.what} differ by "
            f"{finding.difference:.2g} of the logits' spread, of which rounding explains {tolerance:g}: "
            "try another --dtype, and please report it"
        )


def _recall(name: str) -> SelfTest | None:
    found = recall(name)
    try:
        return SelfTest(**found)
    except TypeError:
        return None
