"""Forms for single numbers of rows: the same bits, made only when they have come to be worth it, or given up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino.forms import MAX_FORM_BYTES, MAX_FORMS, MIN_FORMS, PRICE_SHARE, num_affordable
from outrider.runtime.openvino.layout import NUM_FORM_COPIES
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from tests.runtime.checkpoints import FAMILIES, OPENVINO_DTYPES, make_checkpoint

NUM_PAST = 40
TOKEN_IDS = np.random.default_rng(3).integers(0, 211, 80).tolist()
# As if a single change took longer than compiling.
DEAR, CHEAP = 1e6, 1e-9


def load(folder: Path, **options) -> OpenVinoRuntime:
    runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1, **options))
    runtime.resize(16)
    for table in range(4):
        runtime.forward([SequenceRows(TOKEN_IDS[:NUM_PAST], 0, blocks_of(table), ())])
    return runtime


def blocks_of(table: int) -> list[int]:
    return [4 * table, 4 * table + 1, 4 * table + 2]


def batch_of(*lengths: int, **changes) -> list[SequenceRows]:
    """So many rows of each sequence after its past."""
    return [
        SequenceRows(TOKEN_IDS[NUM_PAST : NUM_PAST + length], NUM_PAST, blocks_of(table), range(length), **changes)
        for table, length in enumerate(lengths)
    ]


def decode(runtime: OpenVinoRuntime, *batches: list[SequenceRows]) -> list[np.ndarray]:
    """The batches' logits, with whatever was being made finished before each."""
    found: list[np.ndarray] = []
    for batch in batches:
        if runtime._forms._making:
            runtime._forms._making[1].result()
        found.append(runtime.forward(batch).logits.copy())
    return found


def use_forms(runtime: OpenVinoRuntime, *batches: list[SequenceRows]) -> None:
    """Decode these, which differ in their rows, until each has a form of its own."""
    runtime.set_change_price(DEAR, 1.0)
    for _ in range(8 * len(batches)):
        decode(runtime, *batches)
    runtime.set_change_price(0.0, 1.0)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.mark.parametrize("dtype", OPENVINO_DTYPES)
def test_a_form_of_its_own_gives_the_same_bits(family, dtype, tmp_path):
    folder = make_checkpoint(tmp_path, family, dtype=dtype)
    batches = [batch_of(1), batch_of(3), batch_of(5), batch_of(8), batch_of(3, 1, 5), batch_of(4, 4, 4, 5)]
    plain = decode(load(folder, num_forms=0), *batches)
    runtime = load(folder)
    use_forms(runtime, batch_of(1), batch_of(5), batch_of(9), batch_of(8, 5), batch_of(8, 9))
    assert {runtime.computed_rows([count]) for count in (1, 5, 9, 13, 17)} <= runtime._forms.free
    for found, wanted in zip(decode(runtime, *batches), plain, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_all_forms_share_a_cache_that_may_grow(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    (wanted,) = decode(runtime, batch_of(3))
    use_forms(runtime, batch_of(1), batch_of(5))
    # computed by the form for any number, into another place
    runtime.resize(40)
    blocks = [30, 31, 32]
    runtime.forward([SequenceRows(TOKEN_IDS[:NUM_PAST], 0, blocks, ())])
    (found,) = decode(runtime, [batch_of(3)[0]._replace(blocks=blocks)])
    assert runtime.is_ready_for(5)
    np.testing.assert_array_equal(found, wanted)


def test_a_prompt_needs_no_form_and_disturbs_none(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    runtime.set_change_price(DEAR, 1.0)
    for length in (7, 8, 9):
        runtime.forward([SequenceRows(TOKEN_IDS[:length], 0, blocks_of(0), ())])
    assert runtime._forms._making is None


def test_forms_are_made_together_when_they_would_have_saved_a_share_of_their_price(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    few, many = batch_of(1), batch_of(5)
    price = PRICE_SHARE * runtime._forms._compile_seconds
    runtime.set_change_price(2 * price / 7.5, 0.0)  # two forms, after eight changes
    decode(runtime, few, many, few, many, few, many, few)
    assert runtime._forms._making is None
    decode(runtime, many)
    shapes, _ = runtime._forms._making
    assert {shape.num_rows for shape in shapes} == {1, 5}
    decode(runtime, few)
    assert len(runtime._forms._fixed) == 2


def test_a_number_that_stays_saves_less_and_one_that_seldom_comes_is_left_out(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    few, many = batch_of(1), batch_of(5)
    price = PRICE_SHARE * runtime._forms._compile_seconds
    runtime.set_change_price(price / 20, 0.0)
    decode(runtime, many, *[few] * 150)
    assert runtime._forms._making is None
    decode(runtime, *[few] * 20)
    assert {shape.num_rows for shape in runtime._forms._fixed} == {1}


def test_before_changes_have_a_price_none_is_made(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    for _ in range(20):
        decode(runtime, batch_of(1), batch_of(5))
    assert not runtime._forms._making
    assert not runtime._forms.free


def test_one_that_differs_in_a_bit_is_given_up(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "llama")
    (wanted,) = decode(load(folder), batch_of(5))
    runtime = load(folder)
    make = runtime._forms._make

    def make_wrongly(shape):
        form = make(shape)
        run = form.run
        form.run = lambda layout: np.nextafter(run(layout), np.float32(np.inf))
        return form

    monkeypatch.setattr(runtime._forms, "_make", make_wrongly)
    use_forms(runtime, batch_of(1), batch_of(5))
    assert not runtime._forms.free
    assert {shape.num_rows for shape in runtime._forms._refused} == {1, 5}
    np.testing.assert_array_equal(decode(runtime, batch_of(5))[0], wanted)
    assert not runtime._forms._making


def test_a_draft_model_is_not_compared(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"), bitwise=False)
    runtime.set_change_price(DEAR, 1.0)
    last_only = [batch_of(2)[0]._replace(output_rows=[1])]
    (wanted,) = decode(runtime, last_only)
    (found,) = decode(runtime, last_only)
    assert runtime.is_ready_for(runtime.computed_rows([2]))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_more_than_asked_for_and_none_of_a_large_model(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"), num_forms=1)
    use_forms(runtime, batch_of(1), batch_of(5), batch_of(9))
    assert len(runtime._forms.free) == 1
    assert num_affordable(1000) == MAX_FORMS
    most = MAX_FORM_BYTES // (NUM_FORM_COPIES * MIN_FORMS)
    assert (num_affordable(most), num_affordable(most + MIN_FORMS)) == (MIN_FORMS, 0)


def test_trees_go_on_in_the_form_for_any_number(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    tree = batch_of(3, parents=(-1, 0, 0))
    (wanted,) = decode(load(folder, num_forms=0), tree)
    runtime = load(folder)
    use_forms(runtime, batch_of(1), batch_of(3), tree)
    np.testing.assert_array_equal(decode(runtime, tree)[0], wanted)
