"""`outrider audit`: how much it writes, what rounding may explain, what it tells of levels and what it leaves out."""

from __future__ import annotations

import pytest

from outrider.audit import verdict
from outrider.audit.audit import Findings
from outrider.audit.forward import TILE, TeacherForcing
from outrider.audit.texts import PLAIN, TOGETHER, AuditPlan, NamedPrompt
from outrider.engine.batch import LogitRows
from outrider.request import SamplingParams


@pytest.mark.parametrize("drafters", [[PLAIN, "suffix", TOGETHER], [PLAIN, "suffix", "model", TOGETHER]], ids=len)
@pytest.mark.parametrize("num_prompts", [3, 8, 40])
def test_a_default_audit_of_a_rule_that_draws_writes_as_much_as_decides(drafters, num_prompts):
    prompts = tuple(NamedPrompt(str(index), [index]) for index in range(num_prompts))
    plan = AuditPlan(prompts=prompts, params=SamplingParams(temperature=1.0))
    length = verdict.decisive_length(plan, drafters)
    assert length * num_prompts * (len(drafters) - 1) * 2 >= 1.05 * verdict.DECISIVE_TOKENS
    assert verdict.LEAST_LENGTH <= length <= verdict.MOST_LENGTH


@pytest.mark.parametrize(("options", "length"), [((), 344), (("--max-tokens", 5), 5), (("--temperature", "0"), 256)])
def test_the_length_is_derived_where_it_is_left_open(outrider, monkeypatch, options, length):
    plans = []
    monkeypatch.setattr("outrider.cli.audit_show.show_audit", lambda _, plan, __: plans.append(plan))
    outrider("audit", "--verify", "block", "--draft", "suffix", *options)
    assert plans[0].params.max_tokens == length


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        (("--verify", "block", "--temperature", 0), {"bitwise", "seed"}),
        (("--verify", "block", "--temperature", 1), {"distribution"}),
        (("--temperature", 1), {"bitwise", "seed"}),
    ],
)
def test_the_level_is_the_least_that_a_text_promised(audit, options, levels):
    outcome = audit(*options, "--json", "-")
    assert outcome.json["level"] in levels
    assert f", level {outcome.json['level']}" in outcome.stderr
    assert {row["exactness"] for row in outcome.json["settings"]} >= {outcome.json["level"]}


def test_an_engine_whose_rows_move_by_more_than_rounding_explains_nothing_by_it(audit, monkeypatch):
    """Else the worse an engine computes, the more would be forgiven."""
    logits = TeacherForcing.logits

    def moved(self, prompt, output, *, tile=TILE):
        for part in logits(self, prompt, output, tile=tile):
            part[:, 0] += 1000 * (tile != TILE)
            yield part

    monkeypatch.setattr(TeacherForcing, "logits", moved)
    outcome = audit("--json", "-")
    assert outcome.exit_code == 3, outcome
    assert any("of which rounding explains" in reason for reason in outcome.json["verdict"]["reasons"])
    assert outcome.json["replay"]["rounding"] > 900 > outcome.json["replay"]["rounding_limit"]


def test_differences_that_are_not_listed_are_counted(audit, monkeypatch):
    monkeypatch.setattr(verdict, "MAX_LISTED", 3)
    monkeypatch.setattr(LogitRows, "token", lambda *_: 7)
    replay = audit("--json", "-").json["replay"]
    assert len(replay["differences"]) == 3
    assert 0.9 * replay["num_tokens"] < replay["num_differences"] <= replay["num_tokens"]


def test_under_block_verification_the_test_is_told_what_was_rejected(audit, monkeypatch, tiny_pair):
    told, findings = [], []
    monkeypatch.setattr("outrider.audit.audit.feed_text", lambda *parts: told.append(parts[4]) or 0)
    monkeypatch.setattr("outrider.cli.audit_show.judge", lambda found: findings.append(found) or verdict.judge(found))
    audit("--temperature", 1, "--verify", "block", drafts=(tiny_pair.draft,))
    (found,) = findings
    assert isinstance(found, Findings)
    texts = [written for written in found.written if written.setting.drafter != PLAIN]
    assert told == [written.rejected for written in texts]
    for written in texts:
        num_rejected = sum(len(each.token_ids) for each in written.rejected)
        assert num_rejected == written.num_drafted - written.num_accepted
        assert all(0 < each.after <= len(written.text.token_ids) for each in written.rejected)
    assert any(told)
    told.clear()
    audit("--temperature", 1, drafts=(tiny_pair.draft,))
    assert set(told) == {None}
