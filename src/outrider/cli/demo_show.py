"""The demo from beginning to end: load, race, measure, show, save. Knows the terminal; measures nothing itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from outrider.cli.demo_claims import Claim, Plan, Run, claims_of, measure, num_differing
from outrider.cli.demo_drafters import Contest
from outrider.cli.demo_race import PAIR, Lane, run_lane, show_race, steps_table
from outrider.cli.output import STDOUT, as_document, save_json, tolerate_characters
from outrider.demo import BundledPair
from outrider.demo.prompts import PROMPTS
from outrider.errors import NumericsError
from outrider.request import SamplingParams

DEPTH = 4
RACE_TEMPERATURE = 0.7


def show_demo(pair: BundledPair, *, seed: int, is_quick: bool, json: str | None) -> None:
    """Run it.

    Raises:
        NumericsError: a text differs from plain decoding's where the runtime promises that none does.
    """
    tolerate_characters()
    console = Console(stderr=json == STDOUT, highlight=False)
    with console.status("loading the bundled pair"):
        contest = Contest(pair)
    console.print(_introduction(contest, seed))
    if is_quick:
        plan = Plan(prompts=PROMPTS[:3], num_tokens=48, depth=DEPTH, seed=seed, max_rounds=1, seconds=10)
    else:
        plan = Plan(prompts=PROMPTS, num_tokens=96, depth=DEPTH, seed=seed, max_rounds=3, seconds=40)
    lanes = _race(console, contest, plan, seconds=4 if is_quick else 10)
    with console.status("measuring") as status:
        runs = measure(contest, plan, lambda progress: status.update(f"measuring: {progress}"))
        claims = claims_of(contest, runs)
    console.print(_claims_table(claims))
    if json is not None:
        save_json(json, _document(contest, lanes, runs, claims))
    _refuse_differences(contest, lanes, runs)


def _introduction(contest: Contest, seed: int) -> str:
    target, draft = contest.llm.target, contest.drafters["draft model"]
    return (
        f"A target of {target.config.num_layers} layers and {target.memory().weights / 1e6:.1f} MB writes Python, "
        f"a draft of {draft.memory() / 1e6:.1f} MB guesses {DEPTH} tokens ahead. "
        f"{target.options.dtype}, {target.options.num_threads} threads, exactness {target.exactness}, seed {seed}."
    )


def _race(console: Console, contest: Contest, plan: Plan, *, seconds: float) -> list[Lane]:
    """One text, written plainly and speculatively, shown side by side."""
    prompt = plan.prompts[0]
    params = SamplingParams(temperature=RACE_TEMPERATURE, seed=plan.seed, max_tokens=plan.num_tokens)
    with console.status("writing one text plainly and speculatively"):
        for drafter in PAIR:  # once unseen: neither is to pay for what is done only once
            run_lane(contest, drafter, prompt, params, plan.depth)
        lanes = [run_lane(contest, drafter, prompt, params, plan.depth) for drafter in PAIR]
    show_race(console, lanes, seconds=seconds)
    console.print(steps_table(lanes[1]))
    return lanes


def _claims_table(claims: list[Claim]) -> Table:
    table = Table(title="What is claimed of speculative decoding", title_justify="left", show_lines=True)
    table.add_column("claim", style="bold", ratio=1)
    table.add_column("measured here", ratio=3)
    table.add_column("holds")
    for claim in claims:
        answer, style = ("yes", "") if claim.holds else ("NO", "reverse")
        table.add_row(claim.name, claim.measured, answer, style=style)
    return table


def _document(contest: Contest, lanes: list[Lane], runs: list[Run], claims: list[Claim]) -> dict[str, Any]:
    drafters = {name: drafter.describe() for name, drafter in contest.drafters.items()}
    return {
        "engine": contest.llm.describe() | {"drafter": drafters},
        "claims": [dataclasses.asdict(claim) for claim in claims],
        "race": [{"title": lane.title, "seconds": lane.seconds, "token_ids": lane.token_ids} for lane in lanes],
        "runs": [{**run._asdict(), "generation": as_document(run.generation)} for run in runs],
    }


def _refuse_differences(contest: Contest, lanes: list[Lane], runs: list[Run]) -> None:
    plain, speculative = lanes
    count = num_differing(runs) + (plain.token_ids != speculative.token_ids)
    if count and contest.llm.target.exactness == "bitwise":
        raise NumericsError(
            f"{count} texts differ from plain decoding, though this run promises none: please report it"
        )
