"""What a quantised target costs in quality: its distributions beside the original's, on texts that the original wrote.

The original writes a text after each prompt at temperature 1, as its own distributions have it; both are then asked for
the distribution of every token of it. Intervals are bootstrapped over texts, since a text's tokens are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.cache.table import BlockTable
from outrider.engine.config import EngineConfig
from outrider.engine.llm import LLM, Generation
from outrider.request import SamplingParams
from outrider.runtime.base import SequenceRows

NUM_TOKENS = 64  # of a text
NUM_RESAMPLES = 2000
CHUNK = 256


class TextQuality(NamedTuple):
    """One text's sums over its tokens.

    Attributes:
        num_tokens: how many.
        agreed: of which both models find the same token the likeliest.
        divergence: Kullback and Leibler's, of the quantised distribution from the original's, in nats.
        overlap: of the two distributions, 1 where they are the same.
        surprise: of the text's own tokens to the quantised model above that to the original, in nats.
    """

    num_tokens: int
    agreed: float
    divergence: float
    overlap: float
    surprise: float


def compare(original: NDArray[np.float32], quantised: NDArray[np.float32], token_ids: Sequence[int]) -> TextQuality:
    """From both models' logits [tokens, vocab] for the places of a text's tokens."""
    ours, theirs = _log_probs(original), _log_probs(quantised)
    places = np.arange(len(token_ids)), np.asarray(token_ids)
    probs = np.exp(ours)
    return TextQuality(
        len(token_ids),
        float((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum()),
        float((probs * (ours - theirs)).sum()),
        float(np.minimum(probs, np.exp(theirs)).sum()),
        float((ours[places] - theirs[places]).sum()),
    )


def summarise(texts: Sequence[TextQuality]) -> dict[str, Any]:
    """Means over tokens with 95 % intervals: argmax agreement, KL in nats, overlap, ratio of perplexities."""
    sums = np.array(texts, np.float64)  # [texts, 5]
    drawn = np.random.default_rng(0).integers(0, len(sums), (NUM_RESAMPLES, len(sums)))
    resampled = _means(sums[drawn].sum(axis=1))
    document: dict[str, Any] = {"num_texts": len(texts), "num_tokens": int(sums[:, 0].sum())}
    for name, value, values in zip(MEASURES, _means(sums.sum(axis=0)[None])[0], resampled.T, strict=True):
        low, high = np.quantile(values, (0.025, 0.975))
        document[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return document


MEASURES = ("agreement", "divergence", "overlap", "perplexity_ratio")


def _means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    means = sums[:, 1:] / sums[:, :1]
    means[:, 3] = np.exp(means[:, 3])
    return means


def measure_quality(
    original: Path, quantised: Path, prompts: Sequence[Sequence[int]], report: Callable[[str], None]
) -> dict[str, Any]:
    """Load both, have the original write, and compare.

    Args:
        original: folder of the float32 or bfloat16 checkpoint.
        quantised: folder of what was made of it.
        prompts: token ids; that were not used for anything else.
        report: is told how far it is.

    Returns:
        `summarise`'s document, and the exactness level that the quantised target has here.

    Raises:
        ModelError: a model cannot be loaded.
        NumericsError: the quantised model fails its self-test.
    """
    report("loading the original")
    writer = LLM(original, config=EngineConfig(self_test=False))
    report("loading the quantized target, and its self-test")
    other = LLM(quantised, config=EngineConfig())
    params = SamplingParams(temperature=1.0, max_tokens=NUM_TOKENS)
    report(f"the original writes {len(prompts)} texts")
    seeded = [replace(params, seed=seed) for seed in range(len(prompts))]
    written = [
        text for text in writer.generate([list(prompt) for prompt in prompts], seeded, depth=0) if text.token_ids
    ]
    texts: list[TextQuality] = []
    for done, text in enumerate(written):
        report(f"comparing distributions, text {done + 1} of {len(written)}")
        texts.append(compare(text_logits(writer, text), text_logits(other, text), text.token_ids))
    return {**summarise(texts), "exactness": other.target.exactness}


def text_logits(llm: LLM, text: Generation) -> NDArray[np.float32]:
    """A model's logits [tokens, vocab] where each token of a text was to be chosen."""
    table = BlockTable(llm.engine.pool)
    token_ids = (*text.prompt_token_ids, *text.token_ids)
    first, num_rows = len(text.prompt_token_ids) - 1, len(token_ids) - 1
    parts: list[NDArray[np.float32]] = []
    for start in range(0, num_rows, CHUNK):
        chunk = token_ids[start : min(start + CHUNK, num_rows)]
        wanted = range(max(first - start, 0), len(chunk))
        with table.reserve(max(len(chunk), llm.target.min_rows)):
            rows = SequenceRows(chunk, start, table.blocks, wanted)
            parts.append(llm.target.forward([rows]).logits.copy())
            table.commit(tuple(range(len(chunk))))
    table.release()
    return np.concatenate(parts)


def _log_probs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
