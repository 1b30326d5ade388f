"""Forms for single numbers of rows: the same bits, made only when they have come to be worth it, or given up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outrider.errors import ParameterError
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino import processors
from outrider.runtime.openvino.forms import (
    MAX_FORM_BYTES,
    MAX_FORMS,
    MAX_ONLY_BYTES,
    MIN_FORMS,
    PRICE_SHARE,
    num_affordable,
)
from outrider.runtime.openvino.heads import INPUTS, PLACE_INPUTS
from outrider.runtime.openvino.layout import NUM_FORM_COPIES
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from tests.runtime.checkpoints import FAMILIES, OPENVINO_DTYPES, make_checkpoint

NUM_PAST = 40
TOKEN_IDS = np.random.default_rng(3).integers(0, 211, 80).tolist()
DEAR = 1e6  # as if a single change took longer than compiling


def load(folder: Path, **options) -> OpenVinoRuntime:
    return filled(OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1, **options)))


def filled(runtime: OpenVinoRuntime) -> OpenVinoRuntime:
    """With prompts that batches go on from."""
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
        finish(runtime)
        found.append(runtime.forward(batch).logits.copy())
    return found


def finish(runtime: OpenVinoRuntime) -> None:
    """Wait for what is being made."""
    while runtime._forms._making:
        runtime._forms._making.next.exception()
        runtime._forms._take_in()


def rows_of(runtime: OpenVinoRuntime, *lengths: int) -> set[int]:
    return {runtime.computed_rows([length]) for length in lengths}


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


def test_rows_in_order_have_a_form_that_gathers_nothing_around_attention(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    use_forms(runtime, batch_of(5), batch_of(9))
    assert {shape.is_in_order for shape in runtime._forms._fixed} == {True}
    for form in runtime._forms._fixed.values():
        assert not set(PLACE_INPUTS) & set(form._inputs)
        assert set(INPUTS) - set(PLACE_INPUTS) == set(form._inputs)


def test_trees_have_a_form_of_their_own_and_it_serves_chains_too(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    tree, chain, other = batch_of(5, parents=(-1, 0, 0, 1, 1)), batch_of(5), batch_of(9, parents=(-1, *range(7), 0))
    wanted = decode(load(folder, bitwise=False, num_forms=0), tree, chain)
    runtime = load(folder, bitwise=False)
    use_forms(runtime, tree, other)
    assert {shape.is_in_order for shape in runtime._forms._fixed} == {False}
    assert not runtime._forms._refused
    for found, expected in zip(decode(runtime, tree, chain), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert runtime.is_ready_for(runtime.computed_rows([5]))


def test_what_goes_in_is_kept_in_memory_as_long_as_the_longest(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"), num_forms=0)
    for length in range(1, 40):
        runtime.forward(batch_of(length))
    row_ids = runtime._forms._any._inputs["input_ids"]
    assert len(row_ids._array) <= 2 * runtime.computed_rows([39])


def test_all_forms_share_a_cache_that_may_grow(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    (wanted,) = decode(runtime, batch_of(3))
    use_forms(runtime, batch_of(1), batch_of(5))
    # computed by the form for any number, into another place
    runtime.resize(40)
    blocks = [30, 31, 32]
    runtime.forward([SequenceRows(TOKEN_IDS[:NUM_PAST], 0, blocks, ())])
    (found,) = decode(runtime, [batch_of(3)[0]._replace(blocks=blocks)])
    assert runtime.is_ready_for(runtime.computed_rows([3]))
    np.testing.assert_array_equal(found, wanted)


def test_a_prompt_needs_no_form(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    runtime.set_change_price(DEAR, 1.0)
    for length in (7, 8, 9):
        runtime.forward([SequenceRows(TOKEN_IDS[:length], 0, blocks_of(0), ())])
    assert runtime._forms._making is None


def test_forms_are_made_together_when_they_would_have_saved_a_share_of_their_price(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    few, many = batch_of(5), batch_of(9)
    price = PRICE_SHARE * runtime._forms._compile_seconds
    runtime.set_change_price(2 * price / 7.5, 0.0)  # two forms, after eight changes
    decode(runtime, few, many, few, many, few, many, few)
    assert runtime._forms._making is None
    runtime.forward(many)
    assert {shape.num_rows for shape in runtime._forms._making.shapes} == rows_of(runtime, 5, 9)
    while runtime._forms._making:
        assert not runtime._forms._fixed
        runtime._forms._making.next.result()
        runtime._forms._take_in()
    assert len(runtime._forms._fixed) == 2


def test_a_number_that_stays_saves_less_and_one_that_seldom_comes_is_left_out(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    few, many = batch_of(5), batch_of(9)
    price = PRICE_SHARE * runtime._forms._compile_seconds
    runtime.set_change_price(price / 40, 0.0)
    decode(runtime, many, *[few] * 300)
    assert runtime._forms._making is None
    decode(runtime, *[few] * 40)
    assert {shape.num_rows for shape in runtime._forms._fixed} == rows_of(runtime, 5)


def test_before_changes_have_a_price_none_is_made(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"))
    for _ in range(20):
        decode(runtime, batch_of(5), batch_of(9))
    assert not runtime._forms._making
    assert not runtime._forms.free


def moved(logits: np.ndarray, share: float) -> np.ndarray:
    """One logit of each row is moved by this share of the spread of all."""
    others = logits.copy()
    others[:, 7] += share * logits.std(axis=-1)
    return others


def spoil(runtime: OpenVinoRuntime, monkeypatch, change) -> None:
    """Let forms for one number of rows give other logits."""
    make = runtime._forms._make

    def make_wrongly(shape):
        form = make(shape)
        run = form.run
        form.run = lambda layout: change(run(layout))
        return form

    monkeypatch.setattr(runtime._forms, "_make", make_wrongly)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, lambda logits: np.nextafter(logits, np.float32(np.inf))),
        ({"bitwise": False}, lambda logits: np.roll(logits, 1, axis=-1)),
        ({"bitwise": False}, lambda logits: moved(logits, 0.6)),
    ],
    ids=["a bit", "another model", "one logit, and far"],
)
def test_one_that_differs_is_given_up(options, change, tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "llama")
    (wanted,) = decode(load(folder, **options), batch_of(5))
    runtime = load(folder, **options)
    spoil(runtime, monkeypatch, change)
    use_forms(runtime, batch_of(5), batch_of(9))
    assert not runtime._forms.free
    assert {shape.num_rows for shape in runtime._forms._refused} == rows_of(runtime, 5, 9)
    np.testing.assert_array_equal(decode(runtime, batch_of(5))[0], wanted)
    assert not runtime._forms._making


def test_where_bits_do_not_count_rounding_is_no_difference_though_it_may_move_some_logit_far(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "llama")
    runtime = load(folder, bitwise=False)
    spoil(runtime, monkeypatch, lambda logits: moved(logits, 0.1))
    use_forms(runtime, batch_of(5), batch_of(9))
    assert runtime._forms.free == rows_of(runtime, 5, 9)


def fail(shape):
    raise MemoryError


def test_one_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "llama")
    (wanted,) = decode(load(folder), batch_of(5))
    runtime = load(folder)
    monkeypatch.setattr(runtime._forms, "_make", fail)
    use_forms(runtime, batch_of(5), batch_of(9))
    assert rows_of(runtime, 5, 9) <= {shape.num_rows for shape in runtime._forms._refused}
    np.testing.assert_array_equal(decode(runtime, batch_of(5))[0], wanted)


def test_a_runtime_may_be_dropped_or_grow_while_forms_are_made(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    for _ in range(3):
        runtime = load(folder)
        runtime.set_change_price(DEAR, 1.0)
        runtime.forward(batch_of(5))
        assert runtime._forms._making is not None
        runtime.resize(40)
    (wanted,) = decode(load(folder), batch_of(5))
    np.testing.assert_array_equal(decode(runtime, batch_of(5))[0], wanted)


def test_a_draft_model_has_forms_too(tmp_path):
    runtime = load(make_checkpoint(tmp_path, "llama"), bitwise=False)
    runtime.set_change_price(DEAR, 1.0)
    last_only = [batch_of(5)[0]._replace(output_rows=[4])]
    wanted, *_, found = decode(runtime, *[last_only] * 6)
    assert runtime.is_ready_for(runtime.computed_rows([5]))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_more_than_asked_for(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    runtime = load(folder, num_forms=1)
    use_forms(runtime, batch_of(5), batch_of(9), batch_of(13))
    assert len(runtime._forms._fixed) == 1
    with pytest.raises(ParameterError, match="num_forms is -1, but must be 0 or more"):
        load(folder, num_forms=-1)


def test_forms_are_as_many_as_memory_allows(tmp_path, monkeypatch):
    some, only = MAX_FORM_BYTES // NUM_FORM_COPIES // MIN_FORMS, MAX_ONLY_BYTES // NUM_FORM_COPIES
    sizes = (1000, some, some + 1, only, only + 1)
    assert [num_affordable(size, 2**40) for size in sizes] == [MAX_FORMS, MIN_FORMS, 1, 1, 0]
    assert [num_affordable(10**9, memory) for memory in (15 * 10**9, 17 * 10**9)] == [0, 1]
    limit = tmp_path / "limit"
    monkeypatch.setattr(processors, "CONTAINER_LIMITS", (tmp_path / "none", limit))
    limit.write_text("max\n")
    assert processors.memory_bytes() > 10**9
    limit.write_text("1000000\n")
    assert processors.memory_bytes() == 10**6


def test_of_a_large_model_there_is_one_which_is_made_before_the_first_step(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "llama")
    few, many = batch_of(1), batch_of(9)
    wanted = decode(load(folder, num_forms=0), few, many)
    monkeypatch.setattr(processors, "num_affordable", lambda *_: 1)
    runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1))
    runtime.set_change_price(DEAR, 1.0)
    runtime.prepare()
    filled(runtime)
    rows = runtime.computed_rows([1])
    assert runtime._forms.free == {rows}
    for _ in range(3):
        np.testing.assert_array_equal(np.concatenate(decode(runtime, few, many)), np.concatenate(wanted))
    assert {shape.num_rows for shape in runtime._forms._fixed} == {rows}
    assert not runtime._forms._making
    other = load(folder, num_forms=1)  # which somebody asked for
    other.prepare()
    assert not other._forms._fixed


def test_one_that_cannot_be_prepared_is_done_without(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, "llama")
    (wanted,) = decode(load(folder, num_forms=0), batch_of(1))
    monkeypatch.setattr(processors, "num_affordable", lambda *_: 1)
    runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1))
    monkeypatch.setattr(runtime._forms, "_make", fail)
    runtime.prepare()
    assert not runtime._forms.free
    np.testing.assert_array_equal(decode(filled(runtime), batch_of(1))[0], wanted)


def test_what_is_free_has_a_form_after_trees_too(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    chain, tree = batch_of(3), batch_of(3, parents=(-1, 0, 0))
    wanted = decode(load(folder, num_forms=0), chain, tree)
    runtime = load(folder)
    use_forms(runtime, chain, batch_of(9))
    assert runtime.is_ready_for(runtime.computed_rows([3]))
    for _ in range(2):  # from the first tree on attention may have more rows
        found = decode(runtime, chain, tree)
        np.testing.assert_array_equal(np.concatenate(found), np.concatenate(wanted))
        shapes = {shape.num_rows for shape in runtime._forms._fixed}
        assert runtime._forms.free <= shapes


def test_a_draft_models_prompt_is_filled_up_and_a_targets_is_not(tmp_path):
    folder = make_checkpoint(tmp_path, "llama")
    prompt = [SequenceRows(list(range(5, 25)), 0, [0], ())]
    runtime = load(folder, bitwise=False)
    assert [runtime.forward(prompt).num_computed_rows, load(folder).forward(prompt).num_computed_rows] == [32, 20]
    rest = [SequenceRows([7], 20, [0], [0])]
    plain = load(folder)
    plain.forward(prompt)
    np.testing.assert_allclose(decode(runtime, rest)[0], decode(plain, rest)[0], rtol=1e-4, atol=1e-5)
