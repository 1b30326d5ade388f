"""A file of many prompts, one JSON object a line. Knows what a line may say; the engine is not needed to check it."""

from __future__ import annotations

import dataclasses
import json
import re
import stat
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any, BinaryIO, NamedTuple, NoReturn

from outrider.cli.models import Models
from outrider.cli.prompt import MAX_PROMPT_BYTES, AskedPrompt, Chat
from outrider.errors import ParameterError, UsageError
from outrider.files import as_text
from outrider.request import MAX_DEPTH, Depth, SamplingParams

MAX_LINES = 100_000
MAX_LINE_BYTES = MAX_PROMPT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt and how to go on from it.

    Attributes:
        index: among the prompts of the file, from 0.
        place: file and line, for messages.
        id: whatever the line calls itself.
    """

    index: int
    place: str
    id: str | int | None
    prompt: AskedPrompt
    params: SamplingParams
    depth: Depth
    prediction: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the command line says for every line that does not say it itself."""

    params: SamplingParams
    models: Models
    is_chat: bool
    prediction: str | None


class JobFile:
    """The prompts of a file, in order, as often as they are asked for; only the line at hand is in memory.

    Raises:
        UsageError: a line is not as it must be; raised here, before any is used, and it says which.
    """

    def __init__(self, stream: BinaryIO, path: Path, defaults: Defaults) -> None:
        self._stream = stream
        self._path = path
        self._defaults = defaults
        self.num_jobs = sum(1 for _ in self)
        if self.num_jobs == 0:
            raise UsageError(f"{path} has no prompts: give one JSON object a line, such as {_EXAMPLE}")

    def __iter__(self) -> Iterator[Job]:
        self._stream.seek(0)
        index = 0
        for number in range(1, MAX_LINES + 2):
            content = self._stream.readline(MAX_LINE_BYTES + 1)
            if not content:
                return
            place = f"{self._path} line {number}"
            if number > MAX_LINES:
                raise UsageError(f"{self._path} has more than {MAX_LINES} lines, the most that are read: split it")
            if len(content) > MAX_LINE_BYTES:
                raise UsageError(f"{place} has more than {MAX_LINE_BYTES} bytes, the most that are read: shorten it")
            text = as_text(content, place).removeprefix("\ufeff" if number == 1 else "").strip()
            if text:
                yield _job(text, place, index, self._defaults)
                index += 1


@contextmanager
def open_jobs(path: Path, defaults: Defaults) -> Generator[JobFile]:
    """Keep a file of prompts open, so that replacing it meanwhile changes nothing.

    Raises:
        UsageError: it cannot be read, or a line is not as it must be.
    """
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no ordinary file, and many prompts are read more than once: save them to one")
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read the prompts from {path} ({error.strerror}): name a readable file") from error
    with stream:
        yield JobFile(stream, path, defaults)


_EXAMPLE = '{"prompt": "import os"}'


def _job(text: str, place: str, index: int, defaults: Defaults) -> Job:
    try:
        values = _read_values(text)
        params = dataclasses.replace(defaults.params, **{name: values[name] for name in PARAMETERS if name in values})
        depth = values.get("depth", defaults.models.depth_at(params.temperature))
        prediction = values.get("prediction", defaults.prediction)
        defaults.models.check_line(values, has_prediction=prediction is not None)
        prompt = _prompt(values, is_chat=defaults.is_chat)
    except UsageError as error:
        raise type(error)(f"{place}: {error}") from error
    return Job(
        index=index, place=place, id=values.get("id"), prompt=prompt, params=params, depth=depth, prediction=prediction
    )


def _read_values(text: str) -> dict[str, Any]:
    """What a line says, each value checked; null is as if nothing were said."""
    try:
        values = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ParameterError(
            f"not JSON ({error.msg}, column {error.colno}): write an object, such as {_EXAMPLE}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise ParameterError(f"not JSON that can be read ({error}): write an object, such as {_EXAMPLE}") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{_SHORT.repr(values)} is no object: write one, such as {_EXAMPLE}")
    said: dict[str, Any] = values  # pyright: ignore[reportUnknownVariableType] - JSON
    return {name: _checked(name, value) for name, value in said.items() if value is not None}


def _prompt(values: Mapping[str, Any], *, is_chat: bool) -> AskedPrompt:
    given = [name for name in PROMPTS if name in values]
    if len(given) > 1:
        raise ParameterError(f"{' and '.join(given)} both give a prompt: keep one of them")
    if not given:
        raise ParameterError(f"there is no prompt: give one of {', '.join(PROMPTS)}")
    prompt = values[given[0]]
    return Chat.of(prompt) if is_chat and isinstance(prompt, str) else prompt


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"{_SHORT.repr(name)} is given twice: keep one of them")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ParameterError(f"{name} is no number in JSON: give a finite one")


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class _Field(NamedTuple):
    """What a value must be, in words, and how it is read; reading raises TypeError or ValueError if it is not."""

    wanted: str
    read: Callable[[Any], Any]


def _checked(name: str, value: object) -> Any:
    field = FIELDS.get(name)
    if field is None:
        raise ParameterError(f"unknown name {_SHORT.repr(name)}: {_advice(name)}")
    try:
        return field.read(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"{name} is {_SHORT.repr(value)}, but must be {field.wanted}") from error


def _advice(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name[:60], FIELDS, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(FIELDS)}"


def _a(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:  # a bool would pass for an int
            raise TypeError
        return value

    return read


_whole, _switch, _list, _object = _a(int), _a(bool), _a(list), _a(dict)


def _number(value: Any) -> float:
    if isinstance(value, float):
        return value
    return float(_whole(value))


def _text(value: Any) -> str:
    text: str = _a(str)(value)
    text.encode()  # half a surrogate pair is no character
    return text


def _wholes(value: Any) -> tuple[int, ...]:
    return tuple(map(_whole, _list(value)))


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _biases(value: Any) -> dict[int, float]:
    return {_token_id(name): _number(bias) for name, bias in _object(value).items()}


def _token_id(name: str) -> int:
    if not re.fullmatch(r"\d{1,18}", name, re.ASCII):
        raise ValueError
    return int(name)


def _messages(value: Any) -> Chat:
    messages = [{name: _text(part) for name, part in _object(message).items()} for message in _list(value)]
    if not messages or any(message.keys() != {"role", "content"} for message in messages):
        raise ValueError
    return Chat(tuple(messages))


def _depth(value: Any) -> Depth:
    if value == "auto":
        return "auto"
    if not 0 <= _whole(value) <= MAX_DEPTH:
        raise ValueError
    return value


def _id(value: Any) -> str | int:
    return _text(value) if isinstance(value, str) else _whole(value)


_NUMBER = _Field("a number", _number)
_WHOLE = _Field("a whole number", _whole)
_TEXTS = _Field("a list of texts", _texts)
PROMPTS = {
    "prompt": _Field("a text", _text),
    "messages": _Field('a list of {"role": text, "content": text}, at least one', _messages),
    "token_ids": _Field("a list of whole numbers", _wholes),
}
PARAMETERS = {
    "temperature": _NUMBER,
    "top_k": _WHOLE,
    "top_p": _NUMBER,
    "min_p": _NUMBER,
    "seed": _WHOLE,
    "stop": _TEXTS,
    "stop_token_ids": _Field("a list of whole numbers", _wholes),
    "max_tokens": _WHOLE,
    "min_tokens": _WHOLE,
    "ignore_eos": _Field("true or false", _switch),
    "n": _WHOLE,
    "repetition_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "logit_bias": _Field('an object of token ids and numbers, such as {"42": -1.5}', _biases),
    "bad_words": _TEXTS,
    "log_probs": _WHOLE,
}
FIELDS = {
    **PROMPTS,
    **PARAMETERS,
    "depth": _Field(f'"auto" or a whole number between 0 and {MAX_DEPTH}', _depth),
    "prediction": _Field("a text", _text),
    "id": _Field("a text or a whole number", _id),
}
