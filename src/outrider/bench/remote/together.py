"""Several requests to a server at once, from their beginning to their end or not at all. Knows threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from outrider.bench.remote.endpoint import Endpoint, Line
from outrider.errors import UsageError

POLL_SECONDS = 0.05
Result = TypeVar("Result")


class GivenUpError(Exception):
    """The user wants an end."""


def together(
    endpoint: Endpoint,
    tasks: Sequence[Callable[[Line], Result]],
    seconds: float,
    is_unwanted: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """What the tasks return, each run with a connection of its own.

    All are connected before the first begins, so that they begin at once. A thread for each is enough: at 16 streams
    they wait for the network nearly all of the time. The first that fails ends the others.

    Args:
        endpoint: the server.
        tasks: what to do with an open connection.
        seconds: that all of it may take: also the bound for a server that sends a byte now and then.
        is_unwanted: asked all the time.

    Raises:
        UsageError: it takes too long, or what a task raised.
        GivenUpError: it is unwanted.
    """
    lines = [Line(endpoint, seconds) for _ in tasks]
    results: dict[int, Result] = {}
    errors: list[Exception] = []
    ended = SimpleQueue[int]()
    ready = threading.Barrier(len(tasks))

    def work(number: int) -> None:
        try:
            lines[number].open()
            ready.wait()
            results[number] = tasks[number](lines[number])
        except threading.BrokenBarrierError:
            pass  # who broke it says why
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)
            ready.abort()
        finally:
            lines[number].close()
            ended.put(number)

    deadline = time.monotonic() + seconds
    num_running = len(tasks)
    try:
        for number in range(len(tasks)):
            # A thread that waits for a name server cannot be cut; it must not keep the process alive.
            threading.Thread(target=work, args=(number,), daemon=True).start()
        while num_running:
            num_running -= _has_ended(ended)
            if errors:
                raise errors[0]
            if is_unwanted():
                raise GivenUpError
            if num_running and time.monotonic() > deadline:
                raise UsageError(f"{endpoint} was not done after {seconds:g} s: raise --timeout")
    finally:
        for line in lines:
            line.cut()
    return [results[number] for number in range(len(tasks))]


def _has_ended(ended: SimpleQueue[int]) -> bool:
    try:
        ended.get(timeout=POLL_SECONDS)
    except Empty:
        return False
    return True
