"""A quantised checkpoint from an original one, with its quality measured: a whole folder, or none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from outrider.bench.provenance import make_room, provenance, write_json
from outrider.errors import ModelError, UsageError
from outrider.model.config import read_config
from outrider.quantize.checkpoint import QUANTIZATION, Original
from outrider.quantize.quality import NUM_TOKENS, measure_quality

QUALITY_FILE = "quality.json"


def quantize(
    source: Path, out: Path, prompts: Sequence[Sequence[int]], report: Callable[[str], None], *, replaces: bool = False
) -> dict[str, Any]:
    """Make `out`, which has `quality.json` beside the checkpoint's own files; that is returned.

    Args:
        source: folder of a float32 or bfloat16 checkpoint.
        out: a folder that appears when all of it is there.
        prompts: token ids, after which the original writes what quality is measured on; at least one.
        report: is told what is being done.
        replaces: whether `out` may be there already, if it is a checkpoint that was quantised so.

    Raises:
        ModelError: the source is no checkpoint that we compute.
        UsageError: it is quantised already; the folder exists, cannot be made, or the disk is too full.
    """
    began = provenance()
    original = Original(source)
    if out.exists() and not (replaces and _is_ours(out)):
        remedy = "--force replaces only what outrider quantized: name another folder with --out"
        raise UsageError(f"{out} exists already: {remedy if replaces else 'name another with --out, or add --force'}")
    make_room(out, original.num_quantised_bytes, "the checkpoint")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            folder = Path(scratch) / "new"
            folder.mkdir()
            original.write_quantised(folder, report)
            document = {
                "provenance": began,
                "quantization": QUANTIZATION,
                "bytes": {"original": original.num_bytes, "quantized": original.num_quantised_bytes},
                "max_tokens": NUM_TOKENS,
                "quality": measure_quality(source, folder, prompts, report),
            }
            write_json(folder / QUALITY_FILE, document)
            if out.exists():
                out.replace(Path(scratch) / "old")
            folder.replace(out)
    except OSError as error:
        raise UsageError(f"cannot write {out} ({error.strerror}): make room, or name another with --out") from error
    return document


def _is_ours(folder: Path) -> bool:
    try:
        return not folder.is_symlink() and read_config(folder).is_quantised
    except ModelError:
        return False
