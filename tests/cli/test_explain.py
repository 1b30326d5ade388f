"""What was decided about drafting, in words."""

from __future__ import annotations

from collections import Counter

import pytest

from outrider.cli.explain import MAX_DECISIONS, explain, explain_costs
from outrider.engine.llm import Generation
from outrider.policy.cost import StepCosts
from outrider.sequence import Decision, DraftWork
from outrider.stats import SequenceStats


def generation(*decisions, **facts):
    seconds = {"prefill": 0.25, "draft": 0.1, "target": 0.8, "sample": 0.06, "other": 0.04}
    stats = {
        "num_steps": 10,
        "num_emitted": 24,
        "num_drafted": 20,
        "num_accepted": 14,
        "drafted_at": [10, 10],
        "accepted_at": [9, 5],
        "accepted_from": Counter({"model": 2, "suffix": 12}),
        "seconds": seconds,
    }
    return Generation(
        request_id=0,
        prompt_token_ids=(1,),
        token_ids=(2,) * 24,
        text="",
        finish_reason="length",
        seed=0,
        exactness="bitwise",
        stats=SequenceStats(**stats | facts.pop("stats", {})),
        decisions=decisions,
        **facts,
    )


def decision(at_token=0, depth=4, source="suffix", agreement=0.72, break_even=0.35):
    return Decision(at_token, depth, source, agreement, break_even)


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        (
            [decision(12), decision(40, depth=0, agreement=0.31, break_even=0.58)],
            [
                "drafted 4 tokens a step with suffix from token 12: agreement 0.72, break-even 0.35",
                "drafting stopped at token 40: agreement 0.31, break-even 0.58",
            ],
        ),
        (
            [decision(depth=1), decision(source="model"), decision(9, depth=0, agreement=0.1)],
            [
                "drafted 1 token a step with suffix from token 0: agreement 0.72, break-even 0.35",
                "drafted 4 tokens a step with model from token 0: agreement 0.72, break-even 0.35",
                "drafting with suffix stopped at token 9: agreement 0.10, break-even 0.35",
            ],
        ),
        (
            [decision(depth=0, agreement=0.2, break_even=None)],
            ["nothing was drafted with suffix from token 0: agreement 0.20, none would pay"],
        ),
    ],
)
def test_decisions_are_told_with_what_they_rest_on(decisions, said):
    assert explain(generation(*decisions))[: len(said)] == said


def test_what_came_of_the_drafts_and_where_time_went():
    stages = "draft 10%, target 80%, sample 6%, other 4%"
    assert explain(generation()) == [
        "drafted up to 2 tokens a step throughout",
        "accepted 14 of 20 tokens drafted (0.70): 12 from suffix, 2 from model; 2.40 tokens a forward of the target",
        "survival by depth: 0.90 0.50",
        f"time: 0.250 s for the prompt, 1.000 s for 10 steps, 100.00 ms each ({stages})",
    ]


def test_what_went_wrong():
    lines = explain(generation(decision(), draft_fault="drafter 'x' raised ValueError", num_preempted=2))
    assert "drafter 'x' raised ValueError: the text went on without it" in lines
    assert "gave its cache to others 2 times, for want of memory, and computed it again" in lines


def test_a_policy_that_wavers_does_not_fill_the_screen():
    decisions = [decision(token, depth=token % 2) for token in range(100)]
    lines = explain(generation(*decisions))
    assert f"... {100 - MAX_DECISIONS} decisions more, all of them in --json" in lines
    assert len(lines) < MAX_DECISIONS + 5
    assert any("token 99" in line for line in lines)


def test_a_text_without_drafts_and_one_that_never_began():
    nothing = {"num_drafted": 0, "num_accepted": 0, "drafted_at": [], "accepted_at": [], "accepted_from": Counter()}
    plain, cancelled = (generation(stats=nothing | more) for more in ({}, {"num_steps": 0}))
    assert explain(plain)[0] == explain(cancelled)[0] == "nothing was drafted"
    assert explain(cancelled)[1:] == ["time: 0.250 s for the prompt"]


def test_what_a_plain_step_costs_against_a_speculative_one():
    costs = StepCosts([(2, 0.010), (5, 0.012), (9, 0.020)], priors={"suffix": None, "model": None})
    costs.observe_target(5, 0.012)
    costs.observe_draft(DraftWork("model", 1, 4, 0, 0.004))
    assert explain_costs({"name": "auto", "costs": costs.describe()}) == [
        "costs: a forward of the target 10.00 ms over 2 rows, as in a plain step, 12.00 ms over 5, 20.00 ms over 9",
        "costs: a draft of model 0.00 ms, and 1.00 ms a step",
    ]
    assert explain_costs({"name": "fixed"}) == explain_costs({"costs": StepCosts().describe()}) == []


def test_trees_are_named():
    lines = explain(generation(decision(depth=2)._replace(num_beside=2), stats={"num_branching": 7}))
    assert lines[0].startswith("drafted 2 tokens and up to 2 beside them a step with suffix from token 0: ")
    assert "7 of 10 steps verified trees, the others chains or nothing" in lines
    assert not any("trees" in line for line in explain(generation(decision())))
