"""What a command line is given to read: one prompt, a prediction, a file's bytes. Knows no tokens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from outrider.errors import UsageError

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
        return _read_file(file, "the prompt", MAX_PROMPT_BYTES)
    if argument is not None or option is not None:
        return argument or option or ""
    if sys.stdin.isatty():
        raise UsageError('there is no prompt: give one, as in outrider run "import os", or pipe one in')
    return _read(sys.stdin.buffer, "the prompt on stdin", MAX_PROMPT_BYTES)


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
    text = _read_file(file, "the prediction", MAX_PREDICTION_BYTES)
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


def decode_utf8(content: bytes, name: str) -> str:
    """Bytes as text.

    Raises:
        UsageError: they are no UTF-8; the message begins with `name` and says which byte.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8 text (byte {error.start} is {content[error.start]:#04x}): convert it"
        ) from error


def _read_file(path: Path, role: str, max_bytes: int) -> str:
    try:
        with path.open("rb") as stream:
            return _read(stream, str(path), max_bytes)
    except OSError as error:
        raise UsageError(f"cannot read {role} from {path} ({error.strerror}): name a readable file") from error


def _read(stream: BinaryIO, name: str, max_bytes: int) -> str:
    content = stream.read(max_bytes + 1)  # and not all: a device never ends
    if len(content) > max_bytes:
        raise UsageError(f"{name} has more than {max_bytes} bytes, the most that are read: give a shorter one")
    return decode_utf8(content, name)
