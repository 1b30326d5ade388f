"""A llama-server that computes nothing: it writes the numbers from 0 on, and notes how it was started and asked."""

from __future__ import annotations

import json
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

NOTES = Path(__file__).with_name("notes")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(request)
        if request["n_predict"] > 1000:
            self.answer({"error": "too long"}, 400)
        self.answer({"tokens": [*range(request["n_predict"])], "timings": {"prompt_ms": 1.5}})

    def answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "local"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def note(what):
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    if "--version" in sys.argv:
        sys.stderr.write("version: 7 (build 1, commit abc)\nbuilt with a compiler\n")
        sys.exit()
    note({"started": sys.argv[1:], "pid": os.getpid()})
    if "draft-simple" in sys.argv:
        sys.exit("no such draft")
    Server(sys.argv[sys.argv.index("--host") + 1], Handler).serve_forever()
