"""Has the target write its own texts, plainly, and says which of them tell anything. Knows engines.

A loop is drafted without effort, random tokens cannot be drafted at all, a text of a few words has no middle, and the
same prompt twice is one prompt: none of these says what the user's own texts will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from outrider.bench.workloads import MIN_TOKENS, find_loop, is_random
from outrider.check.budget import Budget
from outrider.check.item import Item
from outrider.check.prompts import CheckPrompt
from outrider.engine.llm import LLM, raise_errors
from outrider.errors import ModelError, UsageError
from outrider.predict.agreement import KnownText
from outrider.request import SamplingParams
from outrider.sequence import Sequence as TextSequence

NUM_TOKENS = 128
NUM_AT_ONCE = 8
# Prompts of which so much of the smaller one's four-token runs are the other's are taken for one.
SAME_SHARE, RUN_LENGTH = 0.9, 4
MIN_FIT = 3


class InterruptedCheckError(Exception):
    """The checklist is to end here."""


@dataclass(slots=True)
class Texts:
    """What was written: texts that are fit, and those that are not, with the reason."""

    known: list[KnownText] = field(default_factory=list[KnownText])
    unfit: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def at(self, temperature: float) -> list[KnownText]:
        return [text for text in self.known if text.params.temperature == temperature]


@dataclass(frozen=True, slots=True)
class Watch:
    """How long runs hear that they should end, and say where they are."""

    is_wanted: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda _: None

    def look(self) -> None:
        """Raise if it is wanted."""
        if self.is_wanted():
            raise InterruptedCheckError


def encode(llm: LLM, prompts: Sequence[CheckPrompt]) -> list[tuple[int, ...]]:
    """Token ids of all prompts.

    Raises:
        UsageError: one, which is named, does not fit the target.
    """
    if llm.tokenizer is None:
        raise ModelError("the target has no tokenizer.json, which prompts need: save it beside the weights")
    found: list[tuple[int, ...]] = []
    for prompt in prompts:
        try:
            token_ids = tuple(prompt.token_ids(llm.tokenizer))
            for sequence in llm.start(token_ids, SamplingParams(max_tokens=1)):
                llm.engine.cancel(sequence.request.request_id)
        except UsageError as error:
            raise type(error)(f"{prompt.name}: {error}") from error
        found.append(token_ids)
    return found


def write_texts(
    llm: LLM, prompts: Sequence[CheckPrompt], temperatures: Sequence[float], budget: Budget, watch: Watch
) -> Texts:
    """Write prompt after prompt at every temperature, until there are texts of all or a quarter of the time is gone."""
    token_ids = encode(llm, prompts)
    copies = _copies(prompts, token_ids)
    found = Texts()
    part_size = max(1, NUM_AT_ONCE // len(temperatures))
    for start in range(0, len(prompts), part_size):
        if start and budget.is_spent(0.25):
            budget.skip(f"agreement on {len(prompts) - start} of {len(prompts)} prompts: no time to write their texts")
            break
        watch.report(f"writing the target's own texts: {start} of {len(prompts)} prompts")
        places = range(start, min(start + part_size, len(prompts)))
        asked = [(place, temperature) for temperature in temperatures for place in places]
        params = [
            SamplingParams(temperature=temperature, seed=place, max_tokens=NUM_TOKENS) for place, temperature in asked
        ]
        sequences = llm.start([token_ids[place] for place, _ in asked], params, depth=0)
        run(llm, sequences, watch)
        for (place, _), each, sequence in zip(asked, params, sequences, strict=True):
            prompt = prompts[place]
            text = KnownText(prompt.name, prompt.category, each, token_ids[place], tuple(sequence.output_token_ids))
            _judge(found, text, copies.get(place), llm.target.config.vocab_size)
    return found


def run(llm: LLM, sequences: Sequence[TextSequence], watch: Watch) -> None:
    """Step until all are finished; they are cancelled where that is not wanted any more.

    Raises:
        NumericsError: the target computes no numbers for one of them.
    """
    try:
        while not all(sequence.finish_reason for sequence in sequences):
            watch.look()
            llm.engine.step()
        raise_errors(sequences)
    finally:
        for sequence in sequences:
            llm.engine.cancel(sequence.request.request_id)


def _judge(texts: Texts, text: KnownText, copy_of: str | None, vocab_size: int) -> None:
    loop = find_loop(text.token_ids)
    if copy_of is not None:
        why = f"its prompt is nearly that of {copy_of}"
    elif is_random(text.prompt_token_ids, vocab_size):
        why = "its prompt's tokens look randomly drawn"
    elif loop and loop.start < MIN_TOKENS:
        why = f"repeats {loop.period} tokens from token {loop.start} on"
    elif len(text.token_ids) < MIN_TOKENS:
        why = f"ends after {len(text.token_ids)} tokens"
    else:
        token_ids = text.token_ids[: loop.start] if loop else text.token_ids
        texts.known.append(text._replace(token_ids=token_ids, params=replace(text.params, max_tokens=len(token_ids))))
        return
    texts.unfit.append({"prompt": text.prompt, "temperature": text.params.temperature, "why": why})


def _copies(prompts: Sequence[CheckPrompt], token_ids: Sequence[tuple[int, ...]]) -> dict[int, str]:
    """Prompts that are nearly an earlier one, and which."""
    runs = [set(_runs(each)) for each in token_ids]
    found: dict[int, str] = {}
    for place, ours in enumerate(runs):
        for earlier in range(place):
            least = min(len(ours), len(runs[earlier]))
            if earlier not in found and len(ours & runs[earlier]) > SAME_SHARE * least:
                found[place] = prompts[earlier].name
                break
    return found


def _runs(token_ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Runs of tokens; of a shorter prompt the whole."""
    return (token_ids[start : start + RUN_LENGTH] for start in range(max(1, len(token_ids) - RUN_LENGTH + 1)))


def sanity_item(texts: Texts, num_prompts: int) -> Item:
    """Whether what was written is worth judging by."""
    num_all, num_fit = len(texts.known) + len(texts.unfit), len({text.prompt for text in texts.known})
    reasons = [f"{text['prompt']}: {text['why']}" for text in texts.unfit[:3]]
    few = num_fit < MIN_FIT
    return Item(
        name="workload sanity",
        status="fail" if not num_fit else "warn" if few or len(texts.unfit) > 0.25 * num_all else "pass",
        value=f"{len(texts.known)} of {num_all} texts of {num_prompts} prompts are fit"
        + (f" ({'; '.join(reasons)})" if reasons else ""),
        threshold=f"{MIN_FIT} fit prompts at least, and three of four texts fit",
        why="loops are drafted without effort and random tokens not at all; too few prompts make no interval",
        remedy="give prompts of your own, of the kind that is asked, with --prompts" if few or texts.unfit else "",
    )
