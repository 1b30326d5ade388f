"""Targets with their draft models for the grid of predictions: the bundled pair, and full-price pairs of one target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from outrider import EngineConfig, bundled_pair
from outrider.bench.pairs import PAIR_FILE, SIZES, PairPlan, make_pair
from outrider.check.stand import Stand
from outrider.draft.model import ModelDrafter
from outrider.engine.load import LoadedModel, make_member
from outrider.runtime.profile import DRAFT_WIDTHS, measure_profile, warm_up

SHARED_TARGET = "0.5b"
AGREEMENTS = (0.4, 0.6, 0.8, 0.95, 0.98)
CONFIG = EngineConfig(max_sequences=36)


class Pairs(NamedTuple):
    """One engine, and the draft models that it may draft with.

    Attributes:
        target: what it is called.
        stand: with the target and one of the draft models.
        drafts: by pair.
    """

    target: str
    stand: Stand
    drafts: dict[str, ModelDrafter]

    def use(self, pair: str) -> None:
        """Draft with this pair's draft from now on; for plain decoding it does not matter with which."""
        self.stand.use([self.drafts.get(pair) or next(iter(self.drafts.values()))])


def load_bundled() -> Pairs:
    stand = Stand.load(*bundled_pair(), CONFIG)
    return Pairs("bundled", stand, {"bundled": model_of(stand)})


def load_full_price(folder: Path) -> Pairs:
    """The pairs of the 0.5 B target, which are made if they are not there.

    Raises:
        SystemExit: their targets differ.
    """
    folders = {f"{SHARED_TARGET}-{agreement:g}": agreement for agreement in AGREEMENTS}
    for name, agreement in folders.items():
        if not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            plan = PairPlan(shape=SIZES[SHARED_TARGET], agreement=agreement)
            make_pair(bundled_pair(), folder / name, plan, print)
    documents = [json.loads((folder / name / PAIR_FILE).read_text()) for name in folders]
    if len({document["files"]["target/model.safetensors"]["sha256"] for document in documents}) > 1:
        raise SystemExit(f"the pairs in {folder} have different targets: remove them, they will be made again")
    first, *others = folders
    stand = Stand.load(folder / first / "target", folder / first / "draft", CONFIG)
    drafts = {first: model_of(stand)}
    loaded = LoadedModel(stand.llm.target, stand.llm.tokenizer)
    for name in others:
        member = make_member(folder / name / "draft", loaded, stand.llm.config)
        assert isinstance(member, ModelDrafter)
        # As loading with an engine does it.
        profile = measure_profile(member.runtime, DRAFT_WIDTHS)
        member.runtime.set_change_price(profile.change_seconds, profile.change_rows)
        warm_up(member.runtime)
        drafts[name] = member
    return Pairs(SHARED_TARGET, stand, drafts)


def model_of(stand: Stand) -> ModelDrafter:
    (draft,) = (each for each in stand.candidates[stand.model or ""] if isinstance(each, ModelDrafter))
    return draft
