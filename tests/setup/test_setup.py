"""scripts/setup.sh, with a Python, a pip and a disk that only say what they are told to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

# An interpreter that can make a .venv with itself in it, whose pip fails as $PIP_SAYS.
PYTHON = """\
#!/usr/bin/env bash
case "$*" in
    *version_info*) [[ -z ${IS_OLD:-} ]] ;;
    *ensurepip*) [[ -z ${NO_VENV:-} ]] ;;
    --version) echo Python 3.12.0 ;;
    "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "command = $(pwd -P)/.venv" >.venv/pyvenv.cfg ;;
    "-m pip install "*)
        echo "$PIP_CONSTRAINT $PIP_BUILD_CONSTRAINT ${*: -1}" >>pip-calls
        [[ -z ${PIP_SAYS:-} ]] || { echo "$PIP_SAYS" >.venv/outrider-install.log; echo "ERROR: $PIP_SAYS" >&2; exit 1; }
        ;;
    *) exit 99 ;;
esac
"""
DF = """\
#!/usr/bin/env bash
echo "Filesystem 1048576-blocks Used Available Capacity Mounted on"
echo "disk 99999 0 ${FREE_MB:-9999} 0% /"
"""


class Checkout:
    """A folder with what setup.sh reads, in which it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        for name, content in (("python", PYTHON), ("df", DF)):
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(content)
            (folder / "bin" / name).chmod(0o755)

    def set_up(self, level: str = "core", **says: str) -> subprocess.CompletedProcess[str]:
        tools = self.folder / "bin"
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": str(tools / "python"), **says}
        command = [str(self.folder / "scripts/setup.sh"), level]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def refusal(self, level: str = "core", **says: str) -> str:
        """The last line of a set-up that fails, and of which nothing stays that a later one would trust."""
        done = self.set_up(level, **says)
        assert done.returncode == 1
        assert not (self.folder / ".venv/outrider-installed").exists()
        return done.stderr.splitlines()[-1]

    @property
    def installed(self) -> list[str]:
        """What pip was asked for, call by call, after the constraints."""
        calls = self.folder / "pip-calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout")


def test_a_set_up_installs_the_pinned_versions_and_the_next_one_does_nothing(checkout):
    assert checkout.set_up().returncode == 0
    assert checkout.installed == ["constraints.txt constraints.txt ."]
    again = checkout.set_up(FREE_MB="0", PIP_SAYS="no network")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(checkout.installed) == 1


def test_development_includes_the_core_but_not_the_other_way_round(checkout):
    for level in ("core", "dev", "core"):
        assert checkout.set_up(level).returncode == 0
    assert [call.split()[-1] for call in checkout.installed] == [".", ".[dev]"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_other_requirements_are_installed_anew(checkout, name):
    checkout.set_up()
    with (checkout.folder / name).open("a") as file:
        file.write("# changed\n")
    assert "installing" in checkout.set_up().stdout
    assert len(checkout.installed) == 2


def test_a_checkout_that_was_moved_is_set_up_anew(checkout):
    checkout.set_up()
    moved = Checkout(checkout.folder.rename(checkout.folder.with_name("moved")))
    assert "making .venv" in moved.set_up().stdout


def test_a_python_that_is_too_old_is_refused(checkout):
    error = checkout.refusal(IS_OLD="1")
    assert error.startswith("outrider: no Python 3.11 or newer (tried: ")
    assert not (checkout.folder / ".venv").exists()


def test_a_python_without_venv_is_refused(checkout):
    assert "install its venv module" in checkout.refusal(NO_VENV="1")


@pytest.mark.parametrize(("level", "needed"), [("core", 1000), ("dev", 3000)])
def test_a_small_disk_is_refused_before_anything_is_made(checkout, level, needed):
    error = checkout.refusal(level, FREE_MB=str(needed - 1))
    assert error.startswith(f"outrider: {needed - 1} MB free on this disk, {needed} MB needed")
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ("[Errno 28] No space left on device", "the disk is full"),
        ("Failed to establish a new connection: Temporary failure in name resolution", "no network"),
        ("Max retries exceeded with url", "no network"),
        ("No matching distribution found", "pip failed: ERROR: No matching distribution found"),
    ],
)
def test_a_pip_that_fails_is_explained_and_the_next_run_tries_again(checkout, says, said):
    assert said in checkout.refusal(PIP_SAYS=says)
    assert checkout.set_up().returncode == 0


def test_a_level_that_is_unknown_is_a_misuse(checkout):
    done = checkout.set_up("everything")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
