"""A text for which the target computes no numbers ends by itself; its neighbours never learn of it."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.draft.model import ModelDrafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.llm import raise_errors
from outrider.errors import NumericsError
from outrider.runtime.base import RowClass
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, make_engine, plain_text, request, run

SICK = 5  # the prompt's first token
LENGTH = 30  # of a text whose next logits are no numbers


def make_drafter(name, verify="coupled"):
    if name == "model":
        return ModelDrafter(FakeRuntime(min_rows=1), 1000, VOCAB_SIZE, draws=verify == "block")
    return SuffixDrafter() if name == "suffix" else NoDrafter()


def make_sick(value=np.nan):
    target = FakeRuntime()
    sound = target.logits

    def logits(context):
        found = sound(context)
        if context[0] == SICK and len(context) >= LENGTH:
            found[3] = value
        return found

    target.logits = logits
    return target


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["none", "suffix", "model"])
@pytest.mark.parametrize("verify", ["coupled", "block"])
def test_only_the_text_that_has_it_ends(name, verify, value):
    target, sound = make_sick(value), FakeRuntime()
    requests = [
        request(index, [index, 1, 2], temperature=1.0, seed=index, max_tokens=60, depth=0 if name == "none" else 4)
        for index in (4, SICK, 6, 7)
    ]
    engine = make_engine(target, make_drafter(name, verify), verify=verify)
    sequences = run(engine, requests)
    alone = run(make_engine(sound, make_drafter(name, verify), verify=verify), requests)
    sick = sequences.pop(1)
    assert sick.finish_reason == "error"
    assert "logits are not finite (token 3" in sick.error
    wanted = alone.pop(1).output_token_ids
    assert sick.output_token_ids == wanted[: sick.num_output_tokens]
    assert LENGTH - 8 <= len(sick.token_ids) <= LENGTH
    assert [each.output_token_ids for each in sequences] == [each.output_token_ids for each in alone]
    assert {each.finish_reason for each in sequences} == {"length"}
    assert not any(each.error for each in sequences)
    if verify == "coupled":
        assert sequences[0].output_token_ids == plain_text(sound, requests[0])


def test_who_waits_takes_its_place():
    target = make_sick()
    requests = [request(index, [index, 1, 2], max_tokens=40) for index in (SICK, SICK + 1, SICK + 2)]
    engine = make_engine(target, make_drafter("suffix"), max_sequences=1)
    first, *others = run(engine, requests)
    assert first.finish_reason == "error"
    assert [each.output_token_ids for each in others] == [plain_text(target, each) for each in requests[1:]]


@pytest.mark.parametrize("name", ["none", "model"])
def test_one_whose_first_token_would_come_with_its_prompt_ends_with_none(name):
    target = make_sick()
    target.row_class = RowClass(max_root_rows=512)
    requests = [request(0, [SICK] * LENGTH, max_tokens=9), request(1, [SICK + 1] * LENGTH, max_tokens=9)]
    sick, sound = run(make_engine(target, make_drafter(name)), requests)
    assert (sick.finish_reason, sick.output_token_ids, sick.stats.num_steps) == ("error", [], 0)
    assert (sound.finish_reason, sound.output_token_ids) == ("length", plain_text(FakeRuntime(), requests[1]))
    assert sound.stats.num_emitted == 8


def test_its_last_delta_says_so_and_callers_may_raise_it():
    target = make_sick()
    engine = make_engine(target, make_drafter("none"))
    sequence = engine.add(request(0, [SICK, 1], max_tokens=60))
    raise_errors([sequence])
    deltas = []
    while not engine.is_idle:
        deltas += engine.step()
    assert (deltas[-1].finish_reason, deltas[-1].token_ids) == ("error", ())
    assert len(deltas) == LENGTH - 2 + 1
    with pytest.raises(NumericsError, match="not finite"):
        raise_errors([sequence])
