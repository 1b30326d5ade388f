"""What docs/performance.md says of `floors.json`: rates, steps beside their floors, stages of a step, and the goals.

Of `peers.json` it has where we stand beside other engines, of `quantised.json` what an int8 target gains.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from outrider.bench.workloads import ALL

Document = Mapping[str, Any]
Rows = list[str]

NOTHING_YET = "Results follow from `python -m benchmarks.floors`."
NOT_MEASURED = "not measured"
STAGES = ("target", "draft", "sample", "policy", "other")


def render(
    document: Document,
    peers: Document | None = None,
    exact: Document | None = None,
    quantised: Document | None = None,
) -> Rows:
    """The page's tables, without the configuration of the tests; of floors, and of the others where they were measured.

    Args:
        document, peers, exact, quantised: what `floors.json`, `peers.json`, `peers_exact.json` and `quantised.json`
            hold.
    """
    refuted = [row for row in exact["rows"] if row["is_refuted"]] if exact else []
    parts = document["parts"]
    steps_of_loops = parts["loop"]["rows"]
    models = [model for part in parts.values() for model in part.get("models", ())]
    return [
        *("### What the machine can do", "", *machine(parts["machine"]["machine"]), ""),
        *("### A step and its floor", "", *steps(models), "", *left_out(models), ""),
        *("### Where the time of a whole step goes", "", *loop(steps_of_loops), ""),
        *("### The goals", ""),
        *goals(
            {
                **{what: stand(models) for what, stand in OF_STEPS.items()},
                **beside_peers(peers["parts"] if peers else {}, {row["peer"] for row in refuted}),
                REALISED: realised(steps_of_loops),
                INT8: int8(quantised["texts"]) if quantised else NOT_MEASURED,
            }
        ),
        *(("", bets(exact, refuted)) if exact else ()),
    ]


def bets(exact: Document, refuted: list[Document]) -> str:
    """Whose sampled texts are not the target's."""
    found = ", ".join(f"{row['peer']} {row['setting']} (after {row['num_tokens_at_alarm']} tokens)" for row in refuted)
    sound = [
        f"{row['peer']} {row['setting']} ({row['num_tokens']} tokens)" for row in exact["rows"] if row not in refuted
    ]
    return (
        "Peers' texts at T = 1 were bet on, as the audit bets (`peers_exact.json`; alpha 0.001). Refuted, so that what "
        f"they write is not the target's distribution and their speed that of other work: {found or 'none'}. "
        f"Not refuted: {', '.join(sound) or 'none'}."
    )


def head(*names: str) -> Rows:
    return [line(*names), line(*["---"] * len(names))]


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def machine(found: Document) -> Iterator[str]:
    """Reading by how much is read again and again, and products of large matrices."""
    sizes = sorted({row["num_bytes"] for row in found["reading"]})
    rates = {(row["num_threads"], row["num_bytes"]): row["bytes_per_second"] for row in found["reading"]}
    threads = sorted({number for number, _ in rates})
    yield from head("reads again and again, GB/s", *(f"{size >> 20} MiB" for size in sizes))
    for number in threads:
        yield line(f"threads: {number}", *(f"{rates[number, size] / 1e9:.1f}" for size in sizes))
    yield ""
    yield from head("multiplies matrices, threads", "dtype", "10^9 operations/s")
    for row in found["multiplying"]:
        yield line(row["num_threads"], row["dtype"], f"{row['operations_per_second'] / 1e9:.0f}")


def steps(models: list[Document]) -> Iterator[str]:
    """A line for each model, context and number of sequences: milliseconds over the floor, by rows."""
    widths = sorted({row["num_rows"] for model in models for row in model["rows"]})
    names = [f"{width} row{'s' * (width > 1)}" for width in widths]
    yield from head("model", "products of", "context", "sequences", "MB", *names)
    for model in models:
        for case in dict.fromkeys((row["num_past"], row["num_sequences"]) for row in model["rows"]):
            rows = {row["num_rows"]: row for row in model["rows"] if (row["num_past"], row["num_sequences"]) == case}
            megabytes = (rows[widths[0]]["weight_bytes"] + rows[widths[0]]["cache_bytes"]) / 1e6
            cells = [
                f"{rows[width]['ms']:.2f} / {rows[width]['floor']['ms']:.2f} = **{rows[width]['over_floor']:.1f}**"
                for width in widths
            ]
            yield line(title(model), model["multiplied_in"], *case, f"{megabytes:.0f}", *cells)


def title(model: Document) -> str:
    return f"{model['name']} ({model['num_parameters'] / 1e6:,.1f} M)"


def left_out(models: list[Document]) -> Iterator[str]:
    for model in models:
        for case in model["left_out"]:
            yield (
                f"- Not measured, for want of memory: {title(model)} with {case['num_sequences']} sequences after "
                f"{case['num_past']} tokens, which may take {case['needed_bytes'] / 2**30:.1f} GiB."
            )


def loop(rows: list[Document]) -> Iterator[str]:
    """Milliseconds of a step of the engine."""
    yield from head("pair", "", "steps", "tokens a step", "ms a step", *STAGES)
    for row in rows:
        how = "greedy" if row["temperature"] == 0 else f"T = {row['temperature']:g}"
        what = "plain" if row["depth"] == 0 else f"draft model, depth {row['depth']}"
        stages = [f"{row['stages_ms'][stage]:.2f}" for stage in STAGES]
        numbers = row["num_steps"], f"{row['tokens_per_step']:.2f}", f"{row['ms']:.2f}"
        yield line(row["pair"], f"{what}, {how}", *numbers, *stages)


def found(models: list[Document], name: str) -> Callable[[int, int, int], Document | None]:
    """The row of a model's step by sequences, rows and context, if it was measured."""
    rows = {
        (row["num_sequences"], row["num_rows"], row["num_past"]): row
        for model in models
        if model["name"] == name
        for row in model["rows"]
    }
    return lambda *step: rows.get(step)


def over_floor(models: list[Document]) -> str:
    row = found(models, "0.5b")(1, 1, 512)
    return f"{row['over_floor']:.2f}, one row after 512 tokens" if row else NOT_MEASURED


def draft_step(models: list[Document]) -> str:
    rows = {name: found(models, name)(1, 1, 512) for name in ("32 M", "32 M, int8")}
    stands = [
        f"{row['ms']:.2f} ms at {name} ({row['floor']['ms']:.2f} is the floor)" for name, row in rows.items() if row
    ]
    return "; ".join(stands) or NOT_MEASURED


def realised(rows: list[Document]) -> str:
    """How much of the ideal speedup there is: that of as many tokens a step, at what forwards and drafts alone take.

    What else a step has is what is lost; where plain decoding loses more of it, it is above 1. Beside it the same where
    to verify a draft took no longer than a plain forward.
    """
    plain = {(row["pair"], row["temperature"]): row for row in rows if row["depth"] == 0}
    stands: list[str] = []
    for row in rows:
        if row["depth"]:
            base, took = plain[row["pair"], row["temperature"]], row["stages_ms"]
            forward = base["stages_ms"]["target"]
            shares = [
                (base["ms"] / row["ms"]) * (target + took["draft"]) / forward for target in (took["target"], forward)
            ]
            where = f"{row['pair']}, depth {row['depth']}, T = {row['temperature']:g}"
            stands.append(f"{where}: {shares[0]:.2f} ({shares[1]:.2f} if verifying were free)")
    return "; ".join(stands) or NOT_MEASURED


def growth(models: list[Document]) -> str:
    """How much faster than its bytes the step of a row grows with context and sequences, at the worst."""
    step = found(models, "0.5b")
    first = step(1, 1, 512)
    others = [row for row in (step(number, 1, context) for number in (1, 8) for context in (512, 4096)) if row]
    if first is None or len(others) < 2:
        return NOT_MEASURED
    shares = {
        (row["num_sequences"], row["num_past"]): row["ms"] / first["ms"] / (num_bytes(row) / num_bytes(first))
        for row in others
    }
    (number, context), worst = max(shares.items(), key=lambda share: share[1])
    return f"{worst:.2f}x at the worst of {len(shares)} (0.5b, {number} sequences after {context} tokens), up to 4,096"


def num_bytes(row: Document) -> int:
    return row["weight_bytes"] + row["cache_bytes"]


def int8(texts: list[Document]) -> str:
    """What an int8 target gains over the one that it was made from."""
    ratios = {row["what"]: as_ratio(row["ratio"]) for row in texts}
    return f"{ratios['int8 over original, speculative']}; plain {ratios['int8 over original, plain']}"


PLAIN = "plain, 0.5 B bf16, tokens/s over the fastest peer"
GREEDY = "speculative greedy, agreement 0.95, 0.8, 0.6, over the best peer at its best setting"
EDIT = "speculative on editing (with a prediction) and repetition, over the best peer"
SAMPLED = "speculative, T = 1, the same three, over the best peer at its best setting"
REALISED = "realised speedup over the ideal one for the acceptance and the costs measured"
CROWD = "8 sequences at once, speculative, over the best peer at 8"
FLOOR = "its step over the floor"
DRAFT = "one draft step, 33 M, context 512"
INT8 = "int8 target over bf16, speculative"
GROWTH = "step time against context 512 to 8k and 1 to 16 sequences, over bytes moved"
GPU = "GPU: plain over the bandwidth limit; speculative over the ideal"
# Of the goals that are about peers, the parts of the comparison that say where we stand, and their temperature.
BESIDE_PEERS = {
    PLAIN: (("plain",), 0.0),
    GREEDY: (("0.95", "0.8", "0.6"), 0.0),
    EDIT: (("edit",), 0.0),
    SAMPLED: (("0.95", "0.8", "0.6"), 1.0),
    CROWD: (("crowd",), 0.0),
}

# What steps alone say.
OF_STEPS: dict[str, Callable[[list[Document]], str]] = {FLOOR: over_floor, DRAFT: draft_step, GROWTH: growth}

# What is asked for, at least and as a goal.
GOALS = (
    (PLAIN, "0.95x", "1.05x"),
    (FLOOR, "1.4", "1.2"),
    (GREEDY, "1.0x", "1.2x"),
    (EDIT, "1.2x", "2x"),
    (SAMPLED, "1.2x", "1.6x"),
    (REALISED, "0.90", "0.95"),
    (CROWD, "1.0x", "1.2x"),
    (DRAFT, "1.5 ms", "0.9 ms"),
    (INT8, "1.2x", "1.4x"),
    (GROWTH, "1.3x", "1.15x"),
    (GPU, "0.6; 0.85", "0.8; 0.95"),
)


def beside_peers(parts: Mapping[str, Document], refuted: Collection[str]) -> dict[str, str]:
    return {what: beside_best(parts, *where, refuted) for what, where in BESIDE_PEERS.items()}


def beside_best(
    parts: Mapping[str, Document], names: tuple[str, ...], temperature: float, refuted: Collection[str] = ()
) -> str:
    """Our ratio to the best peer, in each part that was measured; also to the best of those that are not refuted."""
    stands: list[str] = []
    for name in names:
        found = (
            [each for each in parts[name]["findings"] if each["temperature"] == temperature] if name in parts else []
        )
        # The geometric mean of workloads, where the goal is not about one.
        together = [each for each in found if each["workload"] == ALL and name != "edit"]
        for each in together or [each for each in found if each["workload"] != ALL]:
            label = each["workload"] if name == "edit" else f"{name}" if len(names) > 1 else ""
            values = as_ratio(each["ratio"])
            stands.append(f"{label}{': ' if label else ''}{values} over {each['best_peer']}, {each['setting']}")
            if temperature and each["best_peer"] in refuted:
                others = {peer: ratio for peer, ratio in each["ratios"].items() if peer not in refuted}
                nearest = min(others, key=lambda peer: others[peer]["median"], default=None)
                stands[-1] += ", which is not exact" + (
                    f"; {as_ratio(others[nearest])} over {nearest}" if nearest else ""
                )
    return "; ".join(stands) or NOT_MEASURED


def as_ratio(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def goals(stands: Mapping[str, str]) -> Iterator[str]:
    yield from head("", "at least", "goal", "here")
    for what, least, goal in GOALS:
        yield line(what, least, goal, stands.get(what, NOT_MEASURED))
