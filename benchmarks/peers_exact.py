"""Whether peers write the target's own distribution when they sample: speed is comparable only among those that do.

    python -m benchmarks.peers_exact [--peers NAME,NAME] [--settings KIND,KIND]

Each peer writes the bundled target's texts at T = 1 in each of its settings, with a seed for each text. Its tokens are
bet on by the audit's sequential test, which asks our target and draft what they would have said: at alpha 0.001, one
sound setting in a thousand is refuted. A setting that is not refuted is exact as far as was tested, and no further.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks import common
from benchmarks.common import machine_to_ourselves
from outrider import LLM, SamplingParams, bundled_pair
from outrider.audit.distribution import Witnesses, feed_text
from outrider.audit.forward import TeacherForcing
from outrider.audit.replay import Emitted, Rounding
from outrider.audit.sequential import SequentialTest
from outrider.audit.texts import drafters_of
from outrider.bench.peers.engine import Asked
from outrider.bench.peers.peer import PeerEngine, Work, load_peer, parse_names
from outrider.bench.peers.worker import PeerError
from outrider.bench.provenance import provenance, write_json
from outrider.bench.workloads import WORKLOADS, read_workloads
from outrider.draft.model import ModelDrafter
from outrider.runtime.numerics import TOLERANCES


def examine(llm: LLM, peer: PeerEngine, setting: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Bet on texts until the claim is refuted, or there are no more."""
    assert llm.tokenizer
    drafter = next(each for each in drafters_of(llm).values() if isinstance(each, ModelDrafter))
    chunk = llm.config.prefill_chunk
    witnesses = Witnesses(
        TeacherForcing(runtime=llm.target, pool=llm.engine.pool, prefill_chunk=chunk),
        TeacherForcing(runtime=drafter.runtime, pool=drafter.pool, prefill_chunk=chunk, may_end=True),
    )
    test, rounding = SequentialTest(), Rounding(TOLERANCES[str(llm.target.options.dtype)])
    prompts = [prompt for workload in read_workloads(WORKLOADS) for prompt in workload.prompts]
    for number in range(arguments.texts):
        prompt, params = (
            prompts[number % len(prompts)],
            SamplingParams(temperature=1.0, seed=number, max_tokens=arguments.max_tokens, ignore_eos=True),
        )
        (sequence,) = llm.start([prompt.text], params)  # for its request, with everything settled
        llm.engine.cancel(sequence.request.request_id)
        request = sequence.request
        asked = Asked(request.prompt_token_ids, request.params.max_tokens, number)
        (token_ids,) = peer.write([asked], 1.0, setting).token_ids
        feed_text(test, Emitted(request, token_ids), witnesses, rounding)
        if test.is_rejected:
            break
    return {
        "peer": peer.name, "setting": setting, "is_refuted": test.is_rejected, "num_tokens": test.num_tokens,
        "num_tokens_at_alarm": test.num_tokens_at_alarm, "peak": test.peak, "strongest_bet": test.strongest_bet,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=parse_names, default=parse_names("all"))
    parser.add_argument("--settings", type=lambda text: text.split(","), help="only those that begin so")
    parser.add_argument("--texts", type=int, default=36)
    parser.add_argument("--max-tokens", type=int, default=96)
    arguments = parser.parse_args()
    began, rows = provenance(), list[dict[str, Any]]()
    skipped: dict[str, str] = {}
    with machine_to_ourselves():
        pair = bundled_pair()
        llm = LLM(pair.target, draft=pair.draft)
        options = llm.target.options
        work = Work(
            target=pair.target, draft=pair.draft, dtype=str(options.dtype), num_threads=options.num_threads or 1
        )
        for name in arguments.peers:
            try:
                peer = load_peer(name, work)
            except PeerError as error:
                skipped[name] = str(error)
                continue
            for setting in peer.settings:
                if arguments.settings and not setting.startswith(tuple(arguments.settings)):
                    continue
                start = time.monotonic()
                rows.append(examine(llm, peer, setting, arguments))
                print(f"{rows[-1]} ({time.monotonic() - start:.0f} s)", flush=True)
            peer.close()
    document = {"benchmark": "peers_exact", "provenance": began, "skipped": skipped, "rows": rows}
    write_json(common.RESULTS / "peers_exact.json", document)


if __name__ == "__main__":
    main()
