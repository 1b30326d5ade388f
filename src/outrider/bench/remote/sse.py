"""Server-sent events, read with bounds. Knows the framing of a stream; nothing of what an event says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from outrider.errors import UsageError

MAX_EVENT_BYTES = 1024 * 1024
MAX_STREAM_BYTES = 64 * 1024 * 1024


def events(read: Callable[[], bytes]) -> Iterator[bytes]:
    """The data of each event, as soon as the event is whole.

    Comments, which keep a connection alive, and fields other than data are passed over. Lines end in a line feed, with
    a carriage return before it or not; servers of models use no others. Source: the HTML standard, section 9.2.

    Args:
        read: some more bytes, as they come; none at the end.

    Raises:
        UsageError: an event or the stream is too long.
    """
    data: list[bytes] = []
    for line in _lines(read):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
            _check(sum(map(len, data)), MAX_EVENT_BYTES, "an event")
        elif not line and data:
            yield b"\n".join(data)
            data = []
    if data:  # of a server that does not end its last event
        yield b"\n".join(data)


def _lines(read: Callable[[], bytes]) -> Iterator[bytes]:
    rest, num_bytes = b"", 0
    while piece := read():
        num_bytes += len(piece)
        _check(num_bytes, MAX_STREAM_BYTES, "a text")
        *lines, rest = (rest + piece).split(b"\n")
        _check(len(rest), MAX_EVENT_BYTES, "a line")
        for line in lines:
            yield line.removesuffix(b"\r")
    yield rest.removesuffix(b"\r")


def _check(count: int, most: int, what: str) -> None:
    if count > most:
        raise UsageError(
            f"the server sends {what} of more than {most} bytes, the most that are read: look into its log"
        )
