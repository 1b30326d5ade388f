"""Every token of a text is chosen again: what is right passes, what rounding explains is a near-tie, the rest not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from outrider import sampling
from outrider.audit.distribution import Rejected, Witnesses, feed_text
from outrider.audit.forward import TeacherForcing
from outrider.audit.replay import LEAST_BOUND, MAX_DEVIATIONS, Emitted, Rounding, margin, replay
from outrider.audit.sequential import SequentialTest
from outrider.cache.table import BlockPool
from outrider.noise import Address
from outrider.request import SamplingParams, TokenLogProbs
from tests.engine.fakes import VOCAB_SIZE, FakeRuntime, TreeDrafter, make_engine, request, run

PARAMS = {
    "greedy": {},
    "sampled": {"temperature": 1.0},
    "truncated": {"temperature": 0.8, "top_k": 6, "top_p": 0.9},
    "penalised": {
        "temperature": 0.9, "frequency_penalty": 0.7, "repetition_penalty": 1.3, "logit_bias": {3: 2.0, 4: -100},
    },
    "banned": {"temperature": 1.0, "min_tokens": 9, "stop_token_ids": (5,)},
}  # fmt: skip
EXACT = Rounding()


class Written:
    """A text of the engine, on a model that poisons what must not be read, and its teacher-forced logits."""

    def __init__(self, *, prompt=range(40), max_tokens=30, **params):
        self.target = FakeRuntime()
        drafter = TreeDrafter(3, lambda text: int(self.target.logits(text).argmax()))
        self.engine = make_engine(self.target, drafter, prefill_chunk=16)
        prompt = [token % VOCAB_SIZE for token in prompt]
        (self.sequence,) = run(self.engine, [request(0, prompt, max_tokens=max_tokens, log_probs=2, **params)])
        self.witness = TeacherForcing(runtime=self.target, pool=self.engine.pool, prefill_chunk=16)

    def emitted(self, **changes) -> Emitted:
        sequence = self.sequence
        text = Emitted(
            sequence.request, tuple(sequence.output_token_ids), tuple(sequence.log_probs), sequence.finish_reason
        )
        return text._replace(**changes)

    def replay(self, text=None, rounding=EXACT):
        text = text or self.emitted()
        found = replay(text, self.witness.logits(text.request.prompt_token_ids, text.token_ids), rounding)
        self.engine.check()
        return found


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("prompt", [range(1), range(17), range(40)], ids=len)
def test_a_sound_text_passes(name, prompt):
    assert not Written(prompt=prompt, **PARAMS[name]).replay()


@pytest.mark.parametrize("tile", [0, 1, 2, 8, 100])
def test_teacher_forcing_is_the_model_however_it_is_cut(tile):
    text = Written(temperature=1.0)
    request_, output = text.sequence.request, text.sequence.output_token_ids
    found = np.concatenate([*text.witness.logits(request_.prompt_token_ids, output, tile=tile)])
    whole = [*request_.prompt_token_ids, *output]
    wanted = [text.target.logits(whole[: 40 + at]) for at in range(len(output))]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("at", [0, 13, 29])
def test_a_token_that_is_not_the_targets_is_found_where_it_is(name, at):
    text = Written(ignore_eos=True, **PARAMS[name])
    token_ids = list(text.sequence.output_token_ids)
    if at >= len(token_ids):
        pytest.skip("the text ended before")
    token_ids[at] = next(token for token in range(6, VOCAB_SIZE) if token != token_ids[at])
    found = text.replay(text.emitted(token_ids=tuple(token_ids), log_probs=()))
    assert found[0].kind == "wrong acceptance"
    assert (found[0].at, found[0].emitted, found[0].chosen) == (at, token_ids[at], text.sequence.output_token_ids[at])
    assert found[0].margin > LEAST_BOUND


def test_another_seed_is_found():
    text = Written(temperature=1.0)
    other = request(0, text.sequence.request.prompt_token_ids, seed=8, max_tokens=30, temperature=1.0)
    assert any(each.is_fault for each in text.replay(text.emitted(request=other)))


def logits_with_margin(size, params, address):
    """Two rows: one that chooses token 1 over token 2 by so much, and token 2 itself."""
    logits = np.zeros(4, dtype=np.float32)
    logits[0] = logits[3] = -30
    while True:
        gap = margin(logits, params, address, chosen=1, emitted=2)
        if abs(gap - size) < 1e-6:
            return logits
        logits[1] += np.float32((size - gap) * (params.temperature or 1.0))


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_what_rounding_explains_is_a_near_tie_and_its_margin_is_shown(temperature):
    params = SamplingParams(temperature=temperature, max_tokens=1)
    logits = logits_with_margin(0.05, params, Address(7, 0, 1))
    assert sampling.choose(logits, params, Address(7, 0, 1)) == 1
    text = Emitted(request(0, [0], max_tokens=1, temperature=temperature), (2,))
    kinds = {}
    for moved in (0.001, 0.2):
        rounding = Rounding()
        rounding.see([logits[None]], [logits[None] + np.array([[0, moved, 0, 0]], np.float32)])
        (difference,) = replay(text, [logits[None]], rounding)
        assert difference.margin == pytest.approx(0.05, abs=1e-3)
        assert difference.bound == pytest.approx(2 * moved / (temperature or 1), rel=1e-3)
        kinds[moved] = difference.kind
    assert kinds == {0.001: "wrong acceptance", 0.2: "near-tie"}


def test_where_bits_are_promised_nothing_is_a_near_tie():
    logits = np.array([-30, 1e-5, 0, -30], dtype=np.float32)
    text = Emitted(request(0, [0], max_tokens=1), (2,))
    kinds = [replay(text, [logits[None]], EXACT, is_bitwise=is_bitwise)[0].kind for is_bitwise in (False, True)]
    assert kinds == ["near-tie", "wrong acceptance"]


def test_rounding_explains_no_more_than_its_tolerance():
    """It is seen in the engine that is audited, which may move its logits by anything."""
    logits = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    rounding = Rounding(1e-3)
    rounding.see([logits], [logits + np.eye(4, 100, dtype=np.float32) * 1e-3])
    assert not rounding.is_excessive
    assert rounding.bound(SamplingParams()) == pytest.approx(2e-3, rel=0.01)
    rounding.see([logits], [logits + np.eye(4, 100, dtype=np.float32)])
    assert rounding.is_excessive
    assert rounding.largest == pytest.approx(1)
    assert rounding.bound(SamplingParams()) == pytest.approx(2 * MAX_DEVIATIONS * 1e-3, rel=0.3)


def test_what_is_added_to_a_whole_row_is_no_rounding():
    rounding = Rounding()
    rounding.see([np.zeros((2, 4), np.float32)], [np.ones((2, 4), np.float32)])
    assert rounding.largest == 0


def test_the_border_of_truncation_is_a_tie_of_its_own():
    """Token 2 is just truncated: it may be emitted if rounding lets it in, however likely noise makes it."""
    params = SamplingParams(temperature=1.0, top_k=2)
    logits = np.array([1.0, 0.5, 0.499, -5.0], dtype=np.float32)
    address = next(
        address
        for address in (Address(seed, 0, 1) for seed in range(1000))
        if sampling.choose(logits, SamplingParams(temperature=1.0), address) == 2
    )
    chosen = sampling.choose(logits, params, address)
    assert chosen != 2
    assert margin(logits, params, address, chosen=chosen, emitted=2) == pytest.approx(0.001, abs=1e-4)
    assert margin(logits, params, address, chosen=chosen, emitted=3) > 1


def test_log_probabilities_that_are_not_the_targets_are_found():
    """Some engine reports 0 for every token as soon as it speculates."""
    text = Written(temperature=1.0)
    reported = tuple(TokenLogProbs(0.0, 0.0) for _ in text.sequence.log_probs)
    kinds = {each.kind for each in text.replay(text.emitted(log_probs=reported))}
    assert kinds == {"wrong log-probability"}


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"token_ids": (1, 5, 2), "finish_reason": "length"}, 1),
        ({"token_ids": (1, 2, 3, 4), "finish_reason": "length"}, 3),
        ({"token_ids": (1, 2), "finish_reason": "length"}, 1),
        ({"token_ids": (1, 2), "finish_reason": "stop"}, 1),
        ({"token_ids": (5,), "finish_reason": "stop"}, None),
        ({"token_ids": (1, 2, 3), "finish_reason": "length"}, None),
        ({"token_ids": (1, 2, 3), "finish_reason": None}, None),
    ],
)
def test_a_text_ends_where_it_must(changes, at):
    """Stop tokens inside an accepted block, among others, are easily overlooked."""
    from outrider.audit.replay import wrong_end

    text = Emitted(request(0, [0], max_tokens=3, stop_token_ids=(5,)), ())._replace(**changes)
    found = wrong_end(text)
    assert [each.at for each in found] == ([] if at is None else [at])
    assert all(each.is_fault and each.margin == math.inf for each in found)


@pytest.mark.parametrize("name", ["sampled", "truncated", "penalised", "banned"])
def test_sound_texts_are_fed_to_the_sequential_test_and_pass(name):
    text, test = Written(max_tokens=60, **PARAMS[name]), SequentialTest()
    draft = TeacherForcing(runtime=text.target, pool=text.engine.pool, prefill_chunk=16)
    num_passed = feed_text(test, text.emitted(), Witnesses(text.witness, draft), EXACT)
    assert num_passed == 0
    assert test.num_tokens == len(text.sequence.output_token_ids)
    assert not test.is_rejected
    text.engine.check()


@pytest.mark.parametrize(("limits", "num_drafted"), [({"max_context": 50}, 11), ({"vocab_size": 22}, None), ({}, 60)])
def test_a_draft_model_is_asked_as_far_as_it_can_compute_and_the_target_to_the_end(limits, num_drafted):
    """Its context may be shorter, and its vocabulary lack what the target writes."""
    text, test, fed = Written(max_tokens=60, temperature=1.0), SequentialTest(), []
    draft = FakeRuntime()
    draft.config = dataclasses.replace(draft.config, **limits)
    pool = BlockPool(1000, draft.resize)
    witness = TeacherForcing(runtime=draft, pool=pool, prefill_chunk=16, may_end=True)
    prompt = text.sequence.request.prompt_token_ids
    if num_drafted is None:  # up to the first token that it lacks, in a prompt that has none
        text.sequence.request = dataclasses.replace(text.sequence.request, prompt_token_ids=prompt[:20])
        num_drafted = text.sequence.output_token_ids.index(22) + 1
    feed = test.feed
    test.feed = lambda *parts: (fed.append((len(parts[1]), parts[2] is not None)), feed(*parts))
    feed_text(test, text.emitted(), Witnesses(text.witness, witness), EXACT)
    assert test.num_tokens == len(text.sequence.output_token_ids)
    assert sum(count for count, is_drafted in fed if is_drafted) == num_drafted
    assert all(max(rows.token_ids) < draft.config.vocab_size for batch in draft.batches for rows in batch)
    assert pool.num_free == pool.num_blocks


def test_a_draft_model_without_room_says_nothing():
    text, test = Written(max_tokens=60, temperature=1.0), SequentialTest()
    draft = FakeRuntime()
    witness = TeacherForcing(runtime=draft, pool=BlockPool(2, draft.resize), prefill_chunk=16, may_end=True)
    feed_text(test, text.emitted(), Witnesses(text.witness, witness), EXACT)
    assert test.num_tokens == 60


def test_parameters_that_were_not_followed_are_refuted():
    """Written without truncation and without a ban, audited with them."""
    text, test = Written(max_tokens=60, temperature=1.0), SequentialTest()
    asked = request(0, text.sequence.request.prompt_token_ids, max_tokens=60, temperature=1.0, top_k=2)
    feed_text(test, text.emitted(request=asked), Witnesses(text.witness), EXACT)
    assert test.is_rejected


def test_what_was_rejected_counts_from_the_next_token_on(monkeypatch):
    text, test, told = Written(max_tokens=60, temperature=1.0), SequentialTest(), []
    monkeypatch.setattr(test, "feed", lambda *parts: told.append(parts[4]))
    rejected = [Rejected(3, (5, 5, 6)), Rejected(40, (5,)), Rejected(60, (9,))]
    feed_text(test, text.emitted(), Witnesses(text.witness), EXACT, rejected)
    counts = np.concatenate(told)
    assert counts.shape == (60, VOCAB_SIZE)
    assert not counts[:3].any()
    assert (counts[3:40, [5, 6]] == [2, 1]).all()
    assert (counts[40:, [5, 6]] == [3, 1]).all()
    assert not np.delete(counts, [5, 6], axis=1).any()
    told.clear()
    feed_text(test, text.emitted(), Witnesses(text.witness), EXACT)
    assert told == [None, None]


def test_a_token_at_the_border_of_truncation_is_passed_over():
    text, test, rounding = Written(max_tokens=60, temperature=1.0), SequentialTest(), Rounding()
    rounding.largest = 100.0
    asked = request(0, text.sequence.request.prompt_token_ids, max_tokens=60, temperature=1.0, top_k=2)
    num_passed = feed_text(test, text.emitted(request=asked), Witnesses(text.witness), rounding)
    assert num_passed > 0
    assert num_passed + test.num_tokens == 60
