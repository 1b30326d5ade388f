"""Inverse frequencies of rotary positions, equal to transformers' own. Knows no framework: both runtimes share it.

Powers are taken in double precision and rounded once to float32, so at most the last bit differs from torch's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.model.config import RopeConfig


class InverseFrequencies(NamedTuple):
    """Angle per position of each pair of a head, and the factor on the cosines and sines."""

    values: NDArray[np.float32]  # [head_dim / 2]
    attention_scaling: float


def inverse_frequencies(rope: RopeConfig, head_dim: int, max_context: int) -> InverseFrequencies:
    """The frequencies that hold for every position below `max_context`."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
    # torch rounds the base to float32 before it takes the power
    wavelengths = np.power(np.float64(np.float32(rope.theta)), exponents.astype(np.float64)).astype(np.float32)
    frequencies: NDArray[np.float32] = np.reciprocal(wavelengths)
    parameters = rope.parameters
    match rope.kind:
        case "default":
            return InverseFrequencies(frequencies, 1.0)
        case "linear":
            return InverseFrequencies(frequencies / parameters["factor"], 1.0)
        case "dynamic":
            # it rescales only sequences that outgrow the original context
            assert max_context <= parameters["original_max_position_embeddings"]
            return InverseFrequencies(frequencies, 1.0)
        case "llama3":
            return InverseFrequencies(_llama3(frequencies, parameters), 1.0)
        case "yarn":
            return InverseFrequencies(_yarn(rope, wavelengths), _yarn_attention_scaling(parameters))


def _llama3(frequencies: NDArray[np.float32], parameters: Mapping[str, float]) -> NDArray[np.float32]:
    """Short wavelengths stay, long ones are stretched by the factor, between the two bounds is a smooth passage."""
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    context = parameters["original_max_position_embeddings"]
    # torch divides a number by a tensor as the number times the reciprocal
    wavelengths = np.reciprocal(frequencies) * (2 * math.pi)
    smooth = (np.reciprocal(wavelengths) * context - low) / (high - low)
    passage = (1 - smooth) * frequencies / factor + smooth * frequencies
    stretched = np.where(wavelengths > context / low, frequencies / factor, passage)
    return np.where(wavelengths < context / high, frequencies, stretched)


def _yarn(rope: RopeConfig, wavelengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pairs that turn often within the original context stay, those that turn seldom are stretched by the factor."""
    parameters = rope.parameters
    num_pairs = len(wavelengths)

    def pair_that_turns(num_turns: float) -> float:
        context = parameters["original_max_position_embeddings"]
        return num_pairs * math.log(context / (num_turns * 2 * math.pi)) / math.log(rope.theta)

    first = pair_that_turns(parameters.get("beta_fast", 32))
    last = pair_that_turns(parameters.get("beta_slow", 1))
    if parameters["truncate"]:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * num_pairs - 1)
    if first == last:
        last += 0.001
    ramp = (np.arange(num_pairs, dtype=np.float32) - first) / (last - first)
    kept: NDArray[np.float32] = 1 - np.clip(ramp, 0, 1)
    stretched: NDArray[np.float32] = np.reciprocal(parameters["factor"] * wavelengths)
    return stretched * (1 - kept) + np.reciprocal(wavelengths) * kept


def _yarn_attention_scaling(parameters: Mapping[str, float]) -> float:
    """The given factor, or the paper's for the scale of the context."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(parameters["factor"]) + 1.0 if parameters["factor"] > 1 else 1.0

    if "attention_factor" in parameters:
        return parameters["attention_factor"]
    if "mscale" in parameters and "mscale_all_dim" in parameters:
        return scale(parameters["mscale"]) / scale(parameters["mscale_all_dim"])
    return scale(1)
