"""A server's address, and a connection to it that another thread can cut. Knows HTTP, and nothing of what is asked.

HTTP is the standard library's: no redirect is followed and no proxy used, so a key goes to the server that it is for,
and to nobody else. All that can go wrong is a UsageError of one line.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, LineTooLong
from typing import Any, cast
from urllib.parse import urlsplit

from outrider.errors import ParameterError, UsageError

MAX_ERROR_BYTES = 64 * 1024
MAX_SHOWN = 300
_ADVICE = {
    400: "change what it objects to",
    401: "set OUTRIDER_API_KEY to a key that it takes",
    403: "set OUTRIDER_API_KEY to a key that may do this",
    404: "check the address, and --model",
    422: "change what it objects to",
    429: "lower --concurrency",
    503: "lower --concurrency, or wait until it is ready",
}


class RefusedError(UsageError):
    """The server answered, but not with what was asked for.

    Attributes:
        status: of HTTP.
        message: the server's own, shortened.
    """

    def __init__(self, endpoint: Endpoint, path: str, status: int, message: str) -> None:
        self.status, self.message = status, message
        moved = "name the address that it moved to" if 300 <= status < 400 else "look into its log"
        said = f": {message}" if message else ""
        super().__init__(f"{endpoint} answers {status} to {path}{said}; {_ADVICE.get(status, moved)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an OpenAI-compatible server is.

    Attributes:
        path: that its requests begin with, up to and including "/v1".
        key: for its authorization header; in no message and no file.
    """

    is_secure: bool
    host: str
    port: int
    path: str
    key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Its origin, such as http://localhost:8000."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"

    @property
    def root(self) -> str:
        """What stands before /v1, where servers have their metrics."""
        return self.path.removesuffix("/v1")

    def shown(self, text: str) -> str:
        """A server's words, for a message: short, on one line, and without the key that it may have quoted."""
        words = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return words if len(words) <= MAX_SHOWN else words[:MAX_SHOWN] + "..."


def parse_endpoint(url: str, option: str, key: str | None = None) -> Endpoint:
    """An address as a user writes it, with or without /v1.

    Raises:
        ParameterError: it is no such address, or holds what belongs elsewhere; the message names the option.
    """
    example = "such as http://localhost:8000"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ParameterError(f"{option} is no address ({error}): write one {example}") from error
    if parts.username is not None or parts.query or parts.fragment:
        # Not quoted: it may hold a password.
        raise ParameterError(f"{option} has more than a host and a path: keys stand in OUTRIDER_API_KEY alone")
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or not parts.path.isascii():
        raise ParameterError(f"{option} is {url!r}, but must be an address {example}")
    path = parts.path.rstrip("/")
    is_secure = parts.scheme == "https"
    return Endpoint(
        is_secure=is_secure,
        host=parts.hostname,
        port=port if port is not None else 443 if is_secure else 80,
        path=path if path.endswith("/v1") else path + "/v1",
        key=key,
    )


class Line:
    """One connection to a server: `open`, `ask`, `close`; any thread may `cut` it.

    Args:
        endpoint: the server.
        seconds: that it may be silent.
    """

    def __init__(self, endpoint: Endpoint, seconds: float) -> None:
        self.endpoint = endpoint
        self._seconds = seconds
        kind = HTTPSConnection if endpoint.is_secure else HTTPConnection
        self._connection = kind(endpoint.host, endpoint.port, timeout=seconds)
        # The connection forgets its socket as soon as an answer says that it will be the last.
        self._socket: socket.socket | None = None
        self._is_cut = False

    def open(self) -> None:
        """Connect."""
        with self.readable_errors():
            self._connection.connect()
        self._socket = self._connection.sock
        if self._is_cut:
            self.cut()

    def ask(self, method: str, path: str, body: object = None) -> HTTPResponse:
        """Send a request; the answer has status 200, and its body is yet to be read.

        Args:
            method: GET or POST.
            path: on the server.
            body: what becomes JSON.

        Raises:
            RefusedError: the status is another.
            UsageError: the connection failed.
        """
        headers = {"Accept-Encoding": "identity"}
        if self.endpoint.key is not None:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        with self.readable_errors():
            self._connection.request(method, path, content, headers)
            response = self._connection.getresponse()
            if response.status != 200:
                words = _words_of(response.read(MAX_ERROR_BYTES)) or response.reason
                raise RefusedError(self.endpoint, path, response.status, self.endpoint.shown(words))
        return response

    def cut(self) -> None:
        """End whatever is under way, in whichever thread."""
        self._is_cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    @contextmanager
    def readable_errors(self) -> Generator[None]:
        """What may go wrong with a connection, as a UsageError that says what to try."""
        here = self.endpoint
        try:
            yield
        except (socket.gaierror, UnicodeError) as error:
            raise UsageError(f"there is no host {here.shown(here.host)!r}: check the address {here}") from error
        except TimeoutError as error:
            raise UsageError(f"{here} said nothing for {self._seconds:g} s: raise --timeout") from error
        except ssl.SSLError as error:
            why = error.reason or "TLS failed"
            raise UsageError(f"no secure connection with {here} ({why}): check whether it is http or https") from error
        except ConnectionRefusedError as error:
            raise UsageError(f"nothing listens at {here}: start the server, or check the address") from error
        except LineTooLong as error:
            raise UsageError(f"{here} sends lines that are too long: check that it is the server meant") from error
        except BadStatusLine as error:
            # An end without any answer is one of these too.
            raise UsageError(f"{here} ends the connection or speaks no HTTP: check the port, and its log") from error
        except (HTTPException, ConnectionError) as error:
            raise UsageError(f"the connection with {here} was cut: look into its log") from error
        except OSError as error:
            raise UsageError(f"cannot reach {here} ({error.strerror or error}): check the address") from error


def read_json(line: Line, path: str, most: int) -> Any:
    """What the server answers to a GET of JSON.

    Raises:
        UsageError: it is none, has more than `most` bytes, or did not come.
    """
    content = read_body(line, path, most)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{line.endpoint} answers {path} with no JSON: check the address") from error


def read_body(line: Line, path: str, most: int) -> bytes:
    """What the server answers to a GET. Raises as `read_json`."""
    response = line.ask("GET", path)
    with line.readable_errors():
        content = response.read(most + 1)
    if len(content) > most:
        raise UsageError(f"{line.endpoint} answers {path} with more than {most} bytes: check the address")
    return content


def message_in(document: object) -> str:
    """The words of an error in JSON, in any of the forms that servers have; empty where there are none."""
    while isinstance(document, dict):
        values = cast("dict[str, object]", document)
        document = next((values[key] for key in ("error", "message", "detail") if values.get(key)), "")
    return document if isinstance(document, str) else json.dumps(document) if document else ""


def _words_of(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    with suppress(ValueError, RecursionError):
        return message_in(json.loads(text))
    return text.partition("\n")[0]
