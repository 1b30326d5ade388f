"""From what the user called a model to a folder with its files. Knows nothing of what is in them."""

from __future__ import annotations

import re
from pathlib import Path

from outrider.errors import ModelError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_checkpoint(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint: `name` itself, or what the hub has under this id, downloaded once.

    `revision` is a branch, tag or commit on the hub; a folder has none, and is taken as it is.

    Raises:
        ModelError: there is no such folder, and no such model on the hub or no network.
    """
    try:
        folder = Path(name).expanduser()
    except RuntimeError as error:
        raise ModelError(f"{str(name)!r} is in a home folder that cannot be found: give the folder's path") from error
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{folder} is a file, but a model is a folder: give the one that holds its config.json")
    if not HUB_ID.fullmatch(str(name)):
        raise ModelError(f"{str(name)!r} is not a folder, nor owner/name on the Hugging Face hub: check the path")
    return _download(str(name), revision)


def _download(hub_id: str, revision: str | None) -> Path:
    # takes longer to import than all the rest of a local start, and its annotations are incomplete
    from huggingface_hub import snapshot_download  # noqa: PLC0415 # pyright: ignore[reportUnknownVariableType]

    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=["*.json", "*.jinja", "model*.safetensors"],
                ignore_patterns=["*/*"],
            )
        )
    except Exception as error:  # the hub's own errors, those of its HTTP client and the disk's have no common base
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"there is no folder {hub_id}, and the Hugging Face hub did not give a model of this name ({reason}): "
            "check the spelling and the network, or download it and give its folder"
        ) from error
