"""The command line: one file per verb, and here what they share: an error is one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

SUCCEEDED, FAILED, MISUSED, INCONCLUSIVE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 70, 130
# Set to anything, it has an audit that broke off say where.
SHOW_TRACEBACK = "OUTRIDER_TRACEBACK"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line, by default the process's own, and exit.

    Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 an audit could not decide, 70 an audit broke off, 130
    interrupted. An audit's 1 is what it found, so that nothing else may end in it.
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
    is_audit = arguments[:1] == ["audit"]
    failed = BROKEN if is_audit else FAILED
    try:
        exit_code = command.main(arguments or ["--help"], prog_name="outrider", standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message(), failed if error.exit_code == FAILED else error.exit_code)
    except OutriderError as error:
        return _fail(str(error), MISUSED if isinstance(error, UsageError) else failed)
    except OSError as error:
        return _fail(str(error), failed)
    except Exception as error:
        if not is_audit:
            raise
        if os.environ.get(SHOW_TRACEBACK):
            traceback.print_exc()
        words = f"the audit broke off and has found nothing yet: {type(error).__name__}: {error}"
        return _fail(f"{words} (set {SHOW_TRACEBACK}=1 to see where, and please report it)", BROKEN)
    return exit_code or SUCCEEDED


def _fail(message: str, exit_code: int) -> int:
    from outrider.cli.output import printable

    # a message may quote a checkpoint, whose control characters are no commands to this terminal
    print("outrider: error:", printable(" ".join(message.split())), file=sys.stderr)  # noqa: T201 - to the user
    return exit_code
