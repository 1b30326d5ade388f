"""A peer in a process of its own, that computes only while it is asked. Knows lines of JSON, not what they say.

Libraries keep threads that wait for work by spinning, which on few cores would slow whoever computes next. So a worker
is stopped (SIGSTOP) as soon as it has answered, and goes on (SIGCONT) when it is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_LOG_BYTES = 16 * 1024
MAX_REASON_LENGTH = 300
POLL_SECONDS = 0.2


class PeerError(Exception):
    """A peer cannot do what it was asked; the message is one line, without its name."""


class GivenUpError(Exception):
    """The user wants it to end."""


class Worker:
    """A child that answers lines with lines.

    Args:
        command: to run.
        environment: added to this process's.
        is_wanted: whether the user wants it to end.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], is_wanted: Callable[[], bool] = lambda: False
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the worker
        self._is_wanted = is_wanted
        self._unread = b""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what the user named
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **environment},
                start_new_session=True,  # so that its own children are stopped with it, and Ctrl-C is ours alone
            )
        except OSError as error:
            raise PeerError(f"{command[0]} cannot be run ({error.strerror})") from error

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Its answer; it computes until then, and not after.

        Args:
            request: to send.
            seconds: that it may take.

        Raises:
            PeerError: it says so, takes too long, or has ended; in the last two it is gone for good.
            GivenUpError: the user wants it to end.
        """
        self._signal(signal.SIGCONT)
        try:
            answer = self._answer(request, time.monotonic() + seconds, seconds)
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise PeerError(_one_line(str(answer["error"])))
        return answer

    def close(self) -> None:
        """End it, whatever it does."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):  # what could not be sent any more
                cast("Any", file).close()

    def _answer(self, request: Mapping[str, Any], deadline: float, seconds: float) -> dict[str, Any]:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerError(self._why_ended()) from None
        line = self._line(deadline, seconds)
        try:
            answer: object = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PeerError(f"answered no JSON object, but {_one_line(line.decode(errors='replace'))!r}")
        return cast("dict[str, Any]", answer)

    def _line(self, deadline: float, seconds: float) -> bytes:
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if self._is_wanted():
                    raise GivenUpError
                is_late = time.monotonic() > deadline
                if is_late or len(self._unread) > MAX_ANSWER_BYTES:
                    self._signal(signal.SIGKILL)
                    self._process.wait()
                    how = f"within {seconds:.0f} s" if is_late else f"within {MAX_ANSWER_BYTES} bytes"
                    raise PeerError(f"did not answer {how}")
                if selector.select(POLL_SECONDS):
                    part = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not part:
                        raise PeerError(self._why_ended())
                    self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _why_ended(self) -> str:
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log.tell() - MAX_LOG_BYTES, 0))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{how}: {_one_line(lines[-1])}" if lines else how

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON_LENGTH else line[:MAX_REASON_LENGTH] + " ..."
