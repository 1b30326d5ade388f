"""What a command line is given to read: one prompt, a prediction. Knows no tokens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.errors import UsageError
from outrider.files import as_text, read_bytes, read_text

if TYPE_CHECKING:  # the engine is imported when it runs, not when options are read
    from outrider.engine.llm import LLM
    from outrider.engine.requests import Prompt

MAX_PROMPT_BYTES = 64 * 1024 * 1024
MAX_PREDICTION_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, for the target's chat template to write down: messages with a "role" and a "content"."""

    messages: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, text: str) -> Chat:
        """One message of the user's."""
        return cls(({"role": "user", "content": text},))


AskedPrompt = str | tuple[int, ...] | Chat


def read_prompt(argument: str | None, option: str | None, file: Path | None) -> str:
    """The prompt exactly as given, its last line end included.

    Raises:
        UsageError: there are several, none, or it cannot be read or is too long.
    """
    refuse_several_prompts(argument, option, file)
    if file is not None:
        return read_text(file, MAX_PROMPT_BYTES, "the prompt")
    if argument is not None or option is not None:
        return argument or option or ""
    if sys.stdin.isatty():
        raise UsageError('there is no prompt: give one, as in outrider run "import os", or pipe one in')
    name = "the prompt on stdin"
    return as_text(read_bytes(sys.stdin.buffer, MAX_PROMPT_BYTES, name), name)


def refuse_several_prompts(argument: str | None, option: str | None, file: Path | None) -> None:
    """Raise UsageError if more than one is given."""
    given = {"the argument PROMPT": argument, "--prompt": option, "--prompt-file": file}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} both give a prompt: keep one of them")


def read_prediction(file: Path | None) -> str | None:
    """The text that an output may resemble.

    Raises:
        UsageError: it cannot be read, is too long, is empty or no UTF-8 text.
    """
    if file is None:
        return None
    text = read_text(file, MAX_PREDICTION_BYTES, "the prediction")
    if not text:
        raise UsageError(f"the prediction in {file} is empty: leave --prediction out, or name another file")
    return text


def encode_prompt(llm: LLM, prompt: AskedPrompt) -> Prompt:
    """What `LLM.start` takes: a conversation is put through the target's template.

    Raises:
        UsageError: the target has no chat template, or it fails.
    """
    if not isinstance(prompt, Chat):
        return prompt
    if llm.tokenizer is None:
        raise UsageError("a conversation needs the target's tokenizer.json, and it has none: give token ids")
    from outrider.model.chat import render

    rendered = render(llm.tokenizer.chat_template, prompt.messages, llm.tokenizer.special_tokens)
    return llm.tokenizer.encode(rendered, add_special_tokens=False)
