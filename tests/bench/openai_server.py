"""A small server that speaks OpenAI's API well, or badly in many ways, with planned delays and counters of drafts."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"


def words(count: int, seed: int = 0) -> list[str]:
    """Pieces of a text that does not repeat itself."""
    return [f" w{seed}x{number}" for number in range(count)]


@dataclass
class Behaviour:
    """What the server does. `handle` may take over a request for a text wholly; it returns whether it did."""

    pieces: Callable[[dict[str, Any]], list[str]] = lambda body: words(body["max_tokens"], body.get("seed", 0))
    first_delay: float = 0.0
    piece_delay: float = 0.001
    models: Any = field(default_factory=lambda: {"data": [{"id": MODEL}]})
    has_completions: bool = True
    has_usage: bool = True
    tokens_per_piece: int = 1
    cached: int | None = None
    refused: tuple[str, ...] = ()
    key: str | None = None
    timings: dict[str, int] | None = None
    metrics: Callable[[Server], str] | None = None
    handle: Callable[[Handler, dict[str, Any]], bool] = lambda handler, body: False


@dataclass
class Server:
    """What was asked of it."""

    url: str
    behaviour: Behaviour
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    num_tokens: int = 0
    num_running: int = 0
    most_running: int = 0
    lock: Any = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.state.paths.append(self.path)
        metrics = self.state.behaviour.metrics
        if self.path.endswith("/models"):
            self.answer(200, self.state.behaviour.models)
        elif self.path == "/metrics" and metrics is not None:
            self.answer(200, metrics(self.state), "text/plain")
        else:
            self.answer(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        state, behaviour = self.state, self.state.behaviour
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state.paths.append(self.path)
        state.bodies.append(body)
        state.keys.append(self.headers["Authorization"])
        if behaviour.key is not None and self.headers["Authorization"] != f"Bearer {behaviour.key}":
            self.answer(401, {"error": {"message": f"not {self.headers['Authorization']}", "code": 401}})
        elif self.path.endswith("/v1/completions") and not behaviour.has_completions:
            self.answer(404, {"detail": "Not Found"})
        elif refused := [name for name in behaviour.refused if name in body]:
            self.answer(400, {"error": f"Unexpected keys in the request: {refused[0]}"})
        elif not behaviour.handle(self, body):
            self.write_text(body)

    def answer(self, status: int, document: Any, kind: str = "application/json") -> None:
        content = (document if isinstance(document, str) else json.dumps(document)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin(self, kind: str = "text/event-stream; charset=utf-8") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, document: Any) -> None:
        self.send(b"data: " + json.dumps(document).encode() + b"\n\n")

    def choice(self, text: str, finish: str | None = None) -> dict[str, Any]:
        is_chat = "chat" in self.path
        part = {"delta": {"content": text}} if is_chat else {"text": text}
        return {"choices": [{"index": 0, **part, "finish_reason": finish}], "usage": None}

    def write_text(self, body: dict[str, Any]) -> None:
        state, behaviour = self.state, self.state.behaviour
        with state.lock:
            state.num_running += 1
            state.most_running = max(state.most_running, state.num_running)
        pieces = behaviour.pieces(body)
        self.begin()
        self.send(b": a comment that keeps the connection alive\r\n\r\n")
        if "chat" in self.path:
            self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        time.sleep(behaviour.first_delay)
        for piece in pieces:
            self.event(self.choice(piece))
            time.sleep(behaviour.piece_delay)
        self.end_text(pieces, body)
        with state.lock:
            state.num_running -= 1

    def end_text(self, pieces: list[str], body: dict[str, Any]) -> None:
        behaviour, num_tokens = self.state.behaviour, len(pieces) * self.state.behaviour.tokens_per_piece
        self.state.num_tokens += num_tokens
        last = self.choice("", "length")
        if behaviour.timings is not None:
            last["timings"] = behaviour.timings
        self.event(last)
        if behaviour.has_usage and body.get("stream_options", {}).get("include_usage"):
            details = None if behaviour.cached is None else {"cached_tokens": behaviour.cached}
            usage = {"prompt_tokens": 10, "completion_tokens": num_tokens, "prompt_tokens_details": details}
            self.event({"choices": [], "usage": usage})
        self.send(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """End the connection in the middle of whatever was sent."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@contextmanager
def serving(**behaviour: Any) -> Iterator[Server]:
    """A server on a port of this machine, until the end."""

    class Bound(Handler):
        pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away is what some tests are about

    server = Quiet(("127.0.0.1", 0), Bound)
    Bound.state = Server(f"http://127.0.0.1:{server.server_port}", Behaviour(**behaviour))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Bound.state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def vllm_metrics(num_extra: int = 0) -> Callable[[Server], str]:
    """Counters as vLLM has them: of four tokens, one step that drafted four and kept three."""

    def write(state: Server) -> str:
        num_steps = state.num_tokens // 4
        lines = ["# HELP vllm:spec_decode_num_drafts Number of drafts.", "# TYPE vllm:spec_decode_num_drafts counter"]
        values = {
            "vllm:spec_decode_num_drafts_total": num_steps,
            "vllm:spec_decode_num_draft_tokens_total": 4 * num_steps,
            "vllm:spec_decode_num_accepted_tokens_total": 3 * num_steps,
            "vllm:generation_tokens_total": state.num_tokens + num_extra * len(state.paths),
        }
        lines += [f'{name}{{engine="0",model_name="tiny"}} {float(value)}' for name, value in values.items()]
        lines += [
            f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="{depth}"}} {num_steps}.0'
            for depth in range(3)
        ]
        return "\n".join(lines) + "\n"

    return write
