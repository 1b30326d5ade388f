"""The drafters that take turns in the demo, one of them with random weights. Knows no measurements."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence as Sequences
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from outrider.demo import BundledPair
from outrider.draft.base import Draft, Drafter
from outrider.draft.none import NoDrafter
from outrider.draft.suffix import SuffixDrafter
from outrider.engine.llm import LLM
from outrider.engine.load import LoadedModel, make_member
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree, Verdict

DrafterName = Literal["none", "draft model", "suffix", "random weights"]
SPECULATIVE: tuple[DrafterName, ...] = ("draft model", "suffix", "random weights")
RANDOM_SEED = 0
# What an untrained model has: small, so that its guesses are spread over the whole vocabulary.
RANDOM_SCALE = 0.02


class Turns(Drafter):
    """One drafter at a time, so that all of them draft for one loaded target; whose turn it is may change when idle."""

    name = "turns"

    def __init__(self) -> None:
        self.current: Drafter = NoDrafter()

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        return self.current.propose(sequences, budgets)

    def observe(self, sequence: Sequence, tree: TokenTree, verdict: Verdict) -> None:
        self.current.observe(sequence, tree, verdict)

    def release(self, sequence: Sequence) -> None:
        self.current.release(sequence)


class Contest:
    """One target and all its drafters, loaded."""

    def __init__(self, pair: BundledPair) -> None:
        self._turns = Turns()
        self.llm = LLM(pair.target, draft=self._turns)
        self.drafters: dict[DrafterName, Drafter] = {
            "none": NoDrafter(),
            "draft model": self._load(pair.draft),
            "suffix": SuffixDrafter(),
            "random weights": self._load_random(pair.draft),
        }

    def give_turn(self, name: DrafterName) -> None:
        """Let this one draft for the requests that start from now on."""
        self._turns.current = self.drafters[name]

    def _load(self, draft: Path) -> Drafter:
        return make_member(draft, LoadedModel(self.llm.target, self.llm.tokenizer), self.llm.config)

    def _load_random(self, draft: Path) -> Drafter:
        with random_copy(draft) as folder:
            return self._load(folder)


@contextmanager
def random_copy(draft: Path) -> Generator[Path]:
    """A checkpoint like this one that has learned nothing. What has loaded it can go on when the folder is gone."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "draft"
        shutil.copytree(draft, copy)
        randomise_weights(copy / "model.safetensors")
        yield copy


def randomise_weights(path: Path) -> None:
    """Put random numbers in the place of every bf16 weight of a safetensors file: same model, nothing learned."""
    content = np.fromfile(path, np.uint8)
    # Eight bytes with the header's length, the header, and then nothing but the weights.
    weights = content[8 + int.from_bytes(content[:8].tobytes(), "little") :].view(np.uint16)
    noise = np.random.default_rng(RANDOM_SEED).normal(scale=RANDOM_SCALE, size=len(weights)).astype(np.float32)
    weights[:] = noise.view(np.uint32) >> 16  # bf16 is the upper half of a float32
    content.tofile(path)
