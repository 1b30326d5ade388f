"""A scheduled batch and its trees as the rows of one forward, and the target's answers at those rows.

Knows how rows are numbered; no cache arrays, no verification.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from outrider import noise, sampling
from outrider.cache.table import BlockTable
from outrider.request import TokenLogProbs
from outrider.runtime.base import ModelOutput, Runtime, SequenceRows, joined
from outrider.sampling import History
from outrider.sequence import ScheduledSequence, Sequence
from outrider.tree import TokenTree, Verdict


def rows_of(item: ScheduledSequence, tree: TokenTree, table: BlockTable) -> SequenceRows:
    """The item's uncomputed tokens, then its tree under the last of them.

    [0, num_tokens)                         tokens of the text, the root last if the item reaches it
    [num_tokens, num_tokens + len(tree))    nodes
    """
    text = item.sequence.token_ids[item.sequence.num_computed :][: item.num_tokens]
    token_ids = (*text, *tree.tokens)
    root_row = item.num_tokens - 1
    output_rows = range(root_row, len(token_ids)) if item.reaches_root else ()
    parents = None
    if not tree.is_chain:
        parents = (*range(-1, root_row), *(parent + item.num_tokens for parent in tree.parents))
    return SequenceRows(token_ids, table.num_committed, table.blocks, output_rows, parents)


def chunks_of(item: ScheduledSequence, table: BlockTable, length: int) -> list[SequenceRows]:
    """A prompt's chunks, each in the shape that it has alone; in a forward, each sees those before it.

    The root, if the item reaches it, is one more row of the last, wherever that ends.
    """
    token_ids, begin, end = item.sequence.token_ids, table.num_committed, table.num_committed + item.num_tokens
    borders = [begin, *range((begin // length + 1) * length, end - item.reaches_root, length), end]
    chunks = [SequenceRows(token_ids[a:b], a, table.blocks, (), is_prompt=True) for a, b in pairwise(borders)]
    if item.reaches_root:
        chunks[-1] = chunks[-1]._replace(output_rows=(len(chunks[-1].token_ids) - 1,))
    return chunks


def kept_rows(item: ScheduledSequence, path: tuple[int, ...]) -> tuple[int, ...]:
    """Rows whose tokens belong to the text: the item's own and the accepted nodes'."""
    return (*range(item.num_tokens), *(item.num_tokens + node for node in path))


def compute(target: Runtime, kind: Literal["prefill", "decode"], batch: list[SequenceRows]) -> ModelOutput:
    """One forward, or as many as it takes for each to stay in the class where rows have the bits of plain decoding."""
    tiles = _tiles(target, kind, batch)
    if len(tiles) == 1:
        return target.forward(batch)
    return joined(target.forward(tile) for tile in tiles)


def computed_rows(target: Runtime, num_rows: Sequences[int]) -> int:
    """How many rows a decoding step computes for sequences of so many rows, in all the forwards that it takes."""
    return sum(target.computed_rows(num_rows[tile]) for tile in _decode_tiles(target, num_rows))


def _tiles(target: Runtime, kind: Literal["prefill", "decode"], batch: list[SequenceRows]) -> list[list[SequenceRows]]:
    if kind == "prefill":
        return [batch] if target.row_class.is_prefill_shared else [[rows] for rows in batch]
    return [batch[tile] for tile in _decode_tiles(target, [len(rows.token_ids) for rows in batch])]


def _decode_tiles(target: Runtime, num_rows: Sequences[int]) -> list[slice]:
    """Sequences that share a forward: as many as the row class has room for, in their order, but one at least."""
    max_rows = target.row_class.max_rows
    if max_rows is None or target.num_padded_rows(num_rows) <= max_rows:
        return [slice(0, len(num_rows))]
    ends = [0]
    for end in range(1, len(num_rows) + 1):
        if end - 1 > ends[-1] and target.num_padded_rows(num_rows[ends[-1] : end]) > max_rows:
            ends.append(end - 1)
    return [slice(*pair) for pair in pairwise([*ends, len(num_rows)])]


class LogitRows:
    """What a verifier asks of one sequence's root and nodes (`verify.base.Round`), each computed only when asked for.

    Args:
        history: what penalties and bans look at, of the text so far.
        logits: [1 + nodes, vocab], of an array or of `DeviceLogits`.
        probabilities: [nodes, vocab] that the tree's tokens were drawn from; None if they were not drawn.
    """

    def __init__(
        self,
        history: History,
        sequence: Sequence,
        tree: TokenTree,
        logits: Any,
        probabilities: NDArray[np.float64] | None = None,
    ) -> None:
        self._request = sequence.request
        self._history = history
        self._history.follow(sequence.token_ids)
        self._root_position = len(sequence.token_ids) - 1
        self._tree = tree
        self._depths = (0, *tree.depths())
        self._logits = logits
        self._probabilities = probabilities
        self._processed_rows: dict[int, sampling.Row] = {}

    def token(self, row: int) -> int:
        """The target's own token after this row."""
        request = self._request
        address = noise.Address(request.seed, request.stream, self._root_position + self._depths[row] + 1)
        return sampling.choose(self._processed(row), request.params, address)

    def target_probabilities(self, row: int) -> NDArray[np.float64]:
        """[vocab], of the token after this row."""
        return sampling.probabilities(self._processed(row), self._request.params)

    def draft_probabilities(self, node: int) -> NDArray[np.float64] | None:
        """[vocab] that a node was drawn from; None if it was not drawn."""
        return None if self._probabilities is None else self._probabilities[node]

    def flip(self, node: int, probability: float) -> bool:
        """The node's coin, under noise that nothing else looks at."""
        return noise.uniform(noise.row_key(self._address("coin", node))) < probability

    def pick(self, node: int, probabilities: NDArray[np.float64]) -> int:
        """A token, under noise that nothing else looks at."""
        return sampling.draw(probabilities, self._address("residual", node))

    def _address(self, purpose: noise.Purpose, node: int) -> noise.Address:
        request = self._request
        return noise.Address(request.seed, request.stream, self._root_position, purpose, self._tree.ranks_to(node))

    def log_probs_along(self, verdict: Verdict) -> list[TokenLogProbs]:
        """Of the accepted tokens and the next one."""
        rows = (0, *(node + 1 for node in verdict.path))
        token_ids = (*(self._tree.tokens[node] for node in verdict.path), verdict.next_token)
        return [
            sampling.token_log_probs(self._logits[row], self._processed(row), self._request.params, token_id)
            for row, token_id in zip(rows, token_ids, strict=True)
        ]

    def _processed(self, row: int) -> sampling.Row:
        """Logits that the token after this row is drawn from, made once."""
        if not self._history.is_needed:
            return self._logits[row]
        if row not in self._processed_rows:
            self._processed_rows[row] = self._history.process(self._logits[row], self._tree.tokens_to(row - 1))
        return self._processed_rows[row]
