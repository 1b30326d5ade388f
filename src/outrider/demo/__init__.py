"""The bundled pair: a target and a draft that come with the package. Data and their card; knows nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from outrider.errors import ModelError


class BundledPair(NamedTuple):
    """Folders of two checkpoints with one tokenizer, small enough for any machine; both continue Python.

    Attributes:
        target: the deep one, whose text is wanted.
        draft: the shallow one, distilled from it.
    """

    target: Path
    draft: Path


def bundled_pair() -> BundledPair:
    """Where the bundled pair lies.

    Raises:
        ModelError: the package was installed without its data.

    Example:
        >>> from outrider import bundled_pair
        >>> bundled_pair().target.name, bundled_pair().draft.name
        ('target', 'draft')
    """
    folder = Path(__file__).parent / "pair"
    pair = BundledPair(target=folder / "target", draft=folder / "draft")
    for checkpoint in pair:
        if not (checkpoint / "config.json").exists():
            raise ModelError(
                f"the bundled {checkpoint.name} is missing: {checkpoint} holds no config.json; install Outrider again, "
                "or name a checkpoint of your own with --target"
            )
    return pair
