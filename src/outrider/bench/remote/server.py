"""A server that is to be measured: which model it serves, how it wants to be asked, and whether it counts drafts.

Knows what is asked of it before anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from outrider.bench.remote.completion import Asked, Dialect, Streamed, stream_text
from outrider.bench.remote.counters import MAX_METRICS_BYTES, Counts, read_metrics
from outrider.bench.remote.endpoint import Endpoint, Line, RefusedError, read_body, read_json
from outrider.bench.remote.together import together
from outrider.errors import UsageError

MAX_MODELS_BYTES = 4 * 1024 * 1024
MAX_NAMED = 8
# /metrics and the list of models are short; a server that computes meanwhile may still be slow to answer.
ASIDE_SECONDS = 30.0
MAX_TRIES = 5
PROBE_TOKENS = 4
Result = TypeVar("Result")


class Patience(NamedTuple):
    """How long texts that are written at once may take, in seconds, and who may end it sooner."""

    seconds: float
    is_unwanted: Callable[[], bool] = lambda: False


class Server(NamedTuple):
    """A server that was met.

    Attributes:
        endpoint: where it is.
        model: that is asked for.
        dialect: how it wants to be asked.
        engine: whose counters of drafts it has; None if it has none.
    """

    endpoint: Endpoint
    model: str
    dialect: Dialect
    engine: str | None

    @property
    def path(self) -> str:
        return self.endpoint.path + self.dialect.path

    def write(self, asked: Sequence[Asked], patience: Patience) -> list[Streamed]:
        """Texts written at once, in order. Raises as `together`."""
        bodies = [self.dialect.body(each, self.model) for each in asked]
        tasks = [partial(stream_text, path=self.path, body=body) for body in bodies]
        return together(self.endpoint, tasks, *patience)

    def counts(self, patience: Patience) -> Counts | None:
        """What its counters stand at; None where it has none."""
        found = read_counters(self.endpoint, patience) if self.engine else None
        return found[1] if found else None


def meet(endpoint: Endpoint, model: str | None, asked: Asked, patience: Patience, *, is_chat: bool) -> Server:
    """Find out how a server wants to be asked, by asking it for a few tokens.

    Args:
        endpoint: where it is.
        model: to ask for; None: the only one that it serves.
        asked: a text to begin.
        patience: of the measurement.
        is_chat: whether prompts are to be sent as messages whatever the server can do.

    Raises:
        UsageError: it is not there, serves several models, or refuses.
    """
    model = model or _only_model(endpoint, patience)
    dialect = Dialect(is_chat=is_chat)
    for _ in range(MAX_TRIES):
        try:
            Server(endpoint, model, dialect, None).write([asked._replace(max_tokens=PROBE_TOKENS)], patience)
            break
        except RefusedError as refusal:
            other = dialect.after(refusal)
            if other is None:
                raise
            dialect = other
    else:
        raise UsageError(f"{endpoint} objects to every way of asking that is known: look into its log")
    found = read_counters(endpoint, patience)
    return Server(endpoint, model, dialect, found[0] if found else None)


def read_counters(endpoint: Endpoint, patience: Patience) -> tuple[str, Counts] | None:
    """Whose counters of drafts a server has, and what they stand at; None where it has none, or does not show them."""
    try:
        return read_metrics(_aside(endpoint, partial(_metrics, path=endpoint.root + "/metrics"), patience))
    except UsageError:
        return None  # they are no part of OpenAI's API: a server may answer anything there


def _metrics(line: Line, path: str) -> bytes:
    return read_body(line, path, MAX_METRICS_BYTES)


def _only_model(endpoint: Endpoint, patience: Patience) -> str:
    path = endpoint.path + "/models"
    answer = _aside(endpoint, lambda line: read_json(line, path, MAX_MODELS_BYTES), patience)
    listed: Any = cast("dict[str, Any]", answer).get("data") if isinstance(answer, dict) else None
    entries: list[Any] = cast("list[Any]", listed) if isinstance(listed, list) else []
    names = [cast("dict[str, Any]", entry).get("id") for entry in entries if isinstance(entry, dict)]
    found = [name for name in names if isinstance(name, str) and name]
    if len(found) != 1:
        shown = endpoint.shown(", ".join(found[:MAX_NAMED])) or "none"
        raise UsageError(f"{endpoint} lists {len(found)} models ({shown}): say which one with --model")
    return found[0]


def _aside(endpoint: Endpoint, task: Callable[[Line], Result], patience: Patience) -> Result:
    """What is asked beside the texts."""
    (found,) = together(endpoint, [task], min(patience.seconds, ASIDE_SECONDS), patience.is_unwanted)
    return found
