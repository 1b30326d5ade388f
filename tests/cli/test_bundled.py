"""The two commands on the pair that users get."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def outrider(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "outrider", *map(str, arguments)], capture_output=True, check=True, encoding="utf-8"
    )


@pytest.mark.parametrize("temperature", [0, 1])
def test_run_writes_the_same_with_speculation_and_without(temperature):
    common = ("run", "import os\n", "--temperature", temperature, "--seed", 7, "--json", "-")
    on, off = (json.loads(outrider(*common, *switch).stdout) for switch in (("--depth", 4), ("--speculation", "off")))
    assert on["sequences"][0]["text"] == off["sequences"][0]["text"]
    assert on["sequences"][0]["acceptance_length"] > 1.5


@pytest.mark.slow
def test_demo_bears_out_what_does_not_depend_on_the_clock(tmp_path):
    outrider("demo", "--quick", "--json", tmp_path / "demo.json")
    claims = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))["claims"]
    assert all(claim["holds"] for claim in claims if not claim["name"].startswith("faster"))
