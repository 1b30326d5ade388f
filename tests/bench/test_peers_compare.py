"""What of a comparison with peers is measured beside the best settings, and what a benchmark makes of it."""

from __future__ import annotations

import pytest

from benchmarks.peers import PARTS, findings
from outrider import LLM, EngineConfig, RuntimeOptions, SamplingParams
from outrider.bench.compare import BenchPlan
from outrider.bench.groups import Interruption
from outrider.bench.peers.compare import compare_peers, hold_out
from outrider.bench.peers.engine import PLAIN, Written
from outrider.bench.peers.results import num_differing, peers_document
from outrider.bench.workloads import Prompt, Workload
from tests.cli.tiny import make_tiny


class Peer:
    """It begins as ours, and goes on with a token of its own."""

    name, is_alive = "peer", True
    settings = (PLAIN, "draft 4")

    def __init__(self, llm, num_same):
        self.llm, self.num_same = llm, num_same
        self.facts = {"version": "1", "settings": [*self.settings], "dtype": "float32", "num_threads": 1}

    def write(self, texts, temperature, setting):
        token_ids = []
        for text in texts:
            (sequence,) = self.llm.start([text.token_ids], _params(text, temperature), depth=0)
            while not sequence.finish_reason:
                self.llm.engine.step()
            own = self.llm.generation(sequence, "").token_ids
            token_ids.append((*own[: self.num_same], *(each ^ 1 for each in own[self.num_same :])))
        return Written(tuple(token_ids), 100.0 if setting == PLAIN else 50.0)


def _params(text, temperature):
    return SamplingParams(temperature=temperature, seed=text.seed, max_tokens=text.max_tokens, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    target, draft = make_tiny(root / "target", scale=2.0), make_tiny(root / "draft", seed=1, num_hidden_layers=1)
    config = EngineConfig(self_test=False, options=RuntimeOptions(num_threads=1), max_sequences=4)
    return LLM(target, draft=[draft], config=config)


def compared(llm, peer, **options):
    prompts = tuple(Prompt(name, f"def {name}(self):\n") for name in ("one", "two", "three"))
    measured, tuning = hold_out([Workload("code", prompts, "0" * 64)], None)
    plan = BenchPlan(
        workloads=tuple(measured), temperatures=(0.0, 1.0), concurrencies=(1,), depth=3, num_runs=2, max_tokens=20
    )
    comparison = compare_peers(llm, [peer], plan, tuning, Interruption(), **options)
    assert num_differing(comparison) == 0
    return comparison, peers_document(plan, comparison, {peer.name: peer.facts}, {})


def test_without_plain_turns_only_the_best_settings_are_measured(llm):
    comparison, document = compared(llm, Peer(llm, 20), takes_plain_turns=False)
    assert comparison.runs
    for run in comparison.runs:
        assert {name: [*by] for name, by in run.written.items()} == {"outrider": ["depth 3"], "peer": ["draft 4"]}
    for row in document["rows"]:
        assert row["tokens_per_second"] > 0
        assert row["plain_tokens_per_second"] is row["plain_ratio"] is row["num_same_texts"] is None
    for measurement in document["measurements"]:
        assert measurement["written"]["peer"]["draft 4"]["num_as_plain"] is None


def test_ours_writes_once_what_others_settings_are_chosen_by(llm, monkeypatch):
    """At full length, and plainly only to know the text."""
    asked = []
    start = llm.start

    def watched(prompts, params, **options):
        first = params if isinstance(params, SamplingParams) else params[0]
        asked.append((first.max_tokens, options["depth"]))
        return start(prompts, params, **options)

    monkeypatch.setattr(llm, "start", watched)
    comparison, _ = compared(llm, Peer(llm, 20), takes_plain_turns=False)
    num_tuned = 2  # one prompt, at two temperatures
    assert asked.count((20, 3)) == len(comparison.runs) + num_tuned


def test_ours_are_compared_with_plain_decoding_even_so(llm):
    comparison, _ = compared(llm, Peer(llm, 20), takes_plain_turns=False)
    run = comparison.runs[0]
    wrong = run.written["outrider"]["depth 3"]._replace(token_ids=((0,) * len(run.texts[0].token_ids),))
    comparison.runs[0] = run._replace(written={**run.written, "outrider": {"depth 3": wrong}})
    assert wrong.is_promised == bool(num_differing(comparison))


@pytest.mark.parametrize("num_same", [0, 16, 20])
def test_how_far_greedy_texts_are_ours_is_counted(llm, num_same):
    _, document = compared(llm, Peer(llm, num_same))
    rows = {(row["engine"], row["temperature"]): row["share_as_ours"] for row in document["rows"]}
    (lengths,) = {
        text["num_tokens"] for each in document["measurements"] if each["temperature"] == 0 for text in each["texts"]
    }
    assert rows[("outrider", 0.0)] == 1
    assert rows[("peer", 0.0)] == pytest.approx(min(num_same, lengths) / lengths)
    assert rows[("outrider", 1.0)] is rows[("peer", 1.0)] is None


def test_a_finding_is_over_the_peer_that_came_nearest():
    def row(engine, ratio, **where):
        interval = ratio and {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
        return {
            "workload": "code", "temperature": 0.0, "concurrency": 1, "engine": engine, "setting": "draft 4",
            "ratio": interval, **where,
        }  # fmt: skip

    rows = [row("outrider", None), row("slow", 3.0), row("near", 1.2), row("near", 0.9, temperature=1.0)]
    greedy, sampled = findings([*rows, {"engine": "lost", "num_texts": 0}])
    assert (greedy["best_peer"], greedy["ratio"]["median"], {*greedy["ratios"]}) == ("near", 1.2, {"slow", "near"})
    assert (sampled["temperature"], sampled["ratio"]["median"]) == (1.0, 0.9)


def test_all_rows_that_are_asked_about_have_a_part():
    assert {part.agreement for part in PARTS.values() if part.temperatures == (0.0, 1.0)} == {"0.95", "0.8", "0.6"}
    assert PARTS["plain"].is_plain
    assert PARTS["edit"].workloads == ("edit", "repeat")
    assert PARTS["crowd"].concurrency == 8
