"""The options of `outrider bench` that are about servers, and which others apply to them. Knows no connections."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from outrider.errors import ParameterError, UsageError

if TYPE_CHECKING:
    from outrider.bench.remote.endpoint import Endpoint
    from outrider.bench.workloads import Workload

KEY, AGAINST_KEY = "OUTRIDER_API_KEY", "OUTRIDER_AGAINST_API_KEY"
MAX_TIMEOUT = 86_400.0
# What is about our own engine, and what only about servers.
OWN = ("target", "draft", "recipe", "depth", "verify", "threads", "exactness", "peers", "peer_python")
REMOTE = ("model", "against_url", "chat", "timeout")

Url = Annotated[
    str | None, typer.Option(metavar="URL", help=f"A server to measure, in place of models; its key: {KEY}.")
]
AgainstUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="With --url: a second server, as one without speculation.")
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="With --url: how long texts that are written at once may take.")
]


class RemoteOptions(NamedTuple):
    """What is asked about servers."""

    url: str
    model: str | None
    against_url: str | None
    chat: bool
    timeout: float


class Common(NamedTuple):
    """What is measured, whatever it is measured on: the fields that all plans have."""

    workloads: tuple[Workload, ...]
    temperatures: tuple[float, ...]
    concurrencies: tuple[int, ...]
    num_runs: int
    max_tokens: int
    seed: int


def check_remote_options(context: typer.Context) -> None:
    """Raise UsageError for options that do not apply together."""
    sources = {name: context.get_parameter_source(name) for name in (*OWN, *REMOTE)}
    is_given = {name: source is not None and source.name != "DEFAULT" for name, source in sources.items()}
    has_url = context.params["url"] is not None
    for name in OWN if has_url else REMOTE:
        if is_given[name]:
            option = f"--{name.replace('_', '-')}"
            if has_url:
                raise UsageError(f"{option} is about models here, but --url measures a server: leave one out")
            raise UsageError(f"{option} is about a server: name it with --url, or leave it out")


def measure_servers(options: RemoteOptions, common: Common, json: str | None, html: Path | None) -> None:
    """Check what was asked, and measure it.

    Raises:
        UsageError: an address, a key or a time is unsound, or a server cannot be measured.
    """
    if not 0 < options.timeout <= MAX_TIMEOUT:  # a NaN, too
        raise ParameterError(f"--timeout is {options.timeout:g}, but must be above 0 and {MAX_TIMEOUT:g} at most")

    from outrider.bench.remote.compare import RemotePlan
    from outrider.cli.bench_url_show import Asking, show_servers

    plan = RemotePlan(**common._asdict(), timeout=options.timeout)
    show_servers(Asking(_endpoints(options), options.model, options.chat), plan, json, html)


def _endpoints(options: RemoteOptions) -> list[Endpoint]:
    """Of one server or two, each with the key that is for it.

    A second server on another host does not get the first one's key.
    """
    from outrider.bench.remote.endpoint import parse_endpoint

    first = parse_endpoint(options.url, "--url", _key(KEY))
    if options.against_url is None:
        return [first]
    second = parse_endpoint(options.against_url, "--against-url")
    key = _key(AGAINST_KEY) or (first.key if second.host == first.host else None)
    return [first, parse_endpoint(options.against_url, "--against-url", key)]


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ParameterError(f"{variable} holds characters that no key has: set it to the key alone")
    return key or None
