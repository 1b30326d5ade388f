"""What each benchmark's result file says in the table of README.md: a row for a finding. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

TARGETS = {
    "bundled": "bundled target",
    "0.44b": "0.44 B target, random weights",
    "152k": "vocabulary of 152,000, random weights",
}
DRAFTERS = {"model": "draft model", "suffix": "suffix automaton"}
COMMANDS = {"help": "`outrider --help`", "run": "`outrider run`, bundled pair"}

Document = Mapping[str, Any]


class Row(NamedTuple):
    """One line of the table."""

    measured: str
    setting: str
    result: str


def speculation_rows(document: Document) -> Iterator[Row]:
    """Of each drafter and temperature what the policy made of it, and the fastest fixed depth."""
    for drafter, temperature in sorted({(row["drafter"], row["temperature"]) for row in document["rows"]}):
        rows = [row for row in document["rows"] if (row["drafter"], row["temperature"]) == (drafter, temperature)]
        fixed = [row for row in rows if row["depth"] != "auto"]
        fastest = max(fixed, key=lambda row: row["speedup"]["median"])
        notes = {"auto": "auto (default)"}
        notes[fastest["depth"]] = f"{fastest['depth']} (fastest of {', '.join(str(row['depth']) for row in fixed)})"
        for row in rows:
            if row["depth"] in notes:
                yield Row(
                    "speedup over plain decoding",
                    f"{DRAFTERS[drafter]}, {how(temperature)}, depth {notes[row['depth']]}",
                    f"{ratio(row['speedup'])}, {row['acceptance_length']:.2f} tokens a target forward",
                )


def drafting_rows(document: Document) -> Iterator[Row]:
    """The cascade over six workloads, and each full-price pair."""
    yield Row(
        "speedup over plain decoding, policy `auto`",
        "bundled pair, cascade, greedy: geometric mean of six workloads",
        ratio(document["cascade_geometric_mean"]),
    )
    for row in document["rows"]:
        if row["pair"] != "bundled" and row["concurrency"] == 1:
            yield Row(
                "speedup over plain decoding, policy `auto`",
                f"0.5 B full-price pair, agreement about {row['pair'].partition('-')[2]}, {how(row['temperature'])}",
                f"{ratio(row['speedup']['auto'])}, {row['seconds_over_best_fixed']:.2f} of depth {row['best_fixed']}, "
                "the best fixed one in hindsight",
            )
    shares = sorted(row["seconds_over_best_fixed"] for row in document["rows"])
    yield Row(
        "policy `auto` over the best fixed depth in hindsight",
        f"{len(shares)} cases: pairs, workloads, temperatures, texts at once",
        f"median **{median(shares):.2f}**, from {shares[0]:.2f} to {shares[-1]:.2f}",
    )


def batching_rows(document: Document) -> Iterator[Row]:
    plain = document["plain"]
    yield Row(
        "tokens per second, plain decoding",
        f"bundled target, {plain['num_sequences']} texts at once over one by one",
        ratio(plain["speedup"]),
    )
    for temperature in sorted({row["temperature"] for row in document["rows"]}):
        rows = [row for row in document["rows"] if row["temperature"] == temperature]
        numbers = ", ".join(str(row["concurrency"]) for row in rows)
        yield Row(
            "speedup over plain decoding, policy `auto`",
            f"bundled pair, cascade, {how(temperature)}, {numbers} texts at once",
            ", ".join(f"**{row['seconds_ratio']:.2f}x**" for row in rows),
        )
        fed = [row for row in document.get("steady", []) if row["temperature"] == temperature]
        if fed:
            yield Row(
                "speedup over plain decoding, policy `auto`, the next text beginning where one ends",
                f"bundled pair, cascade, {how(temperature)}, {', '.join(str(row['concurrency']) for row in fed)} texts "
                "at once",
                ", ".join(ratio(row["speedup"]) for row in fed),
            )


def adversarial_rows(document: Document) -> Iterator[Row]:
    for row in document["rows"]:
        yield Row(
            "speed with a bad drafter over plain decoding, policy `auto`",
            f"bundled target, T = 1, {row['drafter']}",
            ratio(row["speed_over_plain"]),
        )


def plain_rows(document: Document) -> Iterator[Row]:
    for row in document["rows"]:
        ours, theirs = row["tokens_per_second"]["ours"], row["tokens_per_second"]["transformers"]
        yield Row(
            "plain decoding over transformers' `generate`",
            f"{TARGETS[row['target']]}, {how(document['temperature'])}",
            f"{ratio(row['speedup_over_transformers'])}, {ours:.0f} against {theirs:.0f} tokens/s",
        )


def overhead_rows(document: Document) -> Iterator[Row]:
    for row in document["rows"]:
        drafts = f"draft model, depth {row['depth']}" if row["depth"] else "plain"
        yield Row(
            "part of a step outside the models' forwards",
            f"{TARGETS[row['target']]}, {how(row['temperature'])}, {drafts}",
            f"{100 * row['share_outside_forwards']:.1f} % of {row['milliseconds_per_step']['all']:.1f} ms",
        )


def identity_rows(document: Document) -> Iterator[Row]:
    temperatures = ", ".join(f"{temperature:g}" for temperature in document["temperatures"])
    for row in document["rows"]:
        yield Row(
            "texts that differ from plain decoding's, be it in the last bit of a log-probability",
            f"{row['pair']} pair, {row['dtype']}: chains, trees, cascade and none, 1 to 12 texts at once, "
            f"{row['num_preempted']} preempted, T = {temperatures}",
            f"**{len(row['divergences'])}** of {row['texts_compared']:,} ({row['tokens_compared']:,} tokens), "
            f"level `{row['engine']['exactness']}`",
        )


def exactness_price_rows(document: Document) -> Iterator[Row]:
    names = {"plain": "plain", "chain": "chains of 4", "tree": "trees of 8 nodes"}
    for row in document["rows"]:
        taken = row["step_ms"]
        yield Row(
            "a step at level `bitwise` over one at `seed`",
            f"bundled pair, {names[row['name']]}, {how(row['temperature'])}",
            f"{ratio(row['price'])}, {taken['bitwise']:.2f} against {taken['seed']:.2f} ms; "
            f"{row['texts_parted']} texts parted",
        )


def trees_rows(document: Document) -> Iterator[Row]:
    """Of each temperature, the trees that do best at each number of nodes."""
    for temperature in sorted({row["temperature"] for row in document["rows"]}):
        trees = [row for row in document["rows"] if row["temperature"] == temperature and row["max_children"] > 1]
        numbers = sorted({row["num_nodes"] for row in trees})
        best = [
            max((row["over_chain"] for row in trees if row["num_nodes"] == number), key=lambda over: over["median"])
            for number in numbers
        ]
        yield Row(
            "tokens a target forward, trees over chains at equal nodes",
            f"bundled pair, {how(temperature)}, {', '.join(map(str, numbers))} nodes, best of 2 to 4 children",
            ", ".join(map(ratio, best)),
        )


def trees_auto_rows(document: Document) -> Iterator[Row]:
    for row in document["rows"]:
        picked = row["over_chain_where_picked"]
        where = f"; {ratio(picked)} where it picked them" if picked else ""
        yield Row(
            "tokens per second, trees allowed to the policy over chains only",
            f"{row['pair']} pair, {how(row['temperature'])}",
            f"{ratio(row['over_chain'])}, picked on {row['num_picked']} of {row['num_prompts']} prompts{where}",
        )


def verification_rows(document: Document) -> Iterator[Row]:
    for row in document["rows"]:
        lengths = row["acceptance_length"]
        yield Row(
            "tokens a target forward, block over coupled verification",
            f"bundled pair, {DRAFTERS[document['drafter']]}, {how(row['temperature'])}, depth {row['depth']}",
            f"**{row['ratio']:.2f}x**, {lengths['block']:.2f} against {lengths['coupled']:.2f}",
        )


def startup_rows(document: Document) -> Iterator[Row]:
    for row in document["rows"]:
        seconds = row["all_seconds"]
        yield Row(
            "from the shell to the first text",
            COMMANDS[row["command"]],
            f"{row['median_seconds']:.2f} s ({min(seconds):.2f} to {max(seconds):.2f} s in {len(seconds)} starts)",
        )


def how(temperature: float) -> str:
    return f"T = {temperature:g}" if temperature else "greedy"


def ratio(values: Mapping[str, float]) -> str:
    return f"**{values['median']:.2f}x** [{values['low']:.2f}, {values['high']:.2f}]"


ROWS = {
    "speculation": speculation_rows,
    "drafting": drafting_rows,
    "batching": batching_rows,
    "adversarial": adversarial_rows,
    "identity": identity_rows,
    "exactness_price": exactness_price_rows,
    "trees": trees_rows,
    "trees_auto": trees_auto_rows,
    "verification": verification_rows,
    "plain": plain_rows,
    "overhead": overhead_rows,
    "startup": startup_rows,
}
