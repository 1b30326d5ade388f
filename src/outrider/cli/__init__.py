"""The command line: one file per verb, and here what they share: an error is one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

SUCCEEDED, FAILED, MISUSED, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line, by default the process's own, and exit.

    Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 an audit could not decide, 130 interrupted.
    """
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    # Here and not above, so that importing this module costs nothing and an interrupted import is answered too.
    try:
        import typer
        from typer.main import get_command

        from outrider.cli.app import app
        from outrider.errors import OutriderError, UsageError
    except KeyboardInterrupt:
        return INTERRUPTED
    command = get_command(app)
    try:
        exit_code = command.main(arguments or ["--help"], prog_name="outrider", standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except OutriderError as error:
        return _fail(str(error), MISUSED if isinstance(error, UsageError) else FAILED)
    except OSError as error:
        return _fail(str(error), FAILED)
    return exit_code or SUCCEEDED


def _fail(message: str, exit_code: int) -> int:
    from outrider.cli.output import printable

    # a message may quote a checkpoint, whose control characters are no commands to this terminal
    print("outrider: error:", printable(" ".join(message.split())), file=sys.stderr)  # noqa: T201 - to the user
    return exit_code
