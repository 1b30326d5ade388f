"""A trial measures what it says: as many texts at once as were asked for, from its first step to its last."""

from __future__ import annotations

import pytest

from outrider import EngineConfig, SamplingParams
from outrider.check.budget import Budget
from outrider.check.measured import AUTO, CHOICE, DEFAULT, PLAIN, RIVAL, WORST, Trial, Use, Wanted
from outrider.check.prediction import Choice
from outrider.check.stand import Stand
from outrider.check.texts import Texts, Watch
from outrider.predict.agreement import KnownText
from outrider.predict.interval import Estimate
from tests.check.test_verdict import predicted
from tests.cli.tiny import make_tiny

CHOICE_OF_SUFFIX = Choice("suffix", 2, 3, Estimate(1.2, 1.1, 1.3), ())
PROMPT = "def read(path):\n    return read(path)\n"


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    target = make_tiny(tmp_path_factory.mktemp("pair") / "target", scale=2.0)
    return Stand.load(target, None, EngineConfig(self_test=False, max_sequences=8))


def test_nothing_is_compiled_between_timing_steps_and_the_trial(stand):
    assert stand.llm.target.options.num_forms == 0


def known(stand, length):
    params = SamplingParams(temperature=1.0, seed=length, max_tokens=length, ignore_eos=True)
    (plain,) = stand.llm.generate(PROMPT, params, depth=0)
    return KnownText(f"of {length}", "c", params, plain.prompt_token_ids, plain.token_ids)


def forecast(choice):
    return predicted(1.2, drafter=choice.drafter, depth=choice.depth, temperature=1.0, plain_seconds=0.1)


def num_in_flight(engine):
    return len(engine.scheduler.running) + len(engine.scheduler.waiting)


def test_texts_that_end_early_do_not_leave_the_others_alone(stand, monkeypatch):
    engine, counts = stand.llm.engine, []
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda: counts.append(num_in_flight(engine)) or step())
    texts = [known(stand, length) for length in (12, 30, 60)]
    counts.clear()
    trial = Trial(stand, Wanted(CHOICE_OF_SUFFIX), [], Watch())
    trial.run(Texts(texts), [1.0], [3], Budget(600))
    (cell,) = trial.cells
    assert len(counts) > 60
    assert set(counts) == {3}
    assert {setting: set(by_prompt) for setting, by_prompt in cell.seconds.items()} == {
        setting: {"of 12", "of 30", "of 60"} for setting in (PLAIN, CHOICE, DEFAULT, WORST)
    }
    assert not cell.different
    assert engine.is_idle


def test_what_is_measured_is_what_is_recommended_and_what_rivals_it(stand, monkeypatch):
    """With the drafters of each and none else, and what decides nothing is left out where time is short."""
    both = Choice("suffix + model", 2, 1, Estimate(1.2, 1.1, 1.3), ())
    (suffix,) = stand.candidates["suffix"]
    monkeypatch.setattr(stand, "candidates", {"suffix": (suffix,), "suffix + model": (suffix, suffix)})
    monkeypatch.setattr(Stand, "use", lambda stand, members=None: None)
    texts = Texts([known(stand, 12)])

    def uses(wanted, seconds=600):
        trial = Trial(stand, wanted, [forecast(wanted.choice)], Watch())
        trial.run(texts, [1.0], [1], Budget(seconds))
        return trial.cells[0].uses

    default = Use("suffix + model", "auto")
    assert uses(Wanted(CHOICE_OF_SUFFIX)) == {
        PLAIN: Use(None, 0), CHOICE: Use("suffix", 2), AUTO: Use("suffix", "auto"), DEFAULT: default,
        WORST: Use("suffix", 2),
    }  # fmt: skip
    assert set(uses(Wanted(CHOICE_OF_SUFFIX), 1)) == {PLAIN, CHOICE, AUTO}
    assert uses(Wanted(both, CHOICE_OF_SUFFIX, is_open=True)) == {
        PLAIN: Use(None, 0), CHOICE: Use("suffix + model", 2), DEFAULT: default, RIVAL: Use("suffix", 2),
    }  # fmt: skip


def test_a_trial_ends_where_it_decides_nothing_any_more(stand):
    texts = Texts([known(stand, length) for length in (12, 13, 14, 15)])
    asked = iter([True, True, False])
    trial = Trial(stand, Wanted(CHOICE_OF_SUFFIX), [], Watch(), lambda: next(asked))
    trial.run(texts, [1.0], [1], Budget(600))
    assert trial.cells[0].num_groups == 2
