"""What is compared: whoever writes texts from token ids, of a length that is asked for, in a setting of its own.

Ours is here; peers are in `peer`. Both are timed alike: from the texts being asked for to the last token, prompts
included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from outrider import noise
from outrider.bench.peers.worker import GivenUpError
from outrider.engine.llm import LLM, raise_errors
from outrider.request import Depth, SamplingParams

PLAIN = "plain"
OURS = "outrider"


class Asked(NamedTuple):
    """A text to be written.

    Attributes:
        token_ids: of the prompt.
        max_tokens: how many to write, whatever they are.
        seed: of the noise.
        prediction: a text that it may resemble; only ours can use it.
    """

    token_ids: tuple[int, ...]
    max_tokens: int
    seed: int
    prediction: str | None = None


class Written(NamedTuple):
    """Texts that were written at once.

    Attributes:
        token_ids: of each.
        seconds: that all took together, prompts included.
        first_seconds: to the first token, where it was one text and that is known.
        is_promised: that they are what plain decoding writes, to the last token.
    """

    token_ids: tuple[tuple[int, ...], ...]
    seconds: float
    first_seconds: float | None = None
    is_promised: bool = False


class Engine(Protocol):
    """Whoever takes part.

    Attributes:
        name: as it is shown.
        settings: the ways in which it can decode; `PLAIN` is one of them.
        facts: of its version and what else a result should say.
        is_alive: whether it can be asked again.
    """

    name: str
    settings: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def is_alive(self) -> bool: ...

    def write(self, texts: Sequence[Asked], temperature: float, setting: str) -> Written:
        """Texts at once, each of exactly its length.

        Raises:
            PeerError: it cannot.
            GivenUpError: the user wants it to end.
        """
        ...


class OurEngine:
    """Outrider: plain, or with its drafters at the depth that was asked for."""

    def __init__(
        self,
        llm: LLM,
        depth: Depth,
        is_wanted: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = OURS
        self.depth: Depth = depth
        drafted = () if depth == 0 else ("auto" if depth == "auto" else f"depth {depth}",)
        self.settings: tuple[str, ...] = (PLAIN, *drafted)
        self.facts: Mapping[str, Any] = {}
        self.is_alive = True
        self._llm = llm
        self._is_wanted = is_wanted
        self._clock = clock

    def write(self, texts: Sequence[Asked], temperature: float, setting: str) -> Written:
        """Texts at once, as `Engine` says."""
        params = [
            SamplingParams(temperature=temperature, seed=text.seed, max_tokens=text.max_tokens, ignore_eos=True)
            for text in texts
        ]
        is_plain = setting == PLAIN
        noise.forget()
        began = self._clock()
        sequences = self._llm.start(
            [text.token_ids for text in texts],
            params,
            depth=0 if is_plain else self.depth,
            predictions=None if is_plain else [text.prediction for text in texts],
        )
        first: float | None = None
        while not all(sequence.finish_reason for sequence in sequences):
            if self._is_wanted():
                for sequence in sequences:
                    self._llm.engine.cancel(sequence.request.request_id)
                raise GivenUpError
            deltas = self._llm.engine.step()
            if deltas and first is None:
                first = self._clock() - began
        seconds = self._clock() - began
        raise_errors(sequences)
        generations = [self._llm.generation(sequence, "") for sequence in sequences]
        return Written(
            token_ids=tuple(generation.token_ids for generation in generations),
            seconds=seconds,
            first_seconds=first if len(texts) == 1 else None,
            is_promised=all(generation.exactness == "bitwise" for generation in generations),
        )
