"""`outrider audit`: a sound engine passes, a fault put into it is found, and what cannot be said is not said."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from types import SimpleNamespace

import pytest

from outrider.cli import audit_show
from outrider.draft.base import Draft
from outrider.engine.batch import LogitRows
from outrider.engine.stream import TextStream
from outrider.errors import NumericsError
from outrider.noise import Address
from outrider.sampling import choose
from outrider.tree import ROOT, TokenTree, Verdict
from outrider.verify.coupled import CoupledVerifier
from tests.cli.tiny import make_tiny

KEYS = {
    "provenance", "engine", "level", "verdict", "is_partial", "verification", "plan", "settings", "divergences",
    "replay", "sequential",
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", None])
def test_a_sound_engine_passes(audit, tmp_path, dtype):
    saved = tmp_path / "audit.json"
    outcome = audit("--json", saved, *(["--dtype", dtype] if dtype else []))
    assert outcome.exit_code == 0, outcome
    assert "lossless as far as tested, level " in outcome.stdout
    assert "\x1b[2J" not in outcome.stdout
    document = json.loads(saved.read_text())
    assert document.keys() == KEYS
    assert document["verdict"] == {"status": "lossless", "reasons": []}
    assert len(document["settings"]) == 4 * 2 * 2
    assert {row["drafter"] for row in document["settings"]} == {"none", "suffix", "model", "as configured"}
    assert all(row["num_differing"] == 0 for row in document["settings"])
    assert document["replay"]["num_tokens"] >= 2 * 3 * 12 - 24
    assert document["sequential"]["num_tokens"] > 0


def test_the_bundled_pair_is_what_is_audited_by_default(outrider):
    outcome = outrider("audit", "--max-tokens", 4, "--batch", 1, "--json", "-")
    assert outcome.exit_code in {0, 3}, outcome
    assert outcome.json["plan"]["prompts"][0] == "class"
    assert {row["drafter"] for row in outcome.json["settings"]} >= {"suffix", "model"}


def test_truncation_and_penalties_are_audited_too(audit):
    outcome = audit("--temperature", "0.8", "--top-k", 20, "--top-p", 0.9, "--frequency-penalty", 0.5, "--json", "-")
    assert outcome.exit_code == 0, outcome
    assert {row["temperature"] for row in outcome.json["settings"]} == {0.8}


def test_trees_are_audited_too(audit):
    outcome = audit("--max-children", 2, "--dtype", "float32", "--json", "-")
    assert outcome.exit_code == 0, outcome
    branching = {row["drafter"] for row in outcome.json["settings"] if row["num_branching"]}
    assert "model" in branching <= {"model", "as configured"}


def test_drawn_trees_are_audited_too(audit):
    outcome = audit("--verify", "block", "--max-children", 3, "--json", "-")
    assert outcome.exit_code == 3, outcome  # so few samples decide nothing
    assert any(
        row["num_branching"] for row in outcome.json["settings"] if row["temperature"] and row["drafter"] == "model"
    )
    assert all(row["num_differing"] == 0 for row in outcome.json["settings"])


def test_trees_that_nobody_makes_are_not_tested(audit):
    outcome = audit("--max-children", 2, drafts=("suffix",))
    assert outcome.exit_code == 3, outcome
    assert "no draft branched" in outcome.stdout


def test_block_verification_is_judged_by_samples(audit):
    outcome = audit("--verify", "block", "--json", "-")
    assert outcome.exit_code == 3, outcome  # so few samples decide nothing
    assert outcome.json["verification"] == "block"
    assert outcome.json["sequential"]["num_tokens"] > 0


def accept_anything(self, tree, target):
    """The first guess is not compared with the target's token."""
    if len(tree) == 0:
        return Verdict((), target.token(0), is_bonus=False)
    return Verdict((0,), target.token(1), is_bonus=len(tree) == 1)


def accept_near(self, tree, target):
    """As if typical acceptance were lossless: a guess among the target's 20 likeliest is good enough."""
    path, node = [], ROOT
    while True:
        children = [child for child in range(len(tree)) if tree.parents[child] == node]
        likely = target._processed(node + 1).argsort()[-20:]
        good = [child for child in children if tree.tokens[child] in likely]
        if not good:
            return Verdict(tuple(path), target.token(node + 1), is_bonus=False)
        node = good[0]
        path.append(node)


def token_by_root_noise(self, row):
    """All rows of a step share the root's noise."""
    request = self._request
    return choose(self._processed(row), request.params, Address(request.seed, request.stream, self._root_position + 1))


def token_by_another_seed(self, row):
    """The seed that was asked for is ignored."""
    address = Address(self._request.seed + 1, self._request.stream, self._root_position + 1 + row)
    return choose(self._processed(row), self._request.params, address)


def push_beyond_the_end(self, token_id, push=TextStream.push):
    """A text goes on after its end token."""
    self._end_token_ids = frozenset()
    return push(self, token_id)


FAULTS = {
    "a guess unverified": (CoupledVerifier, "verify", accept_anything),
    "a guess nearly good enough": (CoupledVerifier, "verify", accept_near),
    "noise by slot": (LogitRows, "token", token_by_root_noise),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_engine_is_found(audit, monkeypatch, tiny_pair, fault):
    monkeypatch.setattr(*FAULTS[fault])
    outcome = audit("--json", "-", drafts=("suffix", tiny_pair.draft))
    assert outcome.exit_code == 1, outcome
    assert "DIFFERENCE FOUND" in outcome.stderr
    document = outcome.json
    assert document["verdict"]["status"] == "difference"
    found = document["replay"]["differences"][0]
    assert found["kind"] == "wrong acceptance"
    assert found["margin"] > found["bound"]
    assert document["divergences"]


def test_a_fault_that_no_replay_can_see_is_found_by_the_sequential_test(audit, monkeypatch, tiny_pair):
    """An engine whose texts a seed does not settle: they are tested as samples, and these are the drafter's."""
    monkeypatch.setattr(CoupledVerifier, "name", "block")
    monkeypatch.setattr(CoupledVerifier, "verify", accept_anything)
    outcome = audit("--temperature", 1, "--max-tokens", 60, "--json", "-", drafts=(tiny_pair.draft,))
    assert outcome.exit_code == 1, outcome
    assert outcome.json["sequential"]["is_rejected"]
    assert outcome.json["replay"]["num_tokens"] == 2 * 3 * 60  # of plain decoding alone, in two batches
    assert not outcome.json["replay"]["differences"]
    assert "level distribution" in outcome.stderr


def test_samples_that_are_too_few_decide_nothing(audit, monkeypatch):
    monkeypatch.setattr(CoupledVerifier, "name", "block")
    outcome = audit("--temperature", 1)
    assert outcome.exit_code == 3, outcome
    assert "raise --max-tokens" in outcome.stdout


@pytest.mark.parametrize("rule", ["coupled", "block"])
def test_no_two_texts_that_are_bet_on_share_their_noise(audit, monkeypatch, rule):
    """What was won on a row of noise would be won on it again."""
    fed = []
    monkeypatch.setattr("outrider.audit.audit.feed_text", lambda test, text, *_: fed.append(text.request) or 0)
    audit("--temperature", "0,0.7,1", "--verify", rule)
    assert {request.params.temperature for request in fed} == {0.7, 1}
    seeds = [request.seed for request in fed]
    assert len(set(seeds)) == len(seeds) >= 2 * 3


def test_under_block_verification_every_text_that_may_be_drafted_is_fed_whatever_became_of_it(audit, monkeypatch):
    """To leave out texts for which nothing was drafted would choose the evidence after looking at it."""
    fed = []
    monkeypatch.setattr("outrider.audit.audit.feed_text", lambda test, text, *_: fed.append(text) or 0)
    monkeypatch.setattr(
        "outrider.draft.suffix.SuffixDrafter.propose", lambda _, some, __: Draft([TokenTree()] * len(some))
    )
    audit("--verify", "block", drafts=("suffix",))
    assert len(fed) == 2 * 2 * 3


@pytest.mark.parametrize("rule", ["coupled", "block"])
def test_a_seed_that_is_ignored_is_found(audit, monkeypatch, rule):
    """Under block verification in plain decoding, which takes the seed's own noise under any rule."""
    monkeypatch.setattr(LogitRows, "token", token_by_another_seed)
    outcome = audit("--temperature", 1, "--verify", rule, "--json", "-")
    assert outcome.exit_code == 1, outcome
    differences = outcome.json["replay"]["differences"]
    assert {each["kind"] for each in differences} == {"wrong acceptance"}
    assert {each["drafter"] for each in differences} == {"none"}


@pytest.mark.parametrize("rule", ["coupled", "block"])
def test_text_after_an_end_token_is_found(audit, monkeypatch, tmp_path, tiny_pair, rule):
    target = make_tiny(tmp_path / "target", scale=2.0, eos_token_id=list(range(0, 257, 16)))
    options = ("--verify", rule, "--json", "-", "--target", target)
    assert audit(*options).exit_code == (0 if rule == "coupled" else 3)
    monkeypatch.setattr(TextStream, "push", push_beyond_the_end)
    outcome = audit(*options)
    assert outcome.exit_code == 1, outcome
    assert {each["kind"] for each in outcome.json["replay"]["differences"]} == {"wrong end"}


def test_without_a_drafter_speculation_is_not_tested(audit):
    outcome = audit(drafts=("none",))
    assert outcome.exit_code == 3, outcome
    assert "name a drafter with --draft" in outcome.stdout


def test_guesses_of_which_none_is_accepted_test_nothing(audit, monkeypatch):
    monkeypatch.setattr("outrider.tree.TokenTree.child", lambda *_: None)
    outcome = audit()
    assert outcome.exit_code == 3, outcome
    assert "no drafted token was accepted" in outcome.stdout


def test_a_drafter_that_fails_leaves_it_open(audit, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("outrider.draft.suffix.SuffixDrafter.propose", fail)
    outcome = audit()
    assert outcome.exit_code == 3, outcome
    assert "a drafter failed" in outcome.stdout


def test_an_interrupted_audit_says_so(audit, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def noted():
        yield SimpleNamespace(is_set=lambda: True)

    monkeypatch.setattr(audit_show, "noted_interrupt", noted)
    outcome = audit()
    assert outcome.exit_code == 130, outcome
    assert "the audit was interrupted" in outcome.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "warm"], "0,0.7,1"),
        (["--temperature", "1,1"], "twice"),
        (["--temperature", "-1"], "-1.0"),
        (["--batch", "0"], "between 1 and 256"),
        (["--batch", "many"], "such as 1,4,8"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--alpha", "0"], "--alpha is 0.0"),
        (["--alpha", "1"], "--alpha is 1.0"),
        (["--top-p", "2"], "top_p"),
        (["--seed", str(2**63 - 1)], "--seed"),
        (["--seed", str(2**63 - 1 - 10)], "it takes 16 seeds"),
        (["--seed", str(2**63 - 1 - 100), "--verify", "block"], "it takes 128 seeds"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--prompts", "elsewhere"], "elsewhere"),
        (["--target", "nowhere"], "nowhere"),
        (["--draft", "nowhere"], "nowhere"),
        (["--draft", "none", "--draft", "suffix"], "--draft none"),
        (["--json", "nowhere/audit.json"], "cannot write"),
        (["--device", "cuda"], "torch"),
        (["--wings"], "--wings"),
        (["--alpha", "0.1", "verifier", "a:b"], "--alpha stands before verifier"),
        (["verifier"], "MODULE:FUNCTION"),
        (["verifier", "nonsense"], "MODULE:FUNCTION"),
        (["verifier", "no_such_module:verify"], "cannot import no_such_module"),
        (["verifier", "math:verify"], "has nothing named 'verify'"),
        (["verifier", "math:pi"], "has a float named 'pi'"),
    ],
)
def test_mistakes_are_one_line(outrider, options, said):
    assert said in outrider("audit", *options).error


def test_a_prompt_that_does_not_fit(audit, outrider, tmp_path, tiny_pair):
    (tmp_path / "long.txt").write_text("x" * 5000)
    assert "context" in outrider("audit", "--target", tiny_pair.target, "--prompts", tmp_path / "long.txt").error


@pytest.mark.parametrize("error", [ZeroDivisionError("no row"), NumericsError("no row"), OSError("no row")])
def test_what_breaks_an_audit_is_no_difference(audit, monkeypatch, error):
    """Exit code 1 is a verdict."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("outrider.audit.audit.replay", fail)
    outcome = audit()
    assert outcome.exit_code == 70
    assert len(outcome.stderr.splitlines()) == 1
    assert "no row" in outcome.stderr
    monkeypatch.setenv("OUTRIDER_TRACEBACK", "1")
    outcome = audit()
    assert outcome.exit_code == 70
    assert ("Traceback" in outcome.stderr) is isinstance(error, ZeroDivisionError)


CARELESS = """
from outrider.tree import Verdict

def careless(tree, rows):
    token, target, draft = tree.tokens[0], rows.target_probabilities(0), rows.draft_probabilities(0)
    if rows.flip(0, min(1, target[token] / (1 if draft is None else draft[token]))):
        return Verdict((0,), rows.pick(0, rows.target_probabilities(1)), is_bonus=False)
    return Verdict((), rows.pick(-1, target), is_bonus=False)

def failing(tree, rows):
    raise LookupError("no such row")
"""


@pytest.mark.parametrize(
    ("name", "exit_code", "said"),
    [("outrider.verify.coupled:CoupledVerifier", 0, "lossless"), ("mine:careless", 1, "worst case: ")],
)
def test_a_verifier_is_certified(outrider, monkeypatch, tmp_path, name, exit_code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(CARELESS)
    outcome = outrider("audit", "verifier", name, "--json", tmp_path / "out.json")
    assert outcome.exit_code == exit_code, outcome
    assert said in outcome.stdout
    document = json.loads((tmp_path / "out.json").read_text())
    assert (Fraction(document["distance"]) == 0) == (exit_code == 0)
    assert document["num_cases"] > 1


def test_a_verifier_that_raises_is_one_line(outrider, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(CARELESS)
    assert "raised LookupError (no such row)" in outrider("audit", "verifier", "mine:failing").error
