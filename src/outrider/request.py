"""What was asked: a prompt's tokens, how to sample, when to stop. Knows no arrays and no models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal, NamedTuple

from outrider.errors import ParameterError

FinishReason = Literal["stop", "length", "cancelled"]
Exactness = Literal["bitwise", "seed", "distribution"]
Depth = int | Literal["auto"]

MAX_SEED = 2**63 - 1
MAX_DEPTH = 64
# Below, scaled logits would leave the range in which sums with noise are exact enough to tell tokens apart.
MIN_TEMPERATURE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the target samples, and when a text ends.

    Truncations apply in the order temperature, top-k, top-p, min-p. The text depends on the target, the prompt and
    these parameters only: never on the drafter, its depth, or what else runs in the batch.

    Args:
        temperature: 0 is greedy; otherwise logits are divided by it, and it is at least 1e-6.
        top_k: keep the `top_k` likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens up to this mass (ties at the border kept); 1 keeps all.
        min_p: keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        seed: the noise of the request; None draws a fresh one when the request is made.
        stop: texts that end the output; the output does not contain them.
        stop_token_ids: tokens that end the output, besides the model's own end tokens.
        max_tokens: the output's length in tokens at most.

    Raises:
        ParameterError: a value is out of its range.

    Example:
        >>> SamplingParams(temperature=0.7, seed=1).temperature
        0.7
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int = 128
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int = 1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    bad_words: tuple[str, ...] = ()
    log_probs: int | None = None

    def __post_init__(self) -> None:
        is_temperature = math.isfinite(self.temperature) and (
            self.temperature == 0 or self.temperature >= MIN_TEMPERATURE
        )
        _require("temperature", self.temperature, is_temperature, f"0 (greedy) or at least {MIN_TEMPERATURE}")
        _require("top_k", self.top_k, self.top_k >= 0, "0 (keep all) or more")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _require("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1")
        is_seed = self.seed is None or (isinstance(self.seed, Integral) and 0 <= self.seed <= MAX_SEED)
        _require("seed", self.seed, is_seed, f"a whole number between 0 and {MAX_SEED}")
        is_stop = not isinstance(self.stop, str) and all(self.stop)
        _require("stop", self.stop, is_stop, "a tuple of texts of at least one character")
        _require("stop_token_ids", self.stop_token_ids, all(id_ >= 0 for id_ in self.stop_token_ids), "0 or more each")
        _require("max_tokens", self.max_tokens, self.max_tokens >= 1, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One text to generate, with whatever `params` leave open settled.

    Attributes:
        seed: of the noise, in force.
        depth: tokens to draft a step; "auto" leaves that to the policy.
        stream: index among the texts of one prompt.
        end_token_ids: tokens that end the text: the model's own, unless they are to be ignored, and those asked for.
        bad_token_ids: runs of tokens that must not be written.
        prediction_token_ids: text that the user expects, to draft from.
    """

    request_id: int
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    depth: Depth = "auto"
    stream: int = 0
    end_token_ids: frozenset[int] = frozenset()
    bad_token_ids: tuple[tuple[int, ...], ...] = ()
    prediction_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        is_depth = self.depth == "auto" or 0 <= self.depth <= MAX_DEPTH
        _require("depth", self.depth, is_depth, f'"auto" or between 0 and {MAX_DEPTH}')


class TokenLogProbs(NamedTuple):
    """How likely an emitted token was, and what else was: natural logarithms, likeliest first.

    `raw` is of the model's own distribution, `processed` of the one sampled from, after penalties, bans, temperature
    and truncation; -inf is what could not be drawn.
    """

    raw: float
    processed: float
    top_raw: tuple[tuple[int, float], ...] = ()
    top_processed: tuple[tuple[int, float], ...] = ()


def _require(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise ParameterError(f"{name} is {value!r}, but must be {wanted}")
