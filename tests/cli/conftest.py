"""The command line in this process, with a tiny pair in the place of the bundled one."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from outrider import LLM
from outrider.cli import main
from outrider.demo import BundledPair
from tests.cli.tiny import make_tiny


class Outcome(NamedTuple):
    """What a command line came to."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line of a user's mistake, perhaps after that about memory; anything else fails the test."""
        assert self.exit_code == 2, self
        assert not self.stdout
        assert self.stderr.endswith("\n")
        *before, error = self.stderr.splitlines()
        assert error.startswith("outrider: error: ")
        assert len(before) <= 2
        # Tests run two files at a time, so that one may wait for another's timed run.
        expected = ("outrider: memory: ", "waiting for another timed run")
        assert all(line.startswith(expected) for line in before)
        return error


Outrider = Callable[..., Outcome]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where first loads are remembered, the same for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory) -> BundledPair:
    root = tmp_path_factory.mktemp("pair")
    return BundledPair(
        target=make_tiny(root / "target", scale=2.0), draft=make_tiny(root / "draft", seed=1, num_hidden_layers=1)
    )


@pytest.fixture(scope="session")
def long_target(tmp_path_factory, cache) -> Path:
    """One that writes until it is stopped."""
    folder = make_tiny(tmp_path_factory.mktemp("long") / "target", max_position_embeddings=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_CACHE", str(cache))
        LLM(folder)  # checked and timed here, where the means are loaded already, and not by each process anew
    return folder


@pytest.fixture
def outrider(monkeypatch, capsys, cache, tiny_pair) -> Outrider:
    """Run a command line; `stdin` is what is piped in, None a terminal."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(cache))
    monkeypatch.setattr("outrider.cli.models.bundled_pair", lambda: tiny_pair)
    monkeypatch.setattr("outrider.cli.demo.bundled_pair", lambda: tiny_pair)
    monkeypatch.setattr("outrider.cli.recipes.bundled_pair", lambda: tiny_pair)

    def run(*arguments: object, stdin: bytes | None = None) -> Outcome:
        monkeypatch.setattr(sys, "stdin", Terminal() if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        return Outcome(exit_.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def interrupt_while_waiting(monkeypatch):
    """Has Ctrl-C pressed while a command of this module waits for another timed run."""

    @contextmanager
    def waiting(say_waiting):
        say_waiting()
        # What is in force is called, not signalled: were nothing in force, a signal would end the tests.
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler), f"Ctrl-C would do {handler!r}"
        handler(signal.SIGINT, None)
        yield

    return lambda module: monkeypatch.setattr(module, "machine_to_ourselves", waiting)


@pytest.fixture
def audit(outrider, tiny_pair, tmp_path):
    """Three prompts, and as draft the target itself, so that guesses are accepted."""
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "import os"}, {"prompt": "import os\nimport re" * 9}, {"prompt": "x", "name": "\x1b[2J"}]
    prompts.write_text("\n".join(map(json.dumps, lines)))

    def run(*arguments, drafts=("suffix", tiny_pair.target)):
        given = [word for draft in drafts for word in ("--draft", draft)]
        return outrider(
            "audit",
            "--target",
            tiny_pair.target,
            *given,
            "--prompts",
            prompts,
            "--max-tokens",
            12,
            "--batch",
            "1,3",
            *arguments,
        )

    return run
