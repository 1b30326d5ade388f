"""Are predictions true? A grid of fixed settings: what `check`'s measurements predict, and what comes of it.

    python -m benchmarks.predictions --part bundled        and 0.5b-greedy, 0.5b-sampled, 0.5b-4, 0.5b-8
    python -m benchmarks.predictions                       all parts, one after the other

Every other prompt of the six workloads is for predicting: the target writes, the draft is asked what it would have
guessed there, and steps are timed as `check` times them. The other prompts are for measuring: all settings of a target,
a temperature and a number of texts at once decode them in turns, in random order, plain decoding twice as often as each
of the others, since all are held against it; as many texts as are asked for are decoded in every step that counts. A
turn is about as many texts as are decoded at once, no more: a machine is not the same all the time, and what one
setting meets all are to meet. What is marked so is measured twice. Steps of so many texts at once are timed right
before these are measured.

The full-price pairs have one target and five drafts of one shape, which differ in what they guess and not in what they
cost: one engine serves them, each draft in its turn, and steps are timed with one of them. Each part saves what it has
found, so that one may be run again without the others.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import FOLDER, RESULTS, machine_to_ourselves, save
from benchmarks.judged import choices, draw, judge, summarise
from benchmarks.stands import SHARED_TARGET, Pairs, load_bundled, load_full_price
from benchmarks.steady import MAX_FOREIGN_SHARE, Company, SteadyRun, run_steadily, run_undisturbed
from outrider import LLM, SamplingParams
from outrider.bench.provenance import provenance
from outrider.bench.workloads import MIN_TOKENS, WORKLOADS, find_loop, read_workloads
from outrider.check.budget import Budget
from outrider.check.texts import Texts, Watch
from outrider.predict.agreement import KnownText, Teacher, model_trace
from outrider.predict.costs import Timing
from outrider.predict.prediction import Predictor
from outrider.predict.together import Filling
from outrider.predict.trace import Trace

PLAIN = ("plain", 0)
MEASURED = FOLDER.parent / "build/predictions"
MAX_ROWS = 128
LOADS = ((0.0, 1), (0.7, 1), (1.0, 1), (0.0, 4), (1.0, 4), (0.0, 8), (1.0, 8))
# Times that plain decoding takes its turn while each other setting takes one.
NUM_PLAIN = 2
# A full-price target takes a second to read 250 tokens: of its prompts one whole piece is kept, which is read once for
# all settings, and the token after it. And where it writes one text at a time, fewer texts are measured.
MAX_PROMPT_TOKENS, NUM_ALONE = 129, 12

Setting = tuple[str, int]


class Block(NamedTuple):
    """Settings that take turns: those of one target, temperature and number of texts at once.

    Attributes:
        depths: of every pair.
        num_rounds: of all settings.
        repeated: settings that are measured once more, as plain decoding is.
    """

    temperature: float
    num_sequences: int
    depths: tuple[int, ...]
    num_rounds: int
    repeated: tuple[Setting, ...] = ()


class Part(NamedTuple):
    """What is run at once.

    Attributes:
        target: whose pairs.
        num_tokens: of a text at most.
        seconds: to time steps for, of each number of texts at once.
    """

    target: str
    num_tokens: int
    seconds: float
    blocks: tuple[Block, ...]


def _bundled(temperature: float, num_sequences: int) -> Block:
    depths = (1, 2, 4, 8)
    num_rounds = 1 if num_sequences == 1 else 2
    return Block(temperature, num_sequences, depths, num_rounds, (("bundled", 2), ("bundled", 4)))


def _full_price(temperature: float, num_sequences: int, *depths: int) -> Block:
    repeated = tuple((f"{SHARED_TARGET}-{each}", 4) for each in (0.6, 0.95)) if temperature == 0 else ()
    return Block(temperature, num_sequences, depths, 1, repeated)


PARTS = {
    "bundled": Part("bundled", 96, 40.0, tuple(_bundled(temperature, number) for temperature, number in LOADS)),
    "0.5b-greedy": Part(SHARED_TARGET, 32, 30.0, (_full_price(0.0, 1, 1, 2, 4, 8),)),
    "0.5b-sampled": Part(SHARED_TARGET, 32, 30.0, (_full_price(1.0, 1, 2, 4),)),
    "0.5b-4": Part(SHARED_TARGET, 32, 80.0, (_full_price(1.0, 4, 1, 4),)),
    "0.5b-8": Part(SHARED_TARGET, 32, 120.0, (_full_price(0.0, 8, 1, 4),)),
}


class Measured(NamedTuple):
    """Of a part, all that conclusions are drawn from; kept, so that they can be drawn again.

    Attributes:
        began: provenance.
        engine: as it describes itself.
        timings: of steps.
        computed_rows: by the target, for 1 row, 2 rows and so on.
        blocks: of each, traces by pair of the texts that are predicted from and measured on, and the runs.
        walk: through the target's forwards, not yet begun, as `Runtime.rows_in_turn` gives it; each text needs a copy.
            None, as of parts that were measured before: every step computes its own rows.
        change_seconds: what a change of the number of rows takes.
    """

    began: dict[str, Any]
    engine: dict[str, Any]
    timings: list[Timing]
    computed_rows: list[int]
    blocks: list[tuple[Block, dict[str, tuple[list[Trace], list[Trace]]], dict[Setting, list[list[SteadyRun]]]]]
    walk: Callable[[int], int] | None = None
    change_seconds: float = 0.0


class Shares(NamedTuple):
    """Texts of one temperature, of different prompts."""

    predicted_from: list[KnownText]
    measured_on: list[KnownText]


def write_texts(llm: LLM, temperature: float, num_tokens: int, max_prompt_tokens: int | None = None) -> Shares:
    """What the target writes, up to where it falls into a loop; of each workload one share gets every other prompt."""
    assert llm.tokenizer is not None
    rows = zip(*(workload.prompts for workload in read_workloads(WORKLOADS)), strict=True)
    prompts = [
        (number % 2, llm.tokenizer.encode(prompt.text)[:max_prompt_tokens])
        for number, row in enumerate(rows)
        for prompt in row
    ]
    params = [
        SamplingParams(max_tokens=num_tokens, temperature=temperature, seed=place) for place in range(len(prompts))
    ]
    shares = Shares([], [])
    written = llm.generate([token_ids for _, token_ids in prompts], params, depth=0)
    for place, (asked, generation) in enumerate(zip(params, written, strict=True)):
        loop = find_loop(generation.token_ids)
        token_ids = generation.token_ids[: loop.start] if loop else generation.token_ids
        if len(token_ids) >= MIN_TOKENS:
            params_of_it = replace(asked, max_tokens=len(token_ids))
            shares[prompts[place][0]].append(
                KnownText(f"prompt {place}", "", params_of_it, generation.prompt_token_ids, token_ids)
            )
    return shares


def traces_of(pairs: Pairs, pair: str, texts: Sequence[KnownText]) -> list[Trace]:
    """What a pair's draft would have guessed."""
    draft = pairs.drafts[pair]
    vocab_size = min(draft.vocab_size, draft.runtime.config.vocab_size)
    return [
        model_trace(Teacher(draft.runtime, draft.pool), None, text, vocab_size, draft.runtime.config.max_context)
        for text in texts
    ]


def time_steps(pairs: Pairs, part: Part, shares: dict[float, Shares], num_sequences: int) -> None:
    """As `check` does, with one draft of the shape that all have."""
    temperatures = {block.temperature for block in part.blocks if block.num_sequences == num_sequences}
    texts = Texts([text for each in sorted(temperatures) for text in shares[each].predicted_from])
    num_before, company = len(pairs.stand.timings), Company()
    pairs.stand.time_steps(texts, [num_sequences], Budget(part.seconds), 1.0, Watch())
    if company.share > MAX_FOREIGN_SHARE:
        print(f"others had {company.share:.0%} of the machine: timing once more", flush=True)
        del pairs.stand.timings[num_before:]
        pairs.stand.time_steps(texts, [num_sequences], Budget(part.seconds), 1.0, Watch())
    print(f"steps timed, {num_sequences} at once; others had {company.share:.1%} of the machine", flush=True)


def measure(pairs: Pairs, block: Block, texts: Sequence[KnownText]) -> dict[Setting, list[list[SteadyRun]]]:
    """Of each setting the rounds, each of the runs of all queues: settings take turns queue by queue."""
    generator = random.Random(0)
    queues = queues_of(texts, block.num_sequences)
    settings = [(pair, depth) for pair in pairs.drafts for depth in block.depths]
    found: dict[Setting, list[list[SteadyRun]]] = {setting: [] for setting in (PLAIN, *settings)}
    warm_up(pairs, block, queues[0])
    for chosen in [settings] * block.num_rounds + [[*block.repeated]] * bool(block.repeated):
        for setting in (PLAIN, *chosen):
            found[setting].append([])
        turns = [PLAIN] * NUM_PLAIN + [*chosen]
        for queue in queues:
            for pair, depth in generator.sample(turns, len(turns)):
                pairs.use(pair)
                run = run_undisturbed(pairs.stand.llm, queue, block.num_sequences, depth)
                found[pair, depth][-1].append(run)
    return found


def queues_of(texts: Sequence[KnownText], num_sequences: int) -> list[list[KnownText]]:
    """No more texts in any than are decoded at once, and hardly fewer: what is too few for a step is begun again."""
    num_queues = -(-len(texts) // num_sequences)
    return [[*texts[number::num_queues]] for number in range(num_queues)]


def warm_up(pairs: Pairs, block: Block, queue: Sequence[KnownText]) -> None:
    """Each number of rows once: what is done only once is nobody's to pay for."""
    pairs.use(next(iter(pairs.drafts)))
    few = [text._replace(params=replace(text.params, max_tokens=12), token_ids=text.token_ids[:12]) for text in queue]
    for depth in (0, *block.depths):
        run_steadily(pairs.stand.llm, few[: block.num_sequences], block.num_sequences, depth)


def run_part(part: Part, folder: Path) -> Measured:
    """Everything but what is concluded."""
    began = provenance()
    pairs = load_bundled() if part.target == "bundled" else load_full_price(folder)
    most = MAX_PROMPT_TOKENS if part.target == SHARED_TARGET else None
    shares = {
        temperature: write_texts(pairs.stand.llm, temperature, part.num_tokens, most)
        for temperature in sorted({block.temperature for block in part.blocks})
    }
    print("texts written", flush=True)
    target = pairs.stand.llm.target
    found = Measured(
        began,
        pairs.stand.llm.describe(),
        pairs.stand.timings,
        [target.computed_rows([num_rows]) for num_rows in range(1, MAX_ROWS + 1)],
        [],
        target.rows_in_turn(),
    )
    num_timed = 0
    for block in sorted(part.blocks, key=lambda block: block.num_sequences):
        if block.num_sequences != num_timed:
            num_timed = block.num_sequences
            time_steps(pairs, part, shares, num_timed)
        predicted_from, measured_on = shares[block.temperature]
        if part.target == SHARED_TARGET and block.num_sequences == 1:
            measured_on = measured_on[:NUM_ALONE]
        traces = {
            pair: (traces_of(pairs, pair, predicted_from), traces_of(pairs, pair, measured_on)) for pair in pairs.drafts
        }
        found.blocks.append((block, traces, measure(pairs, block, measured_on)))
        print(f"measured: T = {block.temperature:g}, {block.num_sequences} at once", flush=True)
    return found._replace(change_seconds=pairs.stand.filling.change_seconds)


def rows_of(found: Measured) -> list[dict[str, Any]]:
    """What is predicted from a part's measurements, beside what came of it."""

    def computed(num_rows: int) -> int:
        return found.computed_rows[num_rows - 1]

    filling = Filling(computed, lambda: deepcopy(found.walk) or computed, found.change_seconds)
    predictor = Predictor(found.timings, filling)
    return [
        judge(
            (pair, depth, block.temperature, block.num_sequences),
            predictor,
            traces[pair],
            runs[pair, depth],
            runs[PLAIN],
            block.num_rounds,
        )
        for block, traces, runs in found.blocks
        for pair in traces
        for depth in block.depths
    ]


def say(row: dict[str, Any]) -> None:
    print(
        f"{row['pair']} T={row['temperature']:g} x{row['num_sequences']} depth {row['depth']}: measured "
        f"{row['measured']:.2f}x, predicted {row['predicted']['value']:.2f}x [{row['predicted']['low']:.2f}, "
        f"{row['predicted']['high']:.2f}] ({row['error']:+.1%}); tokens {row['tokens']['error']:+.1%}, "
        f"seconds {row['seconds']['error']:+.1%}, plain {row['plain_seconds']['error']:+.1%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one, or these")
    parser.add_argument("--pairs", type=Path, default=Path("build/pairs"), help="where the full-price pairs are made")
    parser.add_argument("--trial", action="store_true", help="does it run? With few texts, and nothing is kept")
    parser.add_argument("--judge", action="store_true", help="measure nothing: predict again from what was measured")
    arguments = parser.parse_args()
    began = provenance()
    for name in () if arguments.judge else arguments.part or PARTS:
        part = trial_of(PARTS[name]) if arguments.trial else PARTS[name]
        with machine_to_ourselves():
            began_part = time.monotonic()
            found = run_part(part, arguments.pairs)
        print(f"{name}: {time.monotonic() - began_part:.0f} s", flush=True)
        if arguments.trial:
            rows_of(found)
            continue
        MEASURED.mkdir(parents=True, exist_ok=True)
        (MEASURED / f"{name}.pickle").write_bytes(pickle.dumps(found))
        for row in rows_of(found):
            say(row)
    if not arguments.trial:
        conclude(began)


def trial_of(part: Part) -> Part:
    """The same with short texts, little time and one round."""
    blocks = tuple(block._replace(num_rounds=1, repeated=()) for block in part.blocks)
    return part._replace(num_tokens=MIN_TOKENS, seconds=1.0, blocks=blocks)


def conclude(began: dict[str, Any]) -> None:
    """All parts that were measured, and their sum."""
    files = {name: MEASURED / f"{name}.pickle" for name in PARTS}
    parts: dict[str, Any] = {}
    for name, path in files.items():
        if path.exists():
            found = pickle.loads(path.read_bytes())  # noqa: S301 - our own file
            parts[name] = {"provenance": found.began, "engine": found.engine, "rows": rows_of(found)}
    rows = [row for part in parts.values() for row in part["rows"]]
    summary = summarise(rows)
    print(json.dumps(summary["all"], indent=1), flush=True)
    save("predictions", began, {"summary": summary, "choices": choices(rows), "parts": parts})
    draw(rows, RESULTS / "predictions.svg")


if __name__ == "__main__":
    main()
