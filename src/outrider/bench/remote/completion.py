"""One text from a server: what is sent, and the stream that comes back, with the time of each piece.

Knows the two ways to ask that OpenAI's API has, /v1/completions and /v1/chat/completions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, cast

from outrider.bench.remote.counters import Counts, counts_in, whole
from outrider.bench.remote.endpoint import MAX_ERROR_BYTES, Line, RefusedError, message_in
from outrider.bench.remote.sse import events
from outrider.bench.workloads import Prompt
from outrider.errors import UsageError

READ_BYTES = 64 * 1024
NO_SUCH_PATH = (404, 405, 501)
OBJECTION = (400, 422)
OPTIONAL = ("stream_options", "seed")


class Asked(NamedTuple):
    """What is to be written."""

    prompt: Prompt
    temperature: float
    seed: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a server wants to be asked.

    Attributes:
        is_chat: prompts are sent as messages, a text as the user's.
        left_out: optional fields that it objects to.
        length_field: the name of the most tokens that it may write.
    """

    is_chat: bool
    left_out: tuple[str, ...] = ()
    length_field: str = "max_tokens"

    @property
    def path(self) -> str:
        return "/chat/completions" if self.is_chat else "/completions"

    def body(self, asked: Asked, model: str) -> dict[str, Any]:
        """What is sent."""
        prompt = asked.prompt
        messages = prompt.messages or ({"role": "user", "content": prompt.text},)
        fields = {
            "model": model,
            **({"messages": messages} if self.is_chat else {"prompt": prompt.text}),
            self.length_field: asked.max_tokens,
            "temperature": asked.temperature,
            "seed": asked.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return {name: value for name, value in fields.items() if name not in self.left_out}

    def after(self, refusal: RefusedError) -> Dialect | None:
        """Another to try when this one was refused; None if there is no other."""
        if refusal.status in NO_SUCH_PATH and not self.is_chat:
            return replace(self, is_chat=True)
        if refusal.status not in OBJECTION:
            return None
        if "max_completion_tokens" in refusal.message and self.length_field == "max_tokens":
            return replace(self, length_field="max_completion_tokens")
        named = [name for name in OPTIONAL if name in refusal.message and name not in self.left_out]
        return replace(self, left_out=(*self.left_out, *named)) if named else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A text as it came. Seconds are counted from the request, which is sent over an open connection.

    Attributes:
        text: the whole of it.
        times: when each piece that holds text came, in seconds.
        num_tokens: that the server counts; or the number of pieces, where it counts none.
        is_counted: whether the server counts them.
        finish_reason: the server's word.
        num_prompt_tokens, num_cached_tokens: of the prompt, and what of it the server had in a cache; None: unsaid.
        counts: of drafts for this text, where the server says so.
    """

    text: str
    times: tuple[float, ...]
    num_tokens: int
    is_counted: bool
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    counts: Counts | None = None

    @property
    def first_seconds(self) -> float:
        """What is called TTFT."""
        return self.times[0]

    @property
    def last_seconds(self) -> float:
        return self.times[-1]

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces, what is called ITL."""
        return [later - earlier for earlier, later in pairwise(self.times)]

    @property
    def seconds_per_further_token(self) -> float:
        """What is called TPOT: from the first piece to the last, by the tokens after the first."""
        return (self.last_seconds - self.first_seconds) / max(self.num_tokens - 1, 1)


def stream_text(
    line: Line, path: str, body: Mapping[str, Any], clock: Callable[[], float] = time.perf_counter
) -> Streamed:
    """Ask for a text over an open connection, and read it to its end.

    Raises:
        UsageError: the server refuses, answers with no stream, or ends it before its end.
    """
    began = clock()
    response = line.ask("POST", path, body)
    kind = response.headers.get_content_type()
    if kind != "text/event-stream":
        with line.readable_errors():
            content = response.read(MAX_ERROR_BYTES)
        raise UsageError(f"{line.endpoint} answers {path} with {kind} and no stream of events: {_shown(line, content)}")

    def read() -> bytes:
        with line.readable_errors():
            return response.read1(READ_BYTES)

    reader = _Reader(line)
    for data in events(read):
        if data.strip() == b"[DONE]":
            reader.is_whole = True
            break
        if reader.take(data):
            reader.times.append(clock() - began)
    return reader.finish()


class _Reader:
    """What the events of a stream come to."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.is_whole = False
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.counts: Counts | None = None
        self.has_choices = False

    def take(self, data: bytes) -> bool:
        """Whether this event brought some of the text."""
        event = self._parse(data)
        if event.get("error"):
            raise UsageError(f"{self.line.endpoint} fails within a text: {_shown(self.line, data)}")
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        self.counts = counts_in(event) or self.counts
        choices = event.get("choices")
        if choices is None or choices == []:
            return False
        piece = "".join(self._texts(choices))
        self.pieces.append(piece)
        return bool(piece)

    def finish(self) -> Streamed:
        """The text; raises UsageError where it is not whole."""
        if not self.is_whole and self.finish_reason is None:
            raise UsageError(f"{self.line.endpoint} ended a text before its end: look into its log")
        if not self.has_choices:
            raise UsageError(f"{self.line.endpoint} streams no choices: check that it speaks OpenAI's API")
        num_tokens = whole(self.usage, "completion_tokens")
        details = self.usage.get("prompt_tokens_details")
        return Streamed(
            text="".join(self.pieces),
            times=tuple(self.times),
            num_tokens=len(self.times) if num_tokens is None else num_tokens,
            is_counted=num_tokens is not None,
            finish_reason=self.finish_reason,
            num_prompt_tokens=whole(self.usage, "prompt_tokens"),
            num_cached_tokens=whole(details, "cached_tokens"),
            counts=self.counts,
        )

    def _parse(self, data: bytes) -> Mapping[str, Any]:
        try:
            event: Any = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{self.line.endpoint} sends an event that is no JSON: {_shown(self.line, data)}"
            ) from error
        if not isinstance(event, dict):
            raise self._strange(data)
        return cast("dict[str, Any]", event)

    def _texts(self, choices: object) -> Iterator[str]:
        """Of the first choice; no more than one was asked for."""
        choice: Any = cast("list[Any]", choices)[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            raise self._strange(cast("object", choices))
        self.has_choices = True
        values = cast("dict[str, Any]", choice)
        delta: Any = values.get("delta") or {}
        if not isinstance(delta, dict):
            raise self._strange(cast("object", choices))
        reason = values.get("finish_reason")
        self.finish_reason = reason if isinstance(reason, str) else self.finish_reason
        said = cast("dict[str, Any]", delta)
        thought = said.get("reasoning_content") or said.get("reasoning")  # before the answer; servers name it so or so
        for text in (values.get("text"), thought, said.get("content")):
            if text is not None and not isinstance(text, str):
                raise self._strange(cast("object", choices))
            yield text or ""

    def _strange(self, what: object) -> UsageError:
        content = what if isinstance(what, bytes) else json.dumps(what).encode()
        return UsageError(
            f"{self.line.endpoint} sends an event that is none of OpenAI's API: {_shown(self.line, content)}"
        )


def _shown(line: Line, content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        text = message_in(json.loads(text)) or text
    return line.endpoint.shown(text)
