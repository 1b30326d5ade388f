"""`outrider bench`: speculation against plain decoding, measured here; and the pairs to measure it with.

Knows options; what measures is imported when they are known to be sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from outrider.cli.bench_peers import PEER_PYTHON, PEERS, AskedPeers, PeerOptions, check_peer_options, measure_peers
from outrider.cli.bench_url import (
    AgainstUrl,
    Common,
    RemoteOptions,
    Timeout,
    Url,
    check_remote_options,
    measure_servers,
)
from outrider.cli.models import Models, choose_models
from outrider.cli.options import VERIFY_HELP, DraftOptions, Level, RecipeFile, Verify, numbers, refuse_idle_options
from outrider.cli.output import check_json_target
from outrider.cli.recipes import agreed_rule
from outrider.demo import bundled_pair
from outrider.errors import ParameterError
from outrider.request import MAX_SEED, SamplingParams

if TYPE_CHECKING:
    from outrider.bench.compare import BenchPlan
    from outrider.bench.workloads import Workload
    from outrider.cli.bench_show import Run

Size = Literal["0.5b", "1.5b"]

MAX_CONCURRENCY = 256

# Plain help, as in app.py.
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    target: Annotated[str | None, typer.Option(metavar="DIR", help="Whose text it is. [bundled]")] = None,
    draft: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR|suffix|none", help="What drafts; repeatable. [suffix; bundled: its draft too]"),
    ] = None,
    recipe: RecipeFile = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="code, prose, edit, summary, chat, repeat, *.jsonl, *.txt. [all six]"),
    ] = None,
    concurrency: Annotated[str, typer.Option(metavar="N,N", help="Texts written at once.")] = "1",
    temperature: Annotated[str, typer.Option(metavar="T,T", help="0 is greedy.")] = "0,1",
    depth: Annotated[str | None, typer.Option(metavar="auto|N", help="Tokens to draft a step. [auto]")] = None,
    verify: Annotated[Verify | None, typer.Option(help=VERIFY_HELP)] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 1,
    prompts: Annotated[int | None, typer.Option(min=1, help="Only the first prompts of each workload.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of a text at most.")] = 160,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the noise, and of the order.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="To compute with. [one per core]")] = None,
    exactness: Annotated[
        Level | None, typer.Option(help="bitwise: or refuse; seed: spare its price. [bitwise where it is found]")
    ] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Save what was measured; -: to stdout.")] = None,
    html: Annotated[Path | None, typer.Option("--html", "--out", metavar="FILE", help="Save a page.")] = None,
    peers: Annotated[str | None, PEERS] = None,
    peer_python: Annotated[list[str] | None, PEER_PYTHON] = None,
    url: Url = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="With --url. [the only one it lists]")] = None,
    against_url: AgainstUrl = None,
    chat: Annotated[bool, typer.Option("--chat", help="With --url: send prompts as messages.")] = False,
    timeout: Timeout = 300.0,
) -> None:
    """Measure how much faster speculation is than plain decoding: same engine, same prompts, same texts.

    With --peers other engines do the same work beside ours. With --url it measures a server instead, any that speaks
    OpenAI's API. Lists are separated by commas. Ctrl-C ends it early; what was measured is shown. Exits with 1 if a
    text came out different that must not.
    """
    if context.invoked_subcommand is not None:
        refuse_idle_options(context)
        return
    temperatures = numbers("--temperature", temperature, float, lambda number: SamplingParams(temperature=number))
    concurrencies = numbers("--concurrency", concurrency, int, check_concurrency)
    check_remote_options(context)
    asked_peers = check_peer_options(PeerOptions(peers, peer_python or [], prompts))
    check_json_target(json)
    workloads = _read_workloads(workload or [], None if asked_peers else prompts, may_chat=url is not None)
    common = Common(workloads, temperatures, concurrencies, runs, max_tokens, seed)
    if url is not None:
        measure_servers(RemoteOptions(url, model, against_url, chat, timeout), common, json, html)
        return
    models = _choose(DraftOptions(recipe=recipe, target=target, draft=draft, depth=depth))
    rule = agreed_rule(verify, models.rule)

    from outrider.bench.compare import BenchPlan
    from outrider.cli.bench_show import Run

    plan = BenchPlan(**common._asdict(), depth=models.depth)
    run = Run(
        json=json, html=html, num_threads=threads, verify=rule, exactness=exactness, max_children=models.max_children
    )
    _measure(asked_peers, models, plan, run)


@app.command("make-pair")
def make_pair_command(
    size: Annotated[Size, typer.Option(help="Parameters of the target.")],
    agreement: Annotated[float, typer.Option(help="How often the draft's guess is to be right, 0.3 to 0.99.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder that does not exist yet.")],
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the target's random weights.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="To compute with. [one per core]")] = None,
) -> None:
    """Make a pair that costs what its size costs, and agrees as often as asked for.

    Writes DIR/target, DIR/draft and DIR/pair.json. The target writes what the bundled target writes, or nearly.
    """
    from outrider.bench.pairs import SIZES, PairPlan
    from outrider.cli.bench_show import show_make_pair

    plan = PairPlan(shape=SIZES[size], agreement=agreement, seed=seed, num_threads=threads)
    show_make_pair(bundled_pair(), out, plan)


def _measure(asked_peers: AskedPeers | None, models: Models, plan: BenchPlan, run: Run) -> None:
    from outrider.cli.bench_show import show_bench

    if asked_peers is None:
        show_bench(models.target, models.drafts, plan, run)
    else:
        measure_peers(asked_peers, models, plan, run)


def _choose(options: DraftOptions) -> Models:
    """Target, drafts and depth, of a recipe or of the options."""
    models = choose_models(options, may_predict=True, by_default=("suffix",))
    if models.dtype is not None:
        raise ParameterError(
            f"{options.recipe} computes in {models.dtype}, but bench measures checkpoints in their own dtype"
        )
    return models


def _read_workloads(given: list[str], num_prompts: int | None, *, may_chat: bool) -> tuple[Workload, ...]:
    from outrider.bench.workloads import WORKLOADS, read_workloads

    names = [name.strip() for part in given for name in part.split(",")]
    workloads = read_workloads(names or WORKLOADS, may_chat=may_chat)
    return tuple(workload._replace(prompts=workload.prompts[:num_prompts]) for workload in workloads)


def check_concurrency(number: int) -> None:
    """Raise ParameterError for more texts at once than there may be."""
    if not 1 <= number <= MAX_CONCURRENCY:
        raise ParameterError(f"--concurrency is {number}, but must be between 1 and {MAX_CONCURRENCY}")
