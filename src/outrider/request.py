"""What was asked: a prompt's tokens, how to sample, when to stop. Knows no arrays and no models."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal, NamedTuple, cast

from outrider.errors import ParameterError

FinishReason = Literal["stop", "length", "cancelled", "error"]
Exactness = Literal["bitwise", "seed", "distribution"]
Depth = int | Literal["auto"]

MAX_SEED = 2**63 - 1
MAX_DEPTH = 64
# Below, scaled logits would leave the range in which sums with noise are exact enough to tell tokens apart.
MIN_TEMPERATURE = 1e-6
MAX_N = 128
MAX_TOP_LOG_PROBS = 20
# Of a stop text or a bad word: each token compares with all of it.
MAX_TEXT_LENGTH = 1024
MAX_STOP_TEXTS = 64
MAX_STOP_TOKEN_IDS = 1024
MAX_BIASES = 1024
MAX_BAD_WORDS = 1024
MAX_BIAS = 100
MAX_PENALTY = 2
# Between them, no logit leaves the range of single precision.
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 1e-6, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the target samples, and when a text ends.

    The text depends on the target, the prompt and these parameters only: never on the drafter, its depth, or what else
    runs in the batch. (Under block verification its distribution does, see `EngineConfig.verify`.)

    Logits are processed in this order: repetition penalty, frequency and presence penalty, bias, bans (`min_tokens`,
    `bad_words`), temperature, top-k, top-p, min-p. Greedy decoding takes the largest logit after the bans. What
    penalties and bans look at is the text itself, up to the very token that is chosen.

    Args:
        temperature: 0 is greedy; otherwise logits are divided by it, and it is at least 1e-6.
        top_k: keep the `top_k` likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens up to this mass (ties at the border kept); 1 keeps all.
        min_p: keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        seed: the noise of the request; None draws a fresh one when the request is made.
        stop: texts that end the output, at most 64; the output does not contain them.
        stop_token_ids: tokens that end the output, besides the model's own end tokens; at most 1024.
        max_tokens: the output's length in tokens at most.
        min_tokens: the output's length in tokens at least, `max_tokens` at most: until then no end token is chosen,
            and a stop text that is complete earlier is text like any other.
        ignore_eos: the model's own end tokens end nothing and are written like any other.
        n: texts of each prompt, 1 to 128. They differ by their noise; greedy ones are all the same.
        repetition_penalty: of tokens that prompt or output hold: a logit above 0 is divided by it, another multiplied.
            1e-6 to 10; 1 changes nothing, more makes repetition rarer.
        presence_penalty: taken from the logits of tokens that the output holds; -2 to 2.
        frequency_penalty: taken from a token's logit as often as the output holds it; -2 to 2.
        logit_bias: added to the logits of these token ids; -100 to 100 each, at most 1024 of them.
        bad_words: texts that are not written, at most 1024. Each is banned as the tokens that the tokenizer makes of
            it at the beginning of a text and after a space; of other tokens, the same characters can still come.
        log_probs: how many of the likeliest tokens to report at each position, with how likely the emitted one was:
            0 to 20; None reports nothing.

    Raises:
        ParameterError: a value is of the wrong type or out of its range, or two contradict each other.

    Example:
        >>> SamplingParams(temperature=0.7, seed=1).temperature
        0.7
        >>> SamplingParams(min_tokens=9, max_tokens=5)
        Traceback (most recent call last):
        outrider.errors.ParameterError: min_tokens is 9, but must be at most max_tokens, which is 5: change one of them
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
        self._check_choice()
        self._check_history()
        self._check_end()
        _require_whole("n", self.n, 1, MAX_N)
        if self.log_probs is not None:
            _require_whole("log_probs", self.log_probs, 0, MAX_TOP_LOG_PROBS)

    def _check_choice(self) -> None:
        is_temperature = _is_number(self.temperature) and (
            self.temperature == 0 or MIN_TEMPERATURE <= self.temperature < math.inf
        )
        _require("temperature", self.temperature, is_temperature, f"0 (greedy) or at least {MIN_TEMPERATURE}")
        _require_whole("top_k", self.top_k, 0)
        is_top_p = _is_number(self.top_p) and 0 < self.top_p <= 1
        _require("top_p", self.top_p, is_top_p, "a number above 0 and at most 1")
        _require_number("min_p", self.min_p, 0, 1)
        if self.seed is not None:
            _require_whole("seed", self.seed, 0, MAX_SEED)

    def _check_history(self) -> None:
        """What depends on the text so far, and biases."""
        _require_number("repetition_penalty", self.repetition_penalty, MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY)
        _require_number("presence_penalty", self.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
        _require_number("frequency_penalty", self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
        _require_texts("bad_words", self.bad_words, MAX_BAD_WORDS)
        is_bias = isinstance(cast("object", self.logit_bias), Mapping)
        _require("logit_bias", self.logit_bias, is_bias, "a mapping from token ids to numbers")
        _require_size("logit_bias", self.logit_bias, MAX_BIASES)
        for token_id, bias in self.logit_bias.items():
            _require_whole("a token id of logit_bias", token_id, 0)
            _require_number(f"logit_bias of token {token_id}", bias, -MAX_BIAS, MAX_BIAS)

    def _check_end(self) -> None:
        _require_texts("stop", self.stop, MAX_STOP_TEXTS)
        is_collection = _is_collection(self.stop_token_ids)
        _require("stop_token_ids", self.stop_token_ids, is_collection, "a tuple of token ids")
        _require_size("stop_token_ids", self.stop_token_ids, MAX_STOP_TOKEN_IDS)
        for token_id in self.stop_token_ids:
            _require_whole("one of stop_token_ids", token_id, 0)
        _require("ignore_eos", self.ignore_eos, isinstance(cast("object", self.ignore_eos), bool), "True or False")
        _require_whole("max_tokens", self.max_tokens, 1)
        _require_whole("min_tokens", self.min_tokens, 0)
        is_possible = self.min_tokens <= self.max_tokens
        wanted = f"at most max_tokens, which is {self.max_tokens}: change one of them"
        _require("min_tokens", self.min_tokens, is_possible, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One text to generate, with whatever `params` leave open settled.

    Attributes:
        seed: of the noise, in force.
        depth: tokens to draft a step; "auto" leaves that to the policy.
        max_children: guesses that may follow one token of a draft; 1 makes chains, more make trees.
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
    max_children: int = 1
    stream: int = 0
    end_token_ids: frozenset[int] = frozenset()
    bad_token_ids: tuple[tuple[int, ...], ...] = ()
    prediction_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        is_depth = self.depth == "auto" or (_is_whole(self.depth) and 0 <= self.depth <= MAX_DEPTH)
        _require("depth", self.depth, is_depth, f'"auto" or between 0 and {MAX_DEPTH}')
        _require_whole("max_children", self.max_children, 1)


class TokenLogProbs(NamedTuple):
    """How likely an emitted token was, and the likeliest tokens there: natural logarithms.

    Attributes:
        raw: in the model's own distribution, at temperature 1.
        processed: in the one sampled from, after penalties, biases, bans, temperature and truncation.
        top_raw, top_processed: (token id, log-probability) of the likeliest tokens of each, likeliest first, equal ones
            by id; as many as asked for, but never a token that could not be drawn.
    """

    raw: float
    processed: float
    top_raw: tuple[tuple[int, float], ...] = ()
    top_processed: tuple[tuple[int, float], ...] = ()


def _require(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise ParameterError(f"{name} is {value!r}, but must be {wanted}")


def _require_number(name: str, value: object, least: float, most: float) -> None:
    is_within = _is_number(value) and least <= cast("float", value) <= most
    _require(name, value, is_within, f"a number between {least} and {most}")


def _require_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    wanted = f"a whole number, {least} or more" if most is None else f"a whole number between {least} and {most}"
    number = cast("int", value)
    _require(name, value, _is_whole(value) and least <= number and (most is None or number <= most), wanted)


def _require_texts(name: str, texts: object, most: int) -> None:
    is_texts = _is_collection(texts) and all(
        isinstance(text, str) and 0 < len(text) <= MAX_TEXT_LENGTH for text in cast("Collection[object]", texts)
    )
    _require(name, texts, is_texts, f"a tuple of texts of 1 to {MAX_TEXT_LENGTH} characters")
    _require_size(name, cast("Collection[object]", texts), most)


def _require_size(name: str, values: Collection[object], most: int) -> None:
    if len(values) > most:
        raise ParameterError(f"{name} has {len(values)} entries, but may have at most {most}: leave some out")


# To Python a truth value is a number and a text is a collection; here either is a slip.
def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _is_collection(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))
