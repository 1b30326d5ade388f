"""The prompts that a checklist goes by: the user's own, from a file, or else the bundled ones.

{"prompt": "import os", "category": "code"}
{"messages": [{"role": "user", "content": "How do tides work?"}]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, cast

from outrider.bench.workloads import MAX_FILE_BYTES, WORKLOADS, read_workloads
from outrider.errors import UsageError
from outrider.files import read_text
from outrider.model.chat import render
from outrider.model.tokenizer import Tokenizer

EXAMPLE = '{"prompt": "import os"}'
NUM_BUNDLED = 24


class CheckPrompt(NamedTuple):
    """A prompt: a text, or a conversation for the target's template.

    Attributes:
        name: where it stands in the file, or what it is called; never its text.
        category: for tables; "all" where none is given.
    """

    name: str
    category: str
    text: str | None
    messages: tuple[Mapping[str, str], ...] | None = None

    def token_ids(self, tokenizer: Tokenizer) -> list[int]:
        """As the target reads it."""
        if self.messages is None:
            return tokenizer.encode(self.text or "")
        rendered = render(tokenizer.chat_template, self.messages, tokenizer.special_tokens)
        return tokenizer.encode(rendered, add_special_tokens=False)


def bundled_prompts() -> list[CheckPrompt]:
    """Some of each workload, in turns, so that any beginning of the list has of all."""
    columns = [
        [CheckPrompt(f"{workload.name} {prompt.name}", workload.name, prompt.text) for prompt in workload.prompts]
        for workload in read_workloads(WORKLOADS)
    ]
    return [prompt for row in zip_longest(*columns) for prompt in row if prompt is not None][:NUM_BUNDLED]


def read_prompts(path: Path) -> list[CheckPrompt]:
    """Prompts of a jsonl file.

    Raises:
        UsageError: it cannot be read, it holds none, or a line, which is named, is not as it must be.
    """
    text = read_text(path, MAX_FILE_BYTES, "the prompts").removeprefix("\ufeff")
    prompts = [
        _read_line(line, f"{path.name} line {number}", f"line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if not prompts:
        raise UsageError(f"{path} has no prompts: give one JSON object a line, such as {EXAMPLE}")
    if len(prompts) == 1:
        raise UsageError(f"{path} has one prompt, which says nothing of any other: give two at least, better twenty")
    return prompts


def _read_line(line: str, place: str, name: str) -> CheckPrompt:
    try:
        entry: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON ({error}): write an object, such as {EXAMPLE}") from error
    if not isinstance(entry, dict):
        raise UsageError(f"{place} is no object: write one, such as {EXAMPLE}")
    values = cast("dict[str, Any]", entry)
    if unknown := values.keys() - {"prompt", "messages", "category"}:
        raise UsageError(f"{place} has the key {min(unknown)!r}, but only prompt, messages and category are known")
    if ("prompt" in values) == ("messages" in values):
        raise UsageError(f"{place} must have either a prompt or messages, such as {EXAMPLE}")
    category = values.get("category", "all")
    prompt = values.get("prompt")
    if not _is_text(category) or ("prompt" in values and not _is_text(prompt)):
        raise UsageError(f"{place}: prompt and category must be text that is not empty, such as {EXAMPLE}")
    if "messages" in values and not _are_messages(values["messages"]):
        raise UsageError(f'{place}: messages must be a list of {{"role": text, "content": text}}, at least one')
    return CheckPrompt(name, category, prompt, tuple(values["messages"]) if "messages" in values else None)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not any("\ud800" <= each <= "\udfff" for each in value)


def _are_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(cast("list[object]", value))
        and all(
            isinstance(each, dict)
            and cast("dict[str, object]", each).keys() == {"role", "content"}
            and all(isinstance(part, str) for part in cast("dict[str, object]", each).values())
            for each in cast("list[object]", value)
        )
    )
