"""An engine with a switch for every fault: chain speculation with a ratio test, over a synthetic pair of models.

Many runs go on side by side, a token at a time: drafting one token after the one before was accepted has the same law
as drafting all of them ahead. For every token the law that it was drawn from, given the text and the engine's state, is
known in closed form, so how far it is from the target's is computed and not estimated. Each fault is a subclass that
does one thing wrong, as some engine did; the reference is always what the sampling parameters ask for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

VOCAB_SIZE = 128
TEXT_LENGTH = 128
DEPTH = 4
NUM_PHASES = 4
# Every so many tokens the law's distance from the target's is computed.
MEASURED = 16


class Models:
    """A target that looks at two tokens and the position, and a draft model that looks at one. Logits, not normalised.

    Likely tokens are about as likely as in a language model: the target's best has about one half.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        shape = (VOCAB_SIZE, VOCAB_SIZE)
        popularity = -0.7 * np.log(1 + generator.permuted(np.tile(np.arange(VOCAB_SIZE), (VOCAB_SIZE, 1)), axis=1))
        self._by_last = 2.2 * popularity + generator.normal(size=shape)
        self._by_previous = 0.7 * generator.normal(size=shape)
        self._by_phase = 0.4 * generator.normal(size=(NUM_PHASES, VOCAB_SIZE))
        self._by_draft = self._by_last + 0.4 * generator.normal(size=shape)

    def target(self, last, previous, position):
        return self._by_last[last] + self._by_previous[previous] + self._by_phase[position % NUM_PHASES]

    def draft(self, last):
        return self._by_draft[last]


@dataclass(slots=True)
class State:
    """What the runs' engines know, one entry a run; `counts` and `root_counts` have one row a run."""

    last: np.ndarray
    previous: np.ndarray
    position: np.ndarray
    index: np.ndarray  # in the round: 0 is the first drafted token, DEPTH the bonus
    counts: np.ndarray  # of the text's tokens
    root_counts: np.ndarray  # when the round began
    rejected_counts: np.ndarray
    rejected: np.ndarray  # token whose place the last correction took; -1 after any other token
    stale: np.ndarray  # token that stands in the cache for `previous`


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def one_hot(token_ids):
    return np.eye(VOCAB_SIZE)[token_ids]


def normalised(masses, otherwise):
    totals = masses.sum(axis=-1, keepdims=True)
    return np.where(totals > 1e-12, masses / np.maximum(totals, 1e-300), otherwise)


def draw(generator, probabilities):
    uniform = generator.random((len(probabilities), 1))
    sums = np.cumsum(probabilities, axis=1)
    return np.minimum((sums < uniform * sums[:, -1:]).sum(axis=1), VOCAB_SIZE - 1)


@dataclass
class Engine:
    """A sound engine, token verification; a subclass overrides what its fault spoils."""

    models: Models = field(default_factory=Models)
    name: ClassVar[str] = "none"
    where: ClassVar[str] = ""
    temperature: ClassVar[float] = 1.0
    frequency_penalty: ClassVar[float] = 0.0
    min_p: ClassVar[float] = 0.0
    biases: ClassVar[dict[int, float]] = {}
    tells_rejected: ClassVar[bool] = False

    # What was asked for ----------------------------------------------------------------------------------------------

    def reference(self, state: State) -> np.ndarray:
        """[runs, vocab] what each next token should be drawn from."""
        return self.processed(self.models.target(state.last, state.previous, state.position), state.counts)

    def processed(self, logits, counts):
        logits = logits - self.frequency_penalty * counts
        for token_id, bias in self.biases.items():
            logits[:, token_id] += bias
        probabilities = softmax(logits / self.temperature)
        kept = probabilities >= self.min_p * probabilities.max(axis=1, keepdims=True)
        return normalised(probabilities * kept, probabilities)

    def unprocessed(self, state: State) -> np.ndarray:
        """The target's distribution before anything that was asked for."""
        return softmax(self.models.target(state.last, state.previous, state.position))

    @property
    def has_parameters(self) -> bool:
        return (self.temperature, self.frequency_penalty, self.min_p, self.biases) != (1.0, 0.0, 0.0, {})

    def draft_model(self, state: State) -> np.ndarray:
        return self.processed(self.models.draft(state.last), state.counts)

    # What is done ----------------------------------------------------------------------------------------------------

    def target(self, state):
        """Probabilities that the engine takes for the target's."""
        return self.reference(state)

    def drawn_from(self, draft):
        return draft

    def dropped(self, draft):
        """Drafted tokens that are thrown away unverified, after which the target's own token is drawn."""
        return np.zeros_like(draft, dtype=bool)

    def acceptance(self, target, draft, state):
        return np.minimum(1.0, np.divide(target, draft, out=np.ones_like(target), where=draft > 0))

    def residual(self, target, draft):
        return normalised(np.maximum(target - draft, 0.0), target)

    def bonus(self, target, state):
        return target

    def draw_residual(self, generator, target, draft):
        return draw(generator, self.residual(target, draft))

    # Laws and draws --------------------------------------------------------------------------------------------------

    def law(self, state: State) -> np.ndarray:
        """[runs, vocab] what the next token is drawn from, given the text and the state."""
        target, draft = self.target(state), self.draft_model(state)
        proposal, acceptance = self.drawn_from(draft), self.acceptance(target, draft, state)
        dropped = self.dropped(draft)
        kept = proposal * acceptance * ~dropped
        num_dropped = (proposal * dropped).sum(axis=1, keepdims=True)
        rejected = 1 - kept.sum(axis=1, keepdims=True) - num_dropped
        verified = kept + rejected * self.residual(target, draft) + num_dropped * target
        return np.where((state.index == DEPTH)[:, None], self.bonus(target, state), verified)

    def step(self, generator: np.random.Generator, state: State) -> np.ndarray:
        """The next token of every run, and the state after it."""
        target, draft = self.target(state), self.draft_model(state)
        runs = np.arange(len(state.last))
        guess = draw(generator, self.drawn_from(draft))
        is_dropped = self.dropped(draft)[runs, guess]
        is_bonus = state.index == DEPTH
        accepted = generator.random(len(runs)) < self.acceptance(target, draft, state)[runs, guess]
        accepted &= ~is_bonus & ~is_dropped
        corrected = self.draw_residual(generator, target, draft)
        own = draw(generator, np.where(is_bonus[:, None], self.bonus(target, state), target))
        token_ids = np.where(accepted, guess, np.where(is_bonus | is_dropped, own, corrected))
        self._advance(state, token_ids, accepted, np.where(accepted | is_bonus, -1, guess))
        return token_ids

    def _advance(self, state, token_ids, accepted, rejected):
        runs = np.arange(len(token_ids))
        state.counts[runs, token_ids] += 1
        is_rejected = rejected >= 0
        state.rejected_counts[runs[is_rejected], rejected[is_rejected]] += 1
        state.stale = np.where(state.rejected >= 0, state.rejected, state.last)
        state.rejected = rejected
        state.previous, state.last = state.last, token_ids
        state.position = state.position + 1
        state.index = np.where(accepted, state.index + 1, 0)
        state.root_counts = np.where(accepted[:, None], state.root_counts, state.counts)


def start(generator: np.random.Generator, num_runs: int) -> State:
    last, previous = generator.integers(VOCAB_SIZE, size=(2, num_runs))
    zeros, none = np.zeros(num_runs, dtype=np.int64), np.full(num_runs, -1)
    counts = np.zeros((num_runs, VOCAB_SIZE))
    return State(last, previous, zeros, zeros, counts, counts.copy(), counts.copy(), none, previous)


@dataclass(frozen=True, slots=True)
class Texts:
    """What the runs emitted, and what an auditor with the models knows of it.

    Attributes:
        token_ids: [runs, tokens].
        target_log_probs, draft_log_probs: [runs, tokens, vocab], teacher-forced.
        model_log_probs: likewise, before penalties, temperature and truncation; None where there are none.
        num_rejected: how often each token was drafted in vain before, in engines that tell.
        total_variation: of the law of a token from what it should be, on average.
        divergence: Kullback and Leibler's, in nats a token, likewise.
    """

    token_ids: np.ndarray
    target_log_probs: np.ndarray
    draft_log_probs: np.ndarray
    model_log_probs: np.ndarray | None
    num_rejected: np.ndarray | None
    total_variation: float
    divergence: float

    def part(self, run: int, begin: int, end: int) -> list[np.ndarray | None]:
        """Arguments of `SequentialTest.feed`."""
        arrays = (
            self.target_log_probs, self.token_ids, self.draft_log_probs, self.model_log_probs, self.num_rejected
        )  # fmt: skip
        return [None if array is None else array[run, begin:end] for array in arrays]


def write(engine: Engine, *, num_runs: int, num_tokens: int, seed: int) -> Texts:
    """Let an engine write."""
    generator = np.random.default_rng(seed)
    token_ids = np.zeros((num_runs, num_tokens), dtype=np.int64)
    shape = (num_runs, num_tokens, VOCAB_SIZE)
    target, draft = (np.zeros(shape, dtype=np.float32) for _ in range(2))
    model = np.zeros(shape, dtype=np.float32) if engine.has_parameters else None
    rejected = np.zeros(shape, dtype=np.uint8) if engine.tells_rejected else None
    variations, divergences = [], []
    state = start(generator, num_runs)
    for place in range(num_tokens):
        if place % TEXT_LENGTH == 0:
            state = start(generator, num_runs)
        wanted = engine.reference(state)
        with np.errstate(divide="ignore"):
            target[:, place], draft[:, place] = np.log(wanted), np.log(engine.draft_model(state))
            if model is not None:
                model[:, place] = np.log(engine.unprocessed(state))
        if rejected is not None:
            rejected[:, place] = np.minimum(state.rejected_counts, 255)
        if generator.random() < 1 / MEASURED:
            law = engine.law(state)
            variations.append(0.5 * np.abs(law - wanted).sum(axis=1).mean())
            with np.errstate(divide="ignore", invalid="ignore"):
                terms = np.where(law > 0, law * np.log(law / wanted), 0.0)
            divergences.append(terms.sum(axis=1).mean())
        token_ids[:, place] = engine.step(generator, state)
    return Texts(token_ids, target, draft, model, rejected, float(np.mean(variations)), float(np.mean(divergences)))
