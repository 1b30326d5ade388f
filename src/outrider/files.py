"""Text files that a user names, read whole but bounded: a device never ends. Knows no formats."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from outrider.errors import UsageError


def read_text(path: Path, most: int, what: str, error: type[UsageError] = UsageError) -> str:
    """A file's text, exactly as it is there.

    Args:
        path: of the file.
        most: bytes that it may have.
        what: it is to be, for the message: "the prompt".
        error: to raise.

    Raises:
        UsageError: it cannot be read, has more bytes, or is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            content = read_bytes(stream, most, str(path), error)
    except OSError as reason:
        raise error(f"cannot read {what} from {path} ({reason.strerror}): name a readable file") from reason
    return as_text(content, str(path), error)


def read_bytes(stream: BinaryIO, most: int, name: str, error: type[UsageError] = UsageError) -> bytes:
    """All that comes from a stream.

    Raises:
        UsageError: it is more than `most` bytes; the message begins with `name`.
    """
    content = stream.read(most + 1)
    if len(content) > most:
        raise error(f"{name} has more than {most} bytes, the most that are read: give less")
    return content


def as_text(content: bytes, name: str, error: type[UsageError] = UsageError) -> str:
    """Bytes as text.

    Raises:
        UsageError: they are no UTF-8; the message begins with `name` and says which byte.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        byte = f"byte {reason.start} is {content[reason.start]:#04x}"
        raise error(f"{name} is not UTF-8 text ({byte}): convert it") from reason
