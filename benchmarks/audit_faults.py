"""How soon does the sequential test find an engine's fault, and does it ever accuse a sound one?

    python -m benchmarks.audit_faults --seconds 150    # again and again, until it says that it is done

Each fault of tests/audit/faults.py writes 50 runs of 10,000 tokens over synthetic models whose laws are known, a sound
engine 200 runs of 20,000; each run is tested at alpha 0.001. Parts that are done are kept in the result file, so that
a run may be short; `--fresh` begins again. Theory says that no test can be sooner, on average, than ln(1/alpha) over
the divergence of the faulty law from the right one, for which one would have to know the fault and see its state.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from statistics import median
from typing import Any

from benchmarks import common
from benchmarks.common import save
from outrider.audit.sequential import SequentialTest
from outrider.bench.provenance import provenance
from tests.audit.faults import FAULTS
from tests.audit.faulty import Engine, Texts, write

ALPHA = 1e-3
# Total variation from which on a fault should be found.
PROMISED = 0.02
NUM_RUNS, NUM_TOKENS = 50, 10_000
NUM_CLEAN_RUNS, NUM_CLEAN_TOKENS = 200, 20_000
# Runs that are written side by side: their log-probabilities are kept.
MANY = 25
# Tokens that are fed before it is asked whether that was enough.
PIECE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other part after so many")
    parser.add_argument("--fresh", action="store_true", help="forget the parts that are done")
    arguments = parser.parse_args()
    began, started = provenance(), time.perf_counter()
    document = begin_or_go_on(fresh=arguments.fresh)
    for step in steps(document):
        if time.perf_counter() - started > arguments.seconds:
            break
        print(step, flush=True)
        take(step, document)
    document["is_complete"] = not any(True for _ in steps(document))
    document["seconds"] += time.perf_counter() - started
    save("audit_faults", began, document)


def begin_or_go_on(*, fresh: bool) -> dict[str, Any]:
    path = common.RESULTS / "audit_faults.json"
    if path.exists() and not fresh:
        document = json.loads(path.read_text())
        return {"promised_total_variation": PROMISED} | {
            key: value for key, value in document.items() if key not in ("benchmark", "provenance")
        }
    clean = {"num_runs": 0, "num_tokens": NUM_CLEAN_TOKENS, "num_alarms": 0, "highest_log_evidence": 0.0}
    plan = {"alpha": ALPHA, "num_runs": NUM_RUNS, "num_tokens": NUM_TOKENS}
    return {"plan": plan, "promised_total_variation": PROMISED, "clean": clean, "rows": [], "seconds": 0.0}


def steps(document: dict[str, Any]) -> list[str]:
    """What is left to do: faults by their names, and runs of a sound engine."""
    done = {row["fault"] for row in document["rows"]}
    left = [fault.name for fault in FAULTS if fault.name not in done]
    num_left = (NUM_CLEAN_RUNS - document["clean"]["num_runs"]) // MANY
    return left + [Engine.name] * num_left


def take(step: str, document: dict[str, Any]) -> None:
    if step == Engine.name:
        clean = document["clean"]
        texts = write(Engine(), num_runs=MANY, num_tokens=NUM_CLEAN_TOKENS, seed=1_000 + clean["num_runs"])
        tests = [tested(texts, run) for run in range(MANY)]
        clean["num_runs"] += MANY
        clean["num_alarms"] += sum(test.is_rejected for test in tests)
        clean["highest_log_evidence"] = max(clean["highest_log_evidence"], *(test.peak for test in tests))
        return
    (fault,) = (fault for fault in FAULTS if fault.name == step)
    document["rows"].append(row_of(fault))


def row_of(fault: type[Engine]) -> dict[str, Any]:
    found: list[int] = []
    bets: Counter[str] = Counter()
    variations, divergences = [], []
    for seed in range(NUM_RUNS // MANY):
        texts = write(fault(), num_runs=MANY, num_tokens=NUM_TOKENS, seed=seed)
        variations.append(texts.total_variation)
        divergences.append(texts.divergence)
        for test in (tested(texts, run) for run in range(MANY)):
            if test.num_tokens_at_alarm is not None:
                found.append(test.num_tokens_at_alarm)
                bets["a token that the target cannot draw" if math.isinf(test.peak) else test.strongest_bet] += 1
    divergence = sum(divergences) / len(divergences)
    return {
        "fault": fault.name,
        "seen_in": fault.where,
        "total_variation": sum(variations) / len(variations),
        "num_runs": NUM_RUNS,
        "num_found": len(found),
        # Over all runs: one that was not found counts as later than any.
        "median_tokens": median([*found, *[math.inf] * (NUM_RUNS - len(found))]) if 2 * len(found) > NUM_RUNS else None,
        "theory_tokens": math.log(1 / ALPHA) / divergence if math.isfinite(divergence) else 1.0,
        "bet": bets.most_common(1)[0][0] if bets else None,
        "is_told_rejections": fault.tells_rejected,
    }


def tested(texts: Texts, run: int) -> SequentialTest:
    """A run fed until it is refuted, or to its end."""
    test = SequentialTest(ALPHA)
    for begin in range(0, texts.token_ids.shape[1], PIECE):
        test.feed(*texts.part(run, begin, begin + PIECE))
        if test.is_rejected:
            break
    return test


if __name__ == "__main__":
    main()
