"""`outrider audit verifier`: import a verifier by its name, have it enumerated, say how far it is from the target."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import typer

from outrider.cli import FAILED
from outrider.cli.output import STDOUT, printable, save_json
from outrider.errors import UsageError
from outrider.verify.enumerate import Certificate, certify


def show_certificate(name: str, json: str | None) -> None:
    """Certify a verifier.

    Raises:
        UsageError: there is no such verifier.
    """
    verifier = find_verifier(name)
    certificate = _certify(verifier)
    distance = certificate.distance
    stream = sys.stderr if json == STDOUT else sys.stdout
    found = "lossless: exactly the target's distribution" if distance == 0 else "NOT LOSSLESS"
    lines = [f"{name}: {found}", f"largest total variation {distance} in {certificate.num_cases:,} cases"]
    if distance != 0:
        lines.append(f"worst case: {certificate.worst_case}")
    for line in lines:
        print(printable(line), file=stream)
    if json is not None:
        document = {
            "verifier": name,
            "distance": str(distance),
            "num_cases": certificate.num_cases,
            "worst_case": None if distance == 0 else str(certificate.worst_case),
        }
        save_json(json, document)
    if distance != 0:
        raise typer.Exit(FAILED)


def find_verifier(name: str) -> Any:
    """What MODULE:FUNCTION names, the current folder's modules included.

    Raises:
        UsageError: it names nothing that can be called.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"the verifier is {name!r}, but must be MODULE:FUNCTION, such as my_verifier:verify")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(f"cannot import {module_name} ({type(error).__name__}: {error}): check the name") from error
    finally:
        sys.path.remove(folder)
    verifier = getattr(module, attribute, None)
    if not callable(verifier):
        what = "nothing" if verifier is None else f"a {type(verifier).__name__}"
        raise UsageError(f"{module_name} has {what} named {attribute!r}: name a function or a class")
    return verifier


def _certify(verifier: Any) -> Certificate:
    """Enumerate it; a class is made one of first. Whatever it raises is said in one line.

    Raises:
        UsageError: it is none that can be enumerated.
    """
    try:
        return certify(verifier() if isinstance(verifier, type) else verifier)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the verifier raised {type(error).__name__} ({error}): it is called with a tree and a round"
        ) from error
