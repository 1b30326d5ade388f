"""Where a number comes from, and how a result file is written: whole, or not at all. Knows no models and no results."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import outrider
from outrider.errors import UsageError

PACKAGES = ("numpy", "openvino", "tokenizers", "torch", "transformers")
# Instructions that decide which kernels run, and so both the speed and the rounding.
FLAGS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)


def provenance() -> dict[str, Any]:
    """Command line, revision, versions, hardware, load and time of this process.

    Names no folder of this machine: of an absolute path in the command line it keeps the last part.
    """
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *map(_without_folders, sys.argv[1:])]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "versions": _versions(),
        "hardware": _hardware(),
        "load_average": os.getloadavg(),
    }


def check_writable(path: Path) -> None:
    """Make sure that `write_json` can write there later.

    Raises:
        UsageError: it cannot; nothing was changed.
    """
    path = path.resolve()
    try:
        if _is_device(path):
            _check_device(path)
        else:
            scratch = _scratch(path)
            scratch.open("x").close()
            scratch.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def make_room(folder: Path, num_bytes: int, what: str) -> None:
    """Make the folders above a new one, if so many bytes can be written there.

    Args:
        folder: that is to be made.
        num_bytes: of its files; a tenth more is asked for.
        what: it will hold, for the message: "the pair".

    Raises:
        UsageError: it cannot; nothing was changed.
    """
    try:
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            raise UsageError(f"{above} is no folder, so {folder.name} cannot be made in it: name another with --out")
        num_free = shutil.disk_usage(above).free
        if num_free < 1.1 * num_bytes:
            raise UsageError(
                f"{what} takes {num_bytes / 1e9:.2f} GB, but {num_free / 1e9:.2f} GB are free in {above}: make room"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder.parent} ({error.strerror}): name another with --out") from error


def write_json(path: Path, document: Any) -> None:
    """Write a result as JSON, as `write_text` does."""
    write_text(path, to_json(document))


def write_text(path: Path, text: str) -> None:
    """Write a result; a reader finds the old file or the new one, never a part.

    Raises:
        UsageError: it cannot be written.
    """
    path = path.resolve()
    try:
        if _is_device(path):
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path, text)
    except OSError as error:
        raise _unwritable(path, error) from error


def to_json(document: Any) -> str:
    """A document as result files have it; a NaN would be a bug of ours, since JSON has none."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # An argument that was no UTF-8 is a str with lone surrogates; Python escapes them just as JSON does.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _replace(path: Path, text: str) -> None:
    scratch = _scratch(path)
    try:
        with scratch.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _is_device(path: Path) -> bool:
    """Whether this is a pipe or a device (such as the null device), which must not be replaced by a file."""
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


def _check_device(path: Path) -> None:
    if not path.is_fifo():
        path.open("a").close()  # refuses a folder, too
    elif not os.access(path, os.W_OK):  # a pipe that is opened and closed has come to its end for its reader
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path} ({error.strerror}): name a file in a folder that exists and is writable")


def _without_folders(argument: str) -> str:
    """`/a/b/c` as `c`, and `--option=/a/b/c` as `--option=c`."""
    return re.sub(r"^(--[\w-]+=)?/(.*/)?(?=.)", r"\1", argument)


def _revision() -> dict[str, Any] | None:
    """Commit of the checkout that this file belongs to; None where it was installed from a package."""
    here = Path(__file__)
    # An installed package may lie inside somebody else's repository, which does not track it.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    # What is measured and what measures; a result file that was just written anew changes neither.
    source = (":/src", ":/benchmarks/*.py")
    return {
        "commit": _git(here.parent, "rev-parse", "HEAD"),
        "modified": bool(_git(here.parent, "status", "--porcelain", "--untracked-files=no", "--", *source)),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {"outrider": outrider.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    facts = _processor_facts(Path("/proc/cpuinfo"))
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": facts.get("model name") or platform.processor(),
        "num_cores": os.cpu_count(),
        "num_usable_cores": _num_usable_cores(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _num_usable_cores() -> int | None:
    # Only Linux can bind a process to some of the cores.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _processor_facts(path: Path) -> dict[str, str]:
    """The first processor's entries, where the system lists them."""
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
