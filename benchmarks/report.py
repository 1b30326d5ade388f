"""The results in README.md, written from the result files: no number there is typed by hand.

    python -m benchmarks.report

Knows what each benchmark saves; measures nothing. A file that is not there has no row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.common import FOLDER, RESULTS

README = FOLDER.parent / "README.md"
AUDIT = FOLDER.parent / "docs/audit.md"
AUDIT_FILE = "audit_faults.json"
CHECK = FOLDER.parent / "docs/check.md"
CHECK_FILES = ("predictions.json", "hopeless.json")
BEGIN = "<!-- results: written by `python -m benchmarks.report` -->"
END = "<!-- end of results -->"
NOTHING_YET = "Results follow from `make bench`, which measures them on the machine at hand and writes them here."
METHOD = (
    "- Method: the fixed prompts of [prompts.jsonl](benchmarks/prompts.jsonl). Timed is one sequence at a time; texts "
    "are compared with several at once too. The two sides of a ratio took turns, prompt by prompt, in changing order; "
    "it is the median over the pairs, in brackets its 95 % bootstrap interval. Each file has its command line."
)
HEAD = ["| measured | setting | result | file |", "|---|---|---|---|"]

FAULTS_HEAD = [
    "| fault | seen in | total variation | found | median tokens | theory | mostly by the bet on |",
    "|---|---|---|---|---|---|---|",
]

PREDICTIONS_HEAD = [
    "| settings | number | within 10 % | inside the interval | median error | measured twice: within 10 % |",
    "|---|---|---|---|---|---|",
]

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


def main() -> None:
    README.write_text(put(render(read_results(RESULTS)), README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{README.name}: results written")
    AUDIT.write_text(put(render_faults(RESULTS), AUDIT.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{AUDIT.name}: results written")
    CHECK.write_text(put(render_predictions(RESULTS), CHECK.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{CHECK.name}: results written")


def read_results(folder: Path) -> dict[str, Document]:
    """The result files that are there, by benchmark, in the table's order."""
    return {name: json.loads(path.read_text()) for name in ROWS if (path := folder / f"{name}.json").exists()}


def put(block: str, text: str) -> str:
    """The text with this block between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{README.name} lacks the markers of its results: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"


def render(results: Mapping[str, Document]) -> str:
    """The configuration of the tests, then the table."""
    if not results:
        return NOTHING_YET
    rows = [
        f"| {' | '.join(row)} | [{name}.json](benchmarks/results/{name}.json) |"
        for name, document in results.items()
        for row in ROWS[name](document)
    ]
    return "\n".join([*configuration(results), "", *HEAD, *rows])


def render_faults(folder: Path) -> str:
    """What the sequential test found of each fault, worst first, and how often it accused a sound engine."""
    path = folder / AUDIT_FILE
    if not path.exists():
        return "Results follow from `python -m benchmarks.audit_faults`."
    document = json.loads(path.read_text())
    plan, clean = document["plan"], document["clean"]
    threshold = document["promised_total_variation"]
    promised = [row for row in document["rows"] if row["total_variation"] >= threshold]
    share = sum(row["num_found"] for row in promised) / sum(row["num_runs"] for row in promised)
    alarms = (
        f"- False alarms: **{clean['num_alarms']}** in {clean['num_runs']} runs of {clean['num_tokens']:,} tokens of a "
        f"sound engine, at alpha {plan['alpha']:g}."
    )
    found = (
        f"- Of the {len(promised)} faults of a total variation of {threshold:g} or more, **{share:.1%}** of the runs "
        f"were refuted within {plan['num_tokens']:,} tokens; of each fault {min(row['num_found'] for row in promised)} "
        f"of {plan['num_runs']} at least."
    )
    rows = sorted(document["rows"], key=lambda row: -row["total_variation"])
    return "\n".join(
        [*configuration({"audit_faults": document})[:-1], alarms, found, "", *FAULTS_HEAD, *map(fault, rows)]
    )


def fault(row: Mapping[str, Any]) -> str:
    tokens = "" if row["median_tokens"] is None else f"{row['median_tokens']:,.0f}"
    cells = (
        row["fault"],
        row["seen_in"],
        f"{row['total_variation']:.3f}",
        f"{row['num_found']} of {row['num_runs']}",
        tokens,
        f"{row['theory_tokens']:,.0f}",
        f"{row['bet'] or ''}{' (told what was rejected)' if row['is_told_rejections'] else ''}",
    )
    return f"| {' | '.join(cells)} |"


def render_predictions(folder: Path) -> str:
    """How often predictions were right, by what was predicted; and what pairs that cannot pay were told."""
    known = {path.stem: json.loads(path.read_text()) for name in CHECK_FILES if (path := folder / name).exists()}
    if "predictions" not in known:
        return "Results follow from `python -m benchmarks.predictions`."
    summary = known["predictions"]["summary"]
    lines = [*configuration(known)[:-1], *choices(known["predictions"])]
    if "hopeless" in known:
        lines.append(told(known["hopeless"]))
    return "\n".join([*lines, "", *PREDICTIONS_HEAD, *(predicted(*item) for item in summary.items())])


def told(document: Document) -> str:
    """What the whole checklist said of pairs that were made not to pay, and of some that do."""
    hopeless, paying = ([row for row in document["rows"] if row["pays"] == pays] for pays in (False, True))
    slower = sum(max(row["measured"].values()) < 1 for row in hopeless)
    return (
        f'- Pairs made not to pay: {len(hopeless)}, with checklists of a few seconds. Told "do not speculate" with the '
        f"draft model: **{document['num_told_off']}**; because it does not pay, {document['num_told_for_sure']}, the "
        f"others because it is not shown to. Measured, the draft model alone was slower than plain decoding at every "
        f"depth in {slower} of them. Of {len(paying)} pairs that pay, {document['num_paying_told_off']} were told not "
        f"to use the draft model."
    )


def choices(document: Document) -> Iterator[str]:
    """The depth that was predicted to be fastest beside the one that was."""
    shares = [row["share_of_best"] for row in document["choices"]]
    yield (
        f"- Speed at the depth that was predicted to be fastest over the best that was measured: median "
        f"**{median(shares):.2f}**, worst {min(shares):.2f}, in {len(shares)} cases (pair, temperature, texts at once) "
        f"of which four depths were measured; {sum(share >= 0.95 for share in shares)} of them at 0.95 at least."
    )


def predicted(name: str, part: Mapping[str, Any]) -> str:
    again = part["repeat_share_within_10_percent"]
    cells = (
        name,
        f"{part['num_settings']}",
        f"{part['share_within_10_percent']:.0%}",
        f"{part['share_inside_interval']:.0%}",
        f"{part['median_error']:.1%}",
        "" if again is None else f"{again:.0%} of {part['num_repeated']}",
    )
    return f"| {' | '.join(cells)} |"


def configuration(results: Mapping[str, Document]) -> list[str]:
    """On what the files were measured: one value where all agree, else each with its files."""
    lines = []
    for label, describe in FACTS.items():
        files: dict[str, list[str]] = {}
        for name, document in results.items():
            for value in describe(document):
                files.setdefault(value, []).append(f"`{name}.json`")
        values = list(files) if len(files) < 2 else [f"{value} ({', '.join(names)})" for value, names in files.items()]
        lines += [f"- {label}: {'; '.join(values)}."] if values else []
    return [*lines, METHOD]


def machine(document: Document) -> Iterator[str]:
    hardware = document["provenance"]["hardware"]
    yield (
        f"{hardware['processor']}, {hardware['num_usable_cores']} of {hardware['num_cores']} cores, "
        f"{hardware['memory_bytes'] / 2**30:.0f} GiB, {hardware['system']} {hardware['machine']} "
        f"({' '.join(hardware['flags'])})"
    )


def software(document: Document) -> Iterator[str]:
    versions = document["provenance"]["versions"]
    yield ", ".join(f"{package} {version}" for package, version in versions.items() if package != "outrider")


def revision(document: Document) -> Iterator[str]:
    provenance = document["provenance"]
    commit = provenance["revision"]
    name = commit["commit"][:10] + (" with changes" if commit["modified"] else "") if commit else "a package"
    yield f"Outrider {provenance['versions']['outrider']}, {name}, {provenance['time'][:10]}"


def computation(document: Document) -> Iterator[str]:
    """How the targets were computed; benchmarks that do not vary it do not say it."""
    engines = [part["engine"] for part in (document, *document.get("rows", ())) if "engine" in part]
    targets = [engine["target"] for engine in engines]
    yield from dict.fromkeys(f"{target['dtype']}, {target['num_threads']} threads" for target in targets)


FACTS = {"Machine": machine, "Software": software, "Revision": revision, "Target": computation}


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
    "verification": verification_rows,
    "plain": plain_rows,
    "overhead": overhead_rows,
    "startup": startup_rows,
}


if __name__ == "__main__":
    main()
