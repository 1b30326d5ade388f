"""A trial measures what it says: as many texts at once as were asked for, from its first step to its last."""

from __future__ import annotations

import pytest

from outrider import EngineConfig, SamplingParams
from outrider.check.budget import Budget
from outrider.check.measured import SETTINGS, Trial
from outrider.check.prediction import Choice
from outrider.check.stand import Stand
from outrider.check.texts import Texts, Watch
from outrider.predict.agreement import KnownText
from outrider.predict.interval import Estimate
from tests.cli.tiny import make_tiny

PROMPT = "def read(path):\n    return read(path)\n"


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    target = make_tiny(tmp_path_factory.mktemp("pair") / "target", scale=2.0)
    return Stand.load(target, None, EngineConfig(self_test=False, max_sequences=8))


def known(stand, length):
    params = SamplingParams(temperature=1.0, seed=length, max_tokens=length, ignore_eos=True)
    (plain,) = stand.llm.generate(PROMPT, params, depth=0)
    return KnownText(f"of {length}", "c", params, plain.prompt_token_ids, plain.token_ids)


def num_in_flight(engine):
    return len(engine.scheduler.running) + len(engine.scheduler.waiting)


def test_texts_that_end_early_do_not_leave_the_others_alone(stand, monkeypatch):
    engine, counts = stand.llm.engine, []
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda: counts.append(num_in_flight(engine)) or step())
    texts = [known(stand, length) for length in (12, 30, 60)]
    counts.clear()
    trial = Trial(stand, Choice("suffix", 2, 3, Estimate(1.2, 1.1, 1.3), ()), [], Watch())
    trial.run(Texts(texts), [1.0], [3], Budget(600))
    (cell,) = trial.cells
    assert len(counts) > 60
    assert set(counts) == {3}
    assert {setting: set(by_prompt) for setting, by_prompt in cell.seconds.items()} == {
        setting: {"of 12", "of 30", "of 60"} for setting in SETTINGS
    }
    assert not cell.different
    assert engine.is_idle
