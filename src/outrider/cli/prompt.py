"""The one prompt of a command line: an argument, an option, a file or what is piped in. Knows no tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from outrider.errors import UsageError

MAX_PROMPT_BYTES = 64 * 1024 * 1024


def read_prompt(argument: str | None, option: str | None, file: Path | None) -> str:
    """The prompt exactly as given, its last line end included.

    Raises:
        UsageError: there are several, none, or it cannot be read or is too long.
    """
    given = {"the argument PROMPT": argument, "--prompt": option, "--prompt-file": file}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} both give a prompt: keep one of them")
    if file is not None:
        return _read_file(file)
    if argument is not None or option is not None:
        return argument or option or ""
    if sys.stdin.isatty():
        raise UsageError('there is no prompt: give one, as in outrider run "import os", or pipe one in')
    return _read(sys.stdin.buffer, "the prompt on stdin")


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return _read(stream, str(path))
    except OSError as error:
        raise UsageError(f"cannot read the prompt from {path} ({error.strerror}): name a readable file") from error


def _read(stream: BinaryIO, name: str) -> str:
    content = stream.read(MAX_PROMPT_BYTES + 1)  # and not all: a device never ends
    if len(content) > MAX_PROMPT_BYTES:
        raise UsageError(f"{name} has more than {MAX_PROMPT_BYTES} bytes, the most that are read: give a shorter one")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8 text (byte {error.start} is {content[error.start]:#04x}): convert it"
        ) from error
