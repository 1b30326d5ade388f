"""What OpenVINO's attention is given by the runtime, beyond what a layout alone says."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino.runtime import PROMPT_SPACING, OpenVinoRuntime
from tests.runtime.checkpoints import make_checkpoint

TOKEN_IDS = np.random.default_rng(5).integers(0, 211, 90).tolist()
BLOCKS = [5, 0, 3]


def load(folder, *, num_threads: int = 1) -> OpenVinoRuntime:
    runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=num_threads, num_forms=0))
    runtime.resize(8)
    return runtime


def rows(first: int, end: int, *, is_prompt: bool = False) -> SequenceRows:
    output_rows = [] if is_prompt else range(end - first)
    return SequenceRows(TOKEN_IDS[first:end], first, BLOCKS, output_rows, is_prompt=is_prompt)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_it_has_as_many_sequences_as_threads_or_it_would_share_out_one_rows_keys(num_kv_heads, tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "mistral", num_key_value_heads=num_kv_heads)
    runtime = load(folder, num_threads=2)
    runtime._ladder.first = 1
    counts: list[int] = []
    run = runtime._forms.run

    def count(heads, **kind):
        counts.append(len(heads.values["past_lens"]))
        return run(heads, **kind)

    monkeypatch.setattr(runtime._forms, "run", count)
    runtime.forward([rows(0, 1)])
    runtime.forward([rows(1, 2, is_prompt=True)])
    assert min(counts) >= (runtime.options.num_threads or 1)


def test_a_prompt_that_is_filled_up_leaves_in_the_cache_what_it_would_have_left(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    found = []
    for spacing in (1, PROMPT_SPACING):
        runtime = load(folder)
        runtime._prompt_spacing = spacing
        assert runtime.forward([rows(0, 70, is_prompt=True)]).num_computed_rows == -(-70 // spacing) * spacing
        found.append(runtime.forward([rows(70, 75)]).logits.copy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(("first", "end"), [(0, 2), (64, 66), (0, 40), (0, 65), (0, 80), (32, 70)])
def test_a_prompts_last_row_has_the_bits_that_it_has_alone_and_changes_none(first, end, num_threads, tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama", num_key_value_heads=2), num_threads=num_threads)
    before = [rows(0, first, is_prompt=True)] * bool(first)
    root = end - 1
    runtime.forward([*before, rows(first, root, is_prompt=True)])
    wanted = [runtime.forward([rows(row, row + 1)]).logits.copy() for row in (root, end)]
    chunk = rows(first, end, is_prompt=True)._replace(output_rows=[root - first])
    found = [runtime.forward(batch).logits.copy() for batch in ([*before, chunk], [rows(end, end + 1)])]
    np.testing.assert_array_equal(found, wanted)


def test_blocks_may_lie_in_any_order_and_the_cache_may_grow_in_between(tmp_path):
    folder = make_checkpoint(tmp_path, "llama", num_key_value_heads=2)
    runtime = load(folder)
    runtime.forward([rows(0, 70, is_prompt=True)])
    wanted = runtime.forward([rows(70, 75)]).logits.copy()
    runtime.resize(30)
    np.testing.assert_array_equal(runtime.forward([rows(70, 75)]).logits, wanted)
    blocks = [29, 7, 28]
    runtime.forward([rows(0, 70, is_prompt=True)._replace(blocks=blocks)])
    np.testing.assert_array_equal(runtime.forward([rows(70, 75)._replace(blocks=blocks)]).logits, wanted)
