"""A batch's rows as attention gets them: each key-value head of a sequence as a sequence of its own.

In the cache, all blocks of one head lie one after the other, and then those of the next. A text whose blocks are taken
in order is then read in the order of memory, which is what processors read ahead: where the heads of a block lay side
by side, each in 4 KB, attention of one row after 4,096 tokens took 22 ms instead of 12 (docs/log.md).

What one key-value head of a row has, its queries and its key and value, is a **strand**; they are numbered row by row.
Of a sequence of one row and one of two, with 2 heads and 10 blocks:

    rows        a | r s                 subsequence_begins  0 1 2 4 6        past_lens      9 9 40 40
    strands     0 1 | 2 3 4 5           block_indices       7 17 | 3 9 13 19
    attention   0 | 1 | 2 4 | 3 5       (attended_strands: one at each of its places)

Rows that go to attention one by one, and in order, have their strands where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.runtime.openvino.layout import RowLayout

Integers = NDArray[np.int32]

# Of the graph; it has none for places where each strand is at its own.
ROW_INPUTS = ("input_ids", "position_ids", "output_rows")
PLACE_INPUTS = ("own_strands", "attended_strands")
SEQUENCE_INPUTS = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins", "qq_bias_begins")
INPUTS = (*ROW_INPUTS, *PLACE_INPUTS, *SEQUENCE_INPUTS, "qq_bias", "max_context_len")

# From step to step mostly the same, of a target and its draft models.
NUM_KEPT = 8


class HeadLayout(NamedTuple):
    """What the graph reads.

    Attributes:
        values: of its inputs, by their names: `attended_strands` says which strand is at each of attention's places,
            `own_strands` at which place each strand is; the others are a `RowLayout`'s, of a sequence for each head.
        is_in_order: each strand is at its own place, and alone.
    """

    values: dict[str, list[int] | Integers]
    is_in_order: bool

    def with_outputs(self, rows: Sequence[int]) -> HeadLayout:
        """The same, with the logits of other rows wanted."""
        return self._replace(values={**self.values, "output_rows": list(rows)})


def by_head(layout: RowLayout, num_heads: int, num_blocks: int) -> HeadLayout:
    """Lay the rows' key-value heads out for attention.

    Args:
        layout: of the rows.
        num_heads: for keys and values.
        num_blocks: of each head in the cache.
    """
    values: dict[str, list[int] | Integers] = layout._asdict()
    attention_rows, own_rows = values.pop("attention_rows"), values.pop("own_rows")
    num_places = len(attention_rows)
    is_alone = len(layout.past_lens) == num_places
    is_in_order = is_alone and attention_rows == own_rows == list(range(len(layout.input_ids)))
    if num_heads == 1:  # a small draft model's step takes 0.15 ms, of which the rest would be a tenth
        values |= {"attended_strands": attention_rows, "own_strands": own_rows}
        return HeadLayout(values, is_in_order)
    heads = np.arange(num_heads, dtype=np.int32)
    values["past_lens"] = np.repeat(np.array(layout.past_lens, np.int32), num_heads)
    blocks, values["block_indices_begins"] = _spread(tuple(layout.block_indices_begins), num_heads)
    values["block_indices"] = _placed(
        blocks, np.add.outer(np.array(layout.block_indices, np.int32), num_blocks * heads)
    )
    if is_in_order:
        order = np.arange(num_places * num_heads + 1, dtype=np.int32)
        values |= {"subsequence_begins": order, "attended_strands": order[:-1], "own_strands": order[:-1]}
    else:
        places, values["subsequence_begins"] = _spread(tuple(layout.subsequence_begins), num_heads)
        strands = np.add.outer(num_heads * np.array(attention_rows, np.int32), heads)
        values |= {"attended_strands": _placed(places, strands), "own_strands": places[own_rows].ravel()}
    if layout.qq_bias:
        bias, values["qq_bias_begins"] = _spread(tuple(layout.qq_bias_begins), num_heads)
        values["qq_bias"] = _placed(bias, np.repeat(np.array(layout.qq_bias, np.int32)[:, None], num_heads, axis=1))
    else:
        values["qq_bias_begins"] = [0] * (len(layout.past_lens) * num_heads + 1)
    return HeadLayout(values, is_in_order)


@lru_cache(maxsize=NUM_KEPT)
def _spread(begins: tuple[int, ...], num_heads: int) -> tuple[Integers, Integers]:
    """Where the items of sequences are, [items, heads], once each sequence is there for each head; and the begins."""
    bounds = np.array(begins, np.int32)
    firsts, lengths = bounds[:-1], np.diff(bounds)
    new_firsts = num_heads * firsts[:, None] + lengths[:, None] * np.arange(num_heads, dtype=np.int32)
    sequences = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    # an item is as far from where its sequence begins as it was
    places = (new_firsts - firsts[:, None])[sequences] + np.arange(len(sequences), dtype=np.int32)[:, None]
    new_begins = np.append(new_firsts.ravel(), num_heads * bounds[-1:])
    for array in (places, new_begins):
        array.setflags(write=False)  # whoever asks again gets the same
    return places, new_begins


def _placed(places: Integers, values: Integers) -> Integers:
    """The values, each at its place."""
    placed = np.empty(values.size, values.dtype)
    placed[places.ravel()] = values.ravel()
    return placed
