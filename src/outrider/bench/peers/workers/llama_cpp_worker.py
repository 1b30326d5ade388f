"""llama.cpp's own server: plain, with a draft model, or by looking up the prompt; see `serve`.

A server has its speculation fixed when it starts, so there is one for each setting and number of texts at once. It is
asked over a socket in a folder that nobody else can read, with token ids, and answers with token ids. Checkpoints are
converted once, by llama.cpp's own converter, without quantising anything.
Runs in the peer's own environment and imports nothing of Outrider.
"""

from __future__ import annotations

import http.client
import json
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from converted import converted
from serve import end_with_parent, serve

DEPTHS = (2, 4, 8, 16)
LOOKUP_DEPTHS = (4, 10)
LOOKUP_NGRAM = 3
# Drafts until the draft model is less sure than this, which is what its documentation shows.
CONFIDENCE = 0.6
PRECISIONS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
START_SECONDS = 120.0
POLL_SECONDS = 0.02
# Servers share the weights, which are files in memory; what each has of its own is small.
MAX_SERVERS = 12
MIN_CONTEXT = 512
SPARE_CONTEXT = 64  # for drafts that reach beyond the end
CONVERSION = "1"  # another number when what is converted changes: what was kept is made again


class LlamaCpp:
    """Servers of one target, perhaps with a draft, started when they are first asked."""

    def __init__(self, *, target: str, draft: str | None, dtype: str, threads: int, folder: str) -> None:
        self.program = str(Path(sys.prefix) / "bin/llama-server")
        self.version = _version(self.program)
        self.dtype, self.precision, self.num_threads = dtype, PRECISIONS[dtype], threads
        self.target, self.draft = (
            converted(each, folder, __file__, CONVERSION, self.version, self.precision) if each else None
            for each in (target, draft)
        )
        self.servers: dict[tuple[str, int], Server] = {}
        self._server("plain", 1, MIN_CONTEXT)

    def describe(self) -> dict[str, Any]:
        """What is here, and how it can decode."""
        drafted = [*(f"draft {depth}" for depth in DEPTHS), f"draft until {CONFIDENCE}"] if self.draft else []
        return {
            "version": self.version,
            "versions": {},
            "settings": ["plain", *drafted, *(f"lookup {depth}" for depth in LOOKUP_DEPTHS)],
            "num_threads": self.num_threads,
            "dtype": self.dtype,
            "notes": f"its server, built for this processor; weights, keys and values {self.precision}; prompt caching "
            "off; never writes an end token",
        }

    def write(self, texts: list[dict[str, Any]], temperature: float, setting: str) -> dict[str, Any]:
        """All at once, each by a request of its own."""
        context = max(len(text["token_ids"]) + text["max_tokens"] for text in texts) + SPARE_CONTEXT
        server = self._server(setting, len(texts), context)
        with ThreadPoolExecutor(len(texts)) as threads:
            began = time.perf_counter()
            answers = list(threads.map(lambda text: server.complete(text, temperature), texts))
            seconds = time.perf_counter() - began
        return {
            "token_ids": [answer["tokens"] for answer in answers],
            "seconds": seconds,
            "first_seconds": answers[0]["timings"]["prompt_ms"] / 1000 if len(answers) == 1 else None,
        }

    def _server(self, setting: str, num_texts: int, context: int) -> Server:
        key = setting, num_texts
        server = self.servers.pop(key, None)
        if server is not None and server.context < context:
            server.close()
            server = None
        if server is None:
            if len(self.servers) >= MAX_SERVERS:
                self.servers.pop(next(iter(self.servers))).close()
            size = MIN_CONTEXT
            while size < context:
                size *= 2
            server = Server([self.program, *self._options(num_texts, size), *self._speculation(setting)], size)
        self.servers[key] = server  # the last is the one that was asked last
        return server

    def _options(self, num_texts: int, context: int) -> list[str]:
        options = {
            "model": f"{self.target}/model.gguf",
            "ctx-size": context * num_texts,
            "parallel": num_texts,
            "threads": self.num_threads,
            "cache-type-k": self.precision,
            "cache-type-v": self.precision,
            "cache-ram": 0,
            "fit": "off",
            "log-verbosity": 1,
        }
        flags = ["--no-kv-unified", "--no-cache-prompt", "--no-ui", "--no-jinja", "--offline"]
        return [*flags, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    def _speculation(self, setting: str) -> list[str]:
        kind, _, depth = setting.partition(" ")
        options: dict[str, Any] = {}
        if kind == "lookup":
            options = {
                "spec-type": "ngram-simple",
                "spec-ngram-simple-size-n": LOOKUP_NGRAM,
                "spec-ngram-simple-size-m": depth,
            }
        if kind == "draft":
            is_bounded = depth.startswith("until ")
            options = {
                "spec-type": "draft-simple",
                "spec-draft-model": f"{self.draft}/model.gguf",
                "spec-draft-n-max": DEPTHS[-1] if is_bounded else depth,
                "spec-draft-p-min": depth.removeprefix("until ") if is_bounded else 0,
                "spec-draft-type-k": self.precision,
                "spec-draft-type-v": self.precision,
            }
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]


class Server:
    """A process that answers on a socket of its own.

    Args:
        command: that starts it, but for where it listens.
        context: tokens of one text, at most.

    Raises:
        RuntimeError: it did not start.
    """

    def __init__(self, command: list[str], context: int) -> None:
        self.context = context
        self._folder = tempfile.TemporaryDirectory(prefix="llama-")
        self._socket = f"{self._folder.name}/server.sock"
        log = Path(self._folder.name) / "log"
        with log.open("wb") as file:
            # In this worker's group, so that it is stopped and goes on with it.
            self._process = subprocess.Popen(  # noqa: S603 - what was built with this environment
                [*command, "--host", self._socket],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - no thread is running then
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                code = self._process.poll()
                self.close()
                how = f"did not start within {START_SECONDS:.0f} s" if code is None else f"ended with code {code}"
                raise RuntimeError(f"llama-server {how}{f': {lines[-1]}' if lines else ''}")
            time.sleep(POLL_SECONDS)

    def complete(self, text: dict[str, Any], temperature: float) -> dict[str, Any]:
        """Nothing truncated, nothing ended: the target's own distribution at a temperature."""
        request = {
            "prompt": text["token_ids"],
            "n_predict": text["max_tokens"],
            "ignore_eos": True,
            "seed": text["seed"],
            "cache_prompt": False,
            "return_tokens": True,
            "temperature": temperature,
            **({"samplers": ["temperature"]} if temperature else {"samplers": ["top_k"], "top_k": 1}),
        }
        status, body = self._ask("POST", "/completion", json.dumps(request))
        if status != http.client.OK:
            raise RuntimeError(f"llama-server answered {status}: {body}")
        return json.loads(body)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _is_ready(self) -> bool:
        try:
            return self._ask("GET", "/health")[0] == http.client.OK
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(self._socket)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()


def _version(program: str) -> str:
    """As it says itself, in a line `version: NUMBER (build N, commit COMMIT)`."""
    run = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=START_SECONDS)  # noqa: S603
    said = [line.removeprefix("version: ") for line in (run.stdout + run.stderr).splitlines() if "version: " in line]
    if run.returncode != 0 or not said:
        raise RuntimeError(f"llama-server cannot be run: exit code {run.returncode}")
    return said[0]


def _convert(checkpoint: str, out: str, _conversion: str, _version: str, precision: str) -> None:
    """By its own converter, with how texts are split left open where it does not know: none is tokenised here."""
    converter = Path(sys.prefix) / "converter"
    sys.path[:0] = [str(converter), str(converter / "gguf-py")]
    from conversion.base import TextModel  # noqa: PLC0415 - only here

    known = TextModel.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return "default"

    TextModel.get_vocab_base_pre = get_vocab_base_pre
    sys.argv = ["convert", checkpoint, "--outtype", precision, "--outfile", f"{out}/model.gguf"]
    runpy.run_path(str(converter / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1:2] == ["convert"]:
        _convert(*sys.argv[2:])
    else:
        serve(LlamaCpp)
