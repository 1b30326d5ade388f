"""benchmarks/gpu.sh runs from end to end, small and without a GPU, and without OpenVINO, typer and rich."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.architecture.sources import ROOT

# What Python imports at its start, before the script: it hides what a plain CUDA image lacks.
HIDING = """
import sys
sys.modules.update(dict.fromkeys(("openvino", "typer", "rich")))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_part_is_measured_and_saved(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    search_path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHONPATH": search_path, "PYTHON": sys.executable}
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "--tiny", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu_tiny.json").read_text())
    assert max(found["parity"].values()) < 1e-3
    assert all(each["texts_that_differ"].startswith("0 of ") for each in found["identity"].values())
    speed = found["speed"]
    assert set(speed["T=0"]["by_depth"]) == {"0", "2"}
    assert speed["T=0"]["by_depth"]["2"]["tokens_per_step"] > 1.5
    assert speed["T=0"]["by_depth"]["2"]["over_ideal"] > 0
    assert set(speed["transformers"]) == {"plain", "assisted"}
