"""What a command says of a generation: its JSON, its one-line summary, and text that is safe to show."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the engine is imported when it runs, not when options are read
    from outrider.cli.jobs import Job
    from outrider.engine.llm import LLM, Generation
    from outrider.engine.memory import Ledger
    from outrider.model.tokenizer import Tokenizer
    from outrider.request import TokenLogProbs

STDOUT = "-"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters that a model may write and a terminal would obey; line ends and tabs are text.
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\t"), ord("\n")}, _REPLACEMENT)


def printable(text: str) -> str:
    """The text without what a terminal would take for a command."""
    return text.translate(_CONTROLS)


def tolerate_characters() -> None:
    """Let stdout show a question mark for a character that its encoding lacks."""
    stream: object = sys.stdout  # a test may have put another kind in its place
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")


class TextWriter:
    """Text to stdout as it comes: exactly the text, but a terminal gets no commands, and a last line end.

    Args:
        is_muted: write nothing; the text is in the JSON.
    """

    def __init__(self, *, is_muted: bool = False) -> None:
        self._is_muted = is_muted
        self._is_terminal = sys.stdout.isatty()
        tolerate_characters()

    def write(self, piece: str) -> None:
        if not self._is_muted:
            sys.stdout.write(printable(piece) if self._is_terminal else piece)
            sys.stdout.flush()

    def finish(self) -> None:
        if self._is_terminal:
            self.write("\n")


class TextsWriter:
    """One prompt's texts to stdout, one after the other: that whose turn it is as it comes, under a line if several.

    Attributes:
        generations: those that are whole.
    """

    def __init__(self, count: int, *, is_muted: bool = False) -> None:
        self.generations: list[Generation] = []
        self._writer = TextWriter(is_muted=is_muted)
        self._held = [""] * count
        self._begin()

    def write(self, stream: int, piece: str) -> None:
        """Some more of a text."""
        self._held[stream] += piece
        if stream == len(self.generations):
            self._write_held()

    def finish(self, job: Job, generation: Generation) -> None:
        """The text whose turn it is, is whole."""
        self.generations.append(generation)
        if len(self._held) == 1:
            self._writer.finish()
            return
        if not generation.text.endswith("\n"):
            self._writer.write("\n")
        if len(self.generations) < len(self._held):
            self._begin()

    def _begin(self) -> None:
        if len(self._held) > 1:
            self._writer.write(f"--- text {len(self.generations) + 1} of {len(self._held)} ---\n")
        self._write_held()

    def _write_held(self) -> None:
        stream = len(self.generations)
        self._writer.write(self._held[stream])
        self._held[stream] = ""


def check_json_target(name: str | None) -> None:
    """Raise UsageError unless the result can be written there later."""
    if name is not None and name != STDOUT:
        from outrider.bench.provenance import check_writable

        check_writable(Path(name))


def save_json(name: str, document: dict[str, Any]) -> None:
    """Write a result with its provenance to a file, whole or not at all, or to stdout."""
    from outrider.bench.provenance import provenance, to_json, write_json

    document = {"provenance": provenance(), **document}
    if name == STDOUT:
        sys.stdout.write(to_json(document))
    else:
        write_json(Path(name), document)


def as_document(generation: Generation, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """A generation as JSON has it; with a tokenizer, log-probabilities say their tokens' texts."""
    stats = generation.stats
    seconds = {stage: value for stage, value in stats.seconds.items() if stage != "prefill"}
    return {
        "text": generation.text,
        "token_ids": list(generation.token_ids),
        "num_prompt_tokens": len(generation.prompt_token_ids),
        "stream": generation.stream,
        "finish_reason": generation.finish_reason,
        "error": generation.error,
        "seed": generation.seed,
        "exactness": generation.exactness,
        "log_probs": log_probs_document(generation, tokenizer),
        "steps": stats.num_steps,
        "acceptance_length": stats.acceptance_length,
        "acceptance_rate": stats.acceptance_rate,
        "num_drafted": stats.num_drafted,
        "num_accepted": stats.num_accepted,
        "num_branching": stats.num_branching,
        "accepted_from": dict(stats.accepted_from),
        "survival": stats.survival,
        "decisions": [decision._asdict() for decision in generation.decisions],
        "draft_fault": generation.draft_fault,
        "num_preempted": generation.num_preempted,
        "prefill_seconds": stats.seconds["prefill"],
        "seconds": seconds,
        "decode_tokens_per_second": stats.decode_tokens_per_second,
    }


def run_document(llm: LLM, ledger: Ledger, sequences: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Texts with what wrote them: the engine, what its policy learned, memory, and seconds from first to last."""
    return {
        "engine": llm.describe(),
        "policy": llm.policy.describe(),
        "max_sequences": llm.config.max_sequences,
        "seconds": seconds,
        "memory": ledger.as_dict(),
        "sequences": sequences,
    }


def asked_document(job: Job) -> dict[str, Any]:
    """What of a prompt's parameters decides about its speed."""
    return {"temperature": job.params.temperature, "depth": job.depth}


def log_probs_document(generation: Generation, tokenizer: Tokenizer | None) -> list[dict[str, Any]] | None:
    """Of each token, if they were asked for; null is a token that could not be drawn."""
    if not generation.log_probs:
        return None

    def named(token_id: int) -> dict[str, Any]:
        return {"token_id": token_id} | ({"text": tokenizer.decode([token_id])} if tokenizer else {})

    def top(entries: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
        return [named(token_id) | {"log_prob": _finite(log_prob)} for token_id, log_prob in entries]

    def entry(token_id: int, log_probs: TokenLogProbs) -> dict[str, Any]:
        return named(token_id) | {
            "raw": _finite(log_probs.raw),
            "processed": _finite(log_probs.processed),
            "top_raw": top(log_probs.top_raw),
            "top_processed": top(log_probs.top_processed),
        }

    return [entry(*pair) for pair in zip(generation.token_ids, generation.log_probs, strict=True)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def say(text: str) -> None:
    """A line about the run, to stderr."""
    print(f"outrider: {text}", file=sys.stderr)  # noqa: T201 - to the user


def summary(generation: Generation) -> str:
    """A generation in one line."""
    stats = generation.stats
    facts = [f"{len(generation.token_ids)} tokens ({generation.finish_reason})"]
    if stats.decode_tokens_per_second is not None:
        facts.append(f"{stats.decode_tokens_per_second:.1f} tokens/s")
    if stats.acceptance_rate is not None:
        facts.append(f"acceptance length {stats.acceptance_length:.2f}, rate {stats.acceptance_rate:.2f}")
    facts += [f"exactness {generation.exactness}", f"seed {generation.seed}"]
    return ", ".join(facts)
