"""Faults that engines have had, each as one wrong step of the engine in `faulty.py`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tests.audit.faulty import DEPTH, Engine, normalised, one_hot, softmax

TOP_K = 20
DRAFT_TOP_K = 8
LEAST_DRAFTED = 0.1


class TypicalAcceptance(Engine):
    name = "typical acceptance"
    where = "Medusa; vLLM and others as an option"

    def acceptance(self, target, draft, state):
        entropy = -(target * np.log(np.maximum(target, 1e-300))).sum(axis=1, keepdims=True)
        return (target > np.minimum(0.09, 0.3 * np.exp(-entropy))).astype(float)


class TopKTruncation(Engine):
    name = "top-20 truncation that nobody asked for"
    where = "a default taken over from a generation config"

    def target(self, state):
        wanted = self.reference(state)
        return normalised(wanted * (wanted >= np.sort(wanted, axis=1)[:, -TOP_K, None]), wanted)


class MinPIgnored(Engine):
    name = "min-p ignored by verification"
    where = "SGLang 0.5.23"
    min_p: ClassVar[float] = 0.05

    def target(self, state):
        return self.unprocessed(state)


class PenaltyIgnored(Engine):
    name = "frequency penalty ignored"
    where = "TensorRT-LLM before August 2026"
    frequency_penalty: ClassVar[float] = 0.5

    def target(self, state):
        return self.unprocessed(state)


class PenaltyWithoutPath(Engine):
    name = "frequency penalty of the round's root, without the drafted path"
    where = "SGLang 0.5.23"
    frequency_penalty: ClassVar[float] = 0.5

    def target(self, state):
        logits = self.models.target(state.last, state.previous, state.position)
        return self.processed(logits, state.root_counts)


class PenaltyOfRejected(Engine):
    name = "frequency penalty counts rejected drafts"
    where = "vmlx-swift 357"
    tells_rejected: ClassVar[bool] = True
    frequency_penalty: ClassVar[float] = 0.5

    def target(self, state):
        logits = self.models.target(state.last, state.previous, state.position)
        return self.processed(logits, state.counts + state.rejected_counts * (state.index < DEPTH)[:, None])


class BiasIgnored(Engine):
    name = "logit bias ignored"
    where = "vLLM 38202"
    biases: ClassVar[dict[int, float]] = dict.fromkeys(range(0, 128, 16), 2.0)

    def target(self, state):
        return self.unprocessed(state)


class RawDraftProbabilities(Engine):
    name = "drafts drawn from the top 8, verified by the untruncated probabilities"
    where = "transformers 47932"

    def drawn_from(self, draft):
        return normalised(draft * (draft >= np.sort(draft, axis=1)[:, -DRAFT_TOP_K, None]), draft)


class GreedyDrafts(Engine):
    name = "likeliest drafts, verified as if drawn"
    where = "transformers 32867, and 5.23 with one assistant"

    def drawn_from(self, draft):
        return one_hot(draft.argmax(axis=1))


class ResidualOmitted(Engine):
    name = "residual omitted: the target's own token after a rejection"
    where = "a usual simplification"

    def residual(self, target, draft):
        return target


class WrongTemperature(Engine):
    name = "temperature 5 % too high"
    where = "a rounded or defaulted parameter"
    factor: ClassVar[float] = 1.05

    def target(self, state):
        logits = self.models.target(state.last, state.previous, state.position)
        return softmax(logits / (self.temperature * self.factor))


class NearlyRightTemperature(WrongTemperature):
    name = "temperature 2 % too high"
    factor: ClassVar[float] = 1.02


class BonusWithoutTemperature(Engine):
    name = "bonus token drawn without temperature"
    where = "an older EAGLE"
    temperature: ClassVar[float] = 0.7

    def bonus(self, target, state):
        return self.unprocessed(state)


class GreedyVerification(Engine):
    name = "sampling requests verified greedily"
    where = "SGLang 0.5.23 on CPU and XPU"

    def target(self, state):
        return one_hot(self.reference(state).argmax(axis=1))


class FirstUnverified(Engine):
    name = "first drafted token of a round unverified"
    where = "lattice 243"

    def acceptance(self, target, draft, state):
        return np.where((state.index == 0)[:, None], 1.0, super().acceptance(target, draft, state))


class SomeFromDrafter(Engine):
    name = "3 % of the tokens from the drafter"
    where = "a race between buffers"
    share: ClassVar[float] = 0.03

    def acceptance(self, target, draft, state):
        return self.share + (1 - self.share) * super().acceptance(target, draft, state)


class Ensemble(Engine):
    name = "target mixed with a tenth of the draft model"
    where = "transformers, assistant_ensemble_weight"

    def target(self, state):
        return 0.9 * self.reference(state) + 0.1 * self.draft_model(state)


class UnlikelyDropped(Engine):
    name = "unlikely drafts dropped after they were drawn"
    where = "confidence thresholds"

    def dropped(self, draft):
        return draft < LEAST_DRAFTED


class RoundedDrafts(Engine):
    name = "drafts drawn in bfloat16, verified in float32"
    where = "DeepSpec 31"

    def drawn_from(self, draft):
        logits = np.log(np.maximum(draft, 1e-30)) + 8.0
        bits = logits.astype(np.float32).view(np.uint32)
        rounded = ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)
        return softmax(rounded.astype(np.float64))


class StaleCache(Engine):
    name = "keys and values of a rejected token kept"
    where = "rollback by length only"

    def target(self, state):
        return self.processed(self.models.target(state.last, state.stale, state.position), state.counts)


class PositionsBySlot(Engine):
    name = "positions counted by slot in a tree with two siblings"
    where = "mlxcel 1214"

    def target(self, state):
        position = state.position + (state.index > 0)
        return self.processed(self.models.target(state.last, state.previous, position), state.counts)


class SharedNoise(Engine):
    """The residual is drawn by the exponential race that drew the draft.

    Of the race E_z / draft_z, the winner's time A is Exp(1) whoever wins; the others' times beyond A are fresh. So with
    residual r, which does not have the winner, token z arrives at (draft_z A + fresh_z) / r_z: late starters, then a
    race with rates r. Its law is a mean over A, by Gauss and Laguerre's nodes.
    """

    name = "noise of the draft used again after a rejection"
    where = "vLLM 54282"
    num_nodes: ClassVar[int] = 24

    def draw_residual(self, generator, target, draft):
        residual = np.maximum(super().residual(target, draft), 1e-300)
        arrival = generator.exponential(size=(len(target), 1))
        return ((draft * arrival + generator.exponential(size=target.shape)) / residual).argmin(axis=1)

    def residual(self, target, draft):
        residual = super().residual(target, draft)
        nodes, weights = np.polynomial.laguerre.laggauss(self.num_nodes)
        return sum(weight * self._race(residual, draft * node) for node, weight in zip(nodes, weights, strict=True))

    @staticmethod
    def _race(rates, head_starts):
        """[runs, vocab] who wins if z starts at head_starts_z / rates_z and arrives at that rate."""
        starts = np.where(rates > 0, head_starts / np.maximum(rates, 1e-300), np.inf)
        order = np.argsort(starts, axis=1)
        begins = np.take_along_axis(starts, order, axis=1)
        ordered = np.take_along_axis(rates, order, axis=1)
        totals = np.cumsum(ordered, axis=1)  # rate from each start to the next
        ends = np.concatenate([begins[:, 1:], np.full((len(begins), 1), np.inf)], axis=1)
        with np.errstate(invalid="ignore"):
            spans = np.where(np.isfinite(begins), np.where(np.isfinite(ends), ends - begins, np.inf), 0.0)
            gone = np.where(totals > 0, totals * spans, 0.0)
        survived = np.exp(-np.concatenate([np.zeros((len(begins), 1)), np.cumsum(gone, axis=1)[:, :-1]], axis=1))
        # What wins in a span does so in proportion to its rate, and runs in all spans from its start on.
        with np.errstate(divide="ignore", invalid="ignore"):
            won = np.where(totals > 0, survived * -np.expm1(-gone) / totals, 0.0)
        later = np.cumsum(won[:, ::-1], axis=1)[:, ::-1]
        result = np.zeros_like(rates)
        np.put_along_axis(result, order, ordered * later, axis=1)
        return result


FAULTS: tuple[type[Engine], ...] = (
    TypicalAcceptance, GreedyVerification, GreedyDrafts, FirstUnverified, UnlikelyDropped, ResidualOmitted,
    RawDraftProbabilities, StaleCache, PositionsBySlot, TopKTruncation, MinPIgnored, PenaltyIgnored,
    PenaltyWithoutPath, PenaltyOfRejected, BiasIgnored, BonusWithoutTemperature, Ensemble, WrongTemperature,
    NearlyRightTemperature, SomeFromDrafter, SharedNoise, RoundedDrafts,
)  # fmt: skip
