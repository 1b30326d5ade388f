"""A model inside a larger one computes what it did; a damped one computes less, at the same price."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams, bundled_pair
from outrider.bench.embedding import Embedding, Shape, as_bfloat16, write_damped
from outrider.bench.pairs import AgreementMeter
from outrider.cache.table import num_blocks_for
from outrider.errors import ParameterError
from outrider.model.config import read_config
from outrider.model.weights import Weights
from outrider.runtime.base import SequenceRows

SOURCE = bundled_pair().target
# Other groups of heads than the model inside, which has two queries to a key.
SHAPE = Shape(hidden_size=512, intermediate_size=704, num_layers=15, num_heads=8, num_kv_heads=2)
SMALLEST = Shape(hidden_size=256, intermediate_size=640, num_layers=15, num_heads=4, num_kv_heads=2)
PROMPT = "import os\nimport sys\n\n\ndef main(argv=None):\n"


def make_llm(folder):
    return LLM(folder, config=EngineConfig(self_test=False, options=RuntimeOptions(num_threads=1)))


def embed(folder, epsilon, *, seed=0, shape=SHAPE):
    folder.mkdir()
    Embedding(SOURCE, shape, seed).write(folder, epsilon)
    return folder


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A target whose random layers whisper."""
    return embed(tmp_path_factory.mktemp("quiet") / "target", 0.01)


@pytest.fixture(scope="module")
def meter(tmp_path_factory):
    meter = AgreementMeter(SOURCE, num_threads=None)
    meter.prompts = meter.prompts[3:4]
    meter.write_search_texts()
    return meter


def logits_of(llm, token_ids):
    llm.target.resize(num_blocks_for(len(token_ids) + llm.target.min_rows))
    rows = SequenceRows(token_ids, 0, range(llm.target.num_blocks), range(len(token_ids)))
    return np.array(llm.target.forward([rows]).logits)


def test_it_writes_the_small_models_text_from_the_same_logits(quiet):
    llms = [make_llm(SOURCE), make_llm(quiet)]
    texts = [llm.generate(PROMPT, SamplingParams(max_tokens=40), depth=0)[0].text for llm in llms]
    assert texts[0] == texts[1]
    token_ids = llms[0].tokenizer.encode(PROMPT)
    small, large = (logits_of(llm, token_ids) for llm in llms)
    assert np.abs(small - large).max() < 0.05 * small.std()


def test_nothing_that_costs_time_is_zero(quiet, tmp_path):
    write_damped(SOURCE, tmp_path, 3.5)
    for folder in (quiet, tmp_path):
        weights = Weights.from_folder(folder)
        weights.check(read_config(folder))
        for name in weights.names:
            bits = weights[name].array & 0x7FFF
            assert np.count_nonzero(bits) > 0.999 * bits.size, name


def test_the_same_seed_and_epsilon_make_the_same_bytes(tmp_path):
    folders = [
        embed(tmp_path / str(number), epsilon, seed=seed, shape=SMALLEST)
        for number, (epsilon, seed) in enumerate([(1.0, 0), (1.0, 0), (2.0, 0), (1.0, 1)])
    ]
    first, same, *others = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert first == same
    assert first not in others


def test_agreement_falls_as_the_random_layers_grow_louder(meter, quiet, tmp_path):
    quietly, loudly = (
        meter.of_search_texts(folder).rate for folder in (quiet, embed(tmp_path / "loud", 256.0, shape=SMALLEST))
    )
    assert quietly > 0.98
    assert loudly < 0.8


def test_agreement_falls_with_damping(meter, tmp_path):
    rates = []
    for damping in (0.0, 0.5, 1.0, 2.0):
        folder = tmp_path / str(damping)
        folder.mkdir()
        write_damped(SOURCE, folder, damping)
        rates.append(meter.of_search_texts(folder).rate)
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.6


def test_damping_by_nothing_changes_no_weight(tmp_path):
    write_damped(SOURCE, tmp_path, 0.0)
    before, after = (Weights.from_folder(folder) for folder in (SOURCE, tmp_path))
    assert before.names == after.names
    assert all(np.array_equal(before[name].array, after[name].array) for name in before.names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 128}, "hidden_size of the target is 128, but the model inside it needs 256"),
        ({"num_layers": 14}, "num_layers of the target is 14, but the model inside it needs 15"),
        ({"num_heads": 2}, "heads of a key-value head"),
        ({"num_heads": 7}, "7 heads do not share 2"),
    ],
)
def test_a_shape_without_room_is_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        Embedding(SOURCE, dataclasses.replace(SMALLEST, **changes), 0)


def test_rounding_is_to_the_nearest_and_ties_to_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-7, 0.0], np.float32)
    found = (as_bfloat16(values).astype(np.uint32) << 16).view(np.float32)
    assert found.tolist() == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -1 - 2**-7, 0.0]
