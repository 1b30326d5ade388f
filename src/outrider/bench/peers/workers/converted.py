"""Checkpoints in the form that an engine reads, kept beside its environment by the checkpoint's hash.

Runs in a peer's own environment, so it imports nothing of Outrider and nothing that is not Python's.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

CHUNK = 1 << 20


def converted(checkpoint: str, folder: str, worker: str, *how: str) -> Path:
    """The folder that `worker convert CHECKPOINT FOLDER HOW...` filled; run the first time, whole or not at all.

    Args:
        checkpoint: the folder to convert.
        folder: of the environment.
        worker: the file that can convert.
        how: whatever else what comes out depends on.

    Raises:
        RuntimeError: it cannot be converted.
    """
    digest = hashlib.sha256(" ".join(how).encode())
    for path in sorted(Path(checkpoint).iterdir()):
        if path.suffix in {".json", ".safetensors"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    place = Path(folder) / "converted" / digest.hexdigest()[:16]
    if not place.is_dir():
        scratch = place.with_name(f"{place.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        # In a process of its own, which gives back all that it takes.
        command = [sys.executable, worker, "convert", checkpoint, str(scratch), *how]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own
        sys.stderr.write(run.stderr)
        if run.returncode != 0:
            lines = run.stderr.split("\n")
            why = next((line for line in reversed(lines) if line.strip()), f"exit code {run.returncode}")
            raise RuntimeError(f"{Path(checkpoint).name} cannot be converted: {why}")
        scratch.rename(place)
    return place
