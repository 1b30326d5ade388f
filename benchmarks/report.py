"""The results in README.md, written from the result files: no number there is typed by hand.

    python -m benchmarks.report

Knows what each benchmark saves; measures nothing. A file that is not there has no row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report_floors
from benchmarks.common import FOLDER, RESULTS
from benchmarks.report_rows import ROWS, Document

README = FOLDER.parent / "README.md"
AUDIT = FOLDER.parent / "docs/audit.md"
AUDIT_FILE = "audit_faults.json"
CHECK = FOLDER.parent / "docs/check.md"
CHECK_FILES = ("predictions.json", "hopeless.json")
PERFORMANCE = FOLDER.parent / "docs/performance.md"
FLOORS_FILE = "floors.json"
PEERS_FILE, EXACT_FILE = "peers.json", "peers_exact.json"
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

QUANTISED = FOLDER.parent / "docs/quantisation.md"
QUANTISED_FILE = "quantised.json"
QUANTISED_HEAD = ["| rows in a forward | original, ms | int8, ms | int8 is faster |", "|---|---|---|---|"]

PREDICTIONS_HEAD = [
    "| settings | number | within 10 % | inside the interval | median error | measured twice: within 10 % |",
    "|---|---|---|---|---|---|",
]


def main() -> None:
    README.write_text(put(render(read_results(RESULTS)), README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{README.name}: results written")
    AUDIT.write_text(put(render_faults(RESULTS), AUDIT.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{AUDIT.name}: results written")
    CHECK.write_text(put(render_predictions(RESULTS), CHECK.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{CHECK.name}: results written")
    PERFORMANCE.write_text(put(render_floors(RESULTS), PERFORMANCE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PERFORMANCE.name}: results written")
    QUANTISED.write_text(put(render_quantised(RESULTS), QUANTISED.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{QUANTISED.name}: results written")


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


def render_floors(folder: Path) -> str:
    """What steps take and could take; each part names the revision that it was measured at."""
    path = folder / FLOORS_FILE
    if not path.exists():
        return report_floors.NOTHING_YET
    document = json.loads(path.read_text())
    peers, exact, quantised = (
        json.loads(beside.read_text()) if beside.exists() else None
        for beside in (folder / PEERS_FILE, folder / EXACT_FILE, folder / QUANTISED_FILE)
    )
    parts = {f"beside peers: {name}": part for name, part in peers["parts"].items()} if peers else {}
    parts |= {"peers' texts": exact} if exact else {}
    parts |= {"int8 target": quantised} if quantised else {}
    lines = configuration(document["parts"] | parts, "{}")[:-1]
    return "\n".join([*lines, "", *report_floors.render(document, peers, exact, quantised)])


def render_quantised(folder: Path) -> str:
    """Forwards and texts of an int8 target beside its original's."""
    path = folder / QUANTISED_FILE
    if not path.exists():
        return "Results follow from `python -m benchmarks.quantised build/pair`."
    document = json.loads(path.read_text())
    lines = configuration({"quantised": document})[:-1]
    size = f"{document['num_parameters']['target'] / 1e6:,.0f} million parameters, context {document['context']}"
    dtypes = ", ".join(
        f"{name} computed in {engine['target']['dtype']}" for name, engine in document["engines"].items()
    )
    levels = ", ".join(f"{name} {engine['exactness']}" for name, engine in document["engines"].items())
    lines.append(f"- Target: {size}; {dtypes}. Level: {levels}.")
    for row in document["texts"]:
        ratio = row["ratio"]
        speed = f"{row['tokens_per_second']:.1f} tokens/s, {row['accepted']:.2f} tokens a step"
        value = f"{ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        lines.append(f"- {row['what']}: **{value}**, {speed} ({document['prompts']} prompts, greedy).")
    steps = [
        f"| {step['rows']} | {step['original']:.0f} | {step['int8']:.0f} | {step['original'] / step['int8']:.2f}x |"
        for step in document["steps"]
    ]
    return "\n".join([*lines, "", *QUANTISED_HEAD, *steps])


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


def configuration(results: Mapping[str, Document], name_as: str = "{}.json") -> list[str]:
    """On what the files were measured: one value where all agree, else each with its files, named in this way."""
    lines: list[str] = []
    for label, describe in FACTS.items():
        files: dict[str, list[str]] = {}
        for name, document in results.items():
            for value in describe(document):
                files.setdefault(value, []).append(f"`{name_as.format(name)}`")
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
    targets = [engine["target"] for engine in engines if engine and not isinstance(engine, str)]  # else a peer's name
    yield from dict.fromkeys(f"{target['dtype']}, {target['num_threads']} threads" for target in targets)


FACTS = {"Machine": machine, "Software": software, "Revision": revision, "Target": computation}


if __name__ == "__main__":
    main()
