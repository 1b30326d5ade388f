"""What a benchmark continues: six workloads that are fixed, or a file; and which texts are fit to be measured.

The prompts of `workloads.jsonl` were written for this and fixed by hash before anything was timed. The bundled pair
writes Python, so all of them are of its kind: beginnings of modules (code), documentation (prose), a module and the
same module begun again with something renamed (edit), a module and its summary begun (summary), dialogues and doctests
(chat), tables and enumerations (repeat). Knows no models and no clocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short_repr
from typing import NamedTuple, cast

import numpy as np

from outrider.errors import UsageError
from outrider.files import read_text

WORKLOADS = ("code", "prose", "edit", "summary", "chat", "repeat")
ALL = "all"  # workloads together, where figures are of each
WORKLOADS_SHA256 = "51d674d3e185b780c9d34baf1d039a046f071299f3cd47920ca45ddbf24531cd"
SUFFIXES = (".jsonl", ".txt")
EXAMPLE = '{"prompt": "import os"}'
MESSAGE = '{"role": text, "content": text}'
MAX_FILE_BYTES = 64 * 1024 * 1024

# A text whose end repeats itself is drafted without effort, and says nothing about anybody's own texts.
MAX_PERIOD = 32
MIN_LOOP_TOKENS = 24
MIN_TOKENS = 16
# Kolmogorov's distance of a prompt's ids from evenly drawn ones is 0.4 to 0.7 for our texts; for random ids, decoded
# to text and encoded again, it is 0.1 to 0.25.
RANDOM_DISTANCE = 0.3
MIN_RANDOM_TOKENS = 64


class Prompt(NamedTuple):
    """One beginning.

    Attributes:
        name: unlike those of its workload's other prompts.
        text: to be continued.
        prediction: a text that the output may resemble.
        messages: a conversation to be answered, in the place of the text, which then is empty.
    """

    name: str
    text: str
    prediction: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None


class Workload(NamedTuple):
    """Prompts of one kind, named as the file that they come from, and the file's sha256."""

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str


class Loop(NamedTuple):
    """Where a text begins to repeat itself, and how many tokens it repeats."""

    start: int
    period: int


def read_workloads(names: Sequence[str], *, may_chat: bool = False) -> list[Workload]:
    """Workloads by their names, or from files.

    Args:
        names: of workloads or files.
        may_chat: whether prompts may be messages, which a server puts into its model's template.

    Raises:
        UsageError: there is no such workload, it is named twice, or a file cannot be read.
    """
    bundled = _bundled()
    workloads = [bundled.get(name) or _read_file(name) for name in names]
    for workload in workloads:
        for prompt in workload.prompts:
            if prompt.messages is not None and not may_chat:
                raise UsageError(f"{workload.name}, {prompt.name} has messages, which only bench --url sends: use text")
    found = [workload.name for workload in workloads]
    if twice := [name for name in found if found.count(name) > 1]:
        raise UsageError(f"workload {twice[0]!r} is given twice: keep one of them, or give it another name")
    return workloads


def find_loop(token_ids: Sequence[int]) -> Loop | None:
    """The repetition in which a text ends.

    A text ends in a loop if its last tokens are one run of at most 32 tokens again and again: at least 24 tokens that
    equal those one period before, and at least two whole repetitions after the first run.
    """
    for period in range(1, MAX_PERIOD + 1):
        start = len(token_ids)
        while start > period and token_ids[start - 1] == token_ids[start - 1 - period]:
            start -= 1
        if len(token_ids) - start >= max(MIN_LOOP_TOKENS, 2 * period):
            return Loop(start, period)
    return None


def is_random(token_ids: Sequence[int], vocab_size: int) -> bool:
    """Whether a prompt looks as if its tokens had been drawn evenly from the vocabulary.

    A vocabulary is ordered by how much its tokens were needed, so that a text's ids crowd somewhere; those of a
    random-token prompt do not. Fewer than 64 tokens are no evidence.
    """
    if len(token_ids) < MIN_RANDOM_TOKENS:
        return False
    ordered = np.sort(np.asarray(token_ids)) / vocab_size
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(np.abs(ordered - steps[:-1]).max(), np.abs(ordered - steps[1:]).max())
    return bool(distance < RANDOM_DISTANCE)


def _bundled() -> dict[str, Workload]:
    data = (Path(__file__).parent / "workloads.jsonl").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WORKLOADS_SHA256:
        raise UsageError(
            f"workloads.jsonl has sha256 {digest}, not {WORKLOADS_SHA256}: results would not compare; install Outrider "
            "again, or name a file of your own with --workload"
        )
    prompts: dict[str, list[Prompt]] = {name: [] for name in WORKLOADS}
    for entry in map(json.loads, data.splitlines()):
        prompts[entry["workload"]].append(Prompt(entry["name"], entry["prompt"], entry.get("prediction")))
    return {name: Workload(name, tuple(part), digest) for name, part in prompts.items()}


def _read_file(name: str) -> Workload:
    path = Path(name)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"workload {name!r} is none of {', '.join(WORKLOADS)}, and no file *.jsonl or *.txt: check it")
    text = read_text(path, MAX_FILE_BYTES, "the workload")
    prompts = _read_lines(name, text) if path.suffix == ".jsonl" else [Prompt(path.stem, text)] if text else []
    if not prompts:
        raise UsageError(f"workload {name} holds no prompts: give one JSON object a line, such as {EXAMPLE}")
    return Workload(path.name, tuple(prompts), hashlib.sha256(text.encode()).hexdigest())


def _read_lines(name: str, text: str) -> list[Prompt]:
    prompts: list[Prompt] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name} line {number}"
        prompt = _read_prompt(line, place, default_name=f"line {number}")
        if prompt.name in {other.name for other in prompts}:
            raise UsageError(f"{place}: another prompt is named {prompt.name!r} too: give it a name of its own")
        prompts.append(prompt)
    return prompts


def _read_prompt(line: str, place: str, default_name: str) -> Prompt:
    try:
        entry: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON ({error}): write an object, such as {EXAMPLE}") from error
    if not isinstance(entry, dict):
        raise UsageError(f"{place} is no object: write one, such as {EXAMPLE}")
    values: dict[str, object] = entry  # pyright: ignore[reportUnknownVariableType] - JSON
    if unknown := values.keys() - {"name", "prompt", "prediction", "messages"}:
        raise UsageError(
            f"{place} has the key {min(unknown)!r}, but only name, prompt, prediction and messages are known"
        )
    prompt, prediction = _text(values, "prompt", place), _text(values, "prediction", place)
    messages = _messages(values, place)
    if bool(prompt) == bool(messages):
        both = "both a prompt and messages" if prompt else "no prompt"
        raise UsageError(f"{place} has {both}: write an object, such as {EXAMPLE}")
    return Prompt(_text(values, "name", place) or default_name, prompt or "", prediction, messages)


def _messages(values: dict[str, object], place: str) -> tuple[Mapping[str, str], ...] | None:
    given = values.get("messages")
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise UsageError(f"{place}: messages must be a list of {MESSAGE}, at least one")
    messages: list[Mapping[str, str]] = []
    for entry in cast("list[object]", given):
        parts = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        role, content = _text(parts, "role", place), _text(parts, "content", place)
        if parts.keys() != {"role", "content"} or role is None or content is None:
            raise UsageError(f"{place}: messages must be a list of {MESSAGE}, at least one")
        messages.append({"role": role, "content": content})
    return tuple(messages)


def _text(values: dict[str, object], key: str, place: str) -> str | None:
    value = values.get(key)
    if value is None:
        return None
    # JSON may escape halves of characters, which are no text.
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{place}: {key} is {short_repr(value)}, but must be text")
    return value
