"""Sampling parameters: what is out of range or of another kind is one clear error."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from outrider.errors import ParameterError
from outrider.request import Request, SamplingParams

BAD = [
    ("repetition_penalty", 0.0, "repetition_penalty is 0.0, but must be a number between 1e-06 and 10"),
    ("repetition_penalty", 10.1, "repetition_penalty is 10.1"),
    ("repetition_penalty", math.nan, "repetition_penalty is nan"),
    ("repetition_penalty", "1.2", "repetition_penalty is '1.2'"),
    ("presence_penalty", -2.1, "presence_penalty is -2.1, but must be a number between -2 and 2"),
    ("presence_penalty", None, "presence_penalty is None"),
    ("frequency_penalty", 2.1, "frequency_penalty is 2.1"),
    ("frequency_penalty", math.inf, "frequency_penalty is inf"),
    ("logit_bias", {3: 101.0}, "logit_bias of token 3 is 101.0, but must be a number between -100 and 100"),
    ("logit_bias", {3: math.nan}, "logit_bias of token 3 is nan"),
    ("logit_bias", {"3": 1.0}, "a token id of logit_bias is '3', but must be a whole number, 0 or more"),
    ("logit_bias", {-3: 1.0}, "a token id of logit_bias is -3"),
    ("logit_bias", [(3, 1.0)], "must be a mapping from token ids to numbers"),
    ("logit_bias", dict.fromkeys(range(1025), 1.0), "logit_bias has 1025 entries, but may have at most 1024"),
    ("min_tokens", -1, "min_tokens is -1"),
    ("min_tokens", 1.5, "min_tokens is 1.5, but must be a whole number"),
    ("min_tokens", 129, "min_tokens is 129, but must be at most max_tokens, which is 128"),
    ("max_tokens", True, "max_tokens is True, but must be a whole number, 1 or more"),
    ("max_tokens", "many", "max_tokens is 'many'"),
    ("ignore_eos", 1, "ignore_eos is 1, but must be True or False"),
    ("n", 0, "n is 0, but must be a whole number between 1 and 128"),
    ("n", 129, "n is 129"),
    ("n", 2.0, "n is 2.0"),
    ("bad_words", "dog", "bad_words is 'dog', but must be a tuple of texts of 1 to 1024 characters"),
    ("bad_words", ("",), "bad_words is ('',)"),
    ("bad_words", (3,), "bad_words is (3,)"),
    ("bad_words", ("dog",) * 1025, "bad_words has 1025 entries, but may have at most 1024"),
    ("stop", None, "stop is None"),
    ("stop", ("x",) * 65, "stop has 65 entries, but may have at most 64"),
    ("stop_token_ids", (-1,), "one of stop_token_ids is -1"),
    ("stop_token_ids", (True,), "one of stop_token_ids is True"),
    ("stop_token_ids", 5, "stop_token_ids is 5, but must be a tuple of token ids"),
    ("stop_token_ids", range(1025), "stop_token_ids has 1025 entries, but may have at most 1024"),
    ("log_probs", 21, "log_probs is 21, but must be a whole number between 0 and 20"),
    ("log_probs", True, "log_probs is True"),
    ("temperature", "hot", "temperature is 'hot'"),
    ("temperature", True, "temperature is True"),
    ("temperature", math.inf, "temperature is inf"),
    ("top_k", 2.5, "top_k is 2.5"),
    ("top_p", None, "top_p is None"),
    ("min_p", math.nan, "min_p is nan"),
    ("seed", False, "seed is False"),
    ("seed", "7", "seed is '7'"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_value_that_cannot_be_is_named_with_its_limit_in_one_line(name, value, message):
    with pytest.raises(ParameterError, match=re.escape(message)) as raised:
        SamplingParams(**{name: value})
    assert "\n" not in str(raised.value)


def test_a_depth_that_cannot_be_is_refused():
    for depth in ("4", -1, 65, 1.5, True, None):
        with pytest.raises(ParameterError, match="depth is"):
            Request(request_id=0, prompt_token_ids=(1,), params=SamplingParams(), seed=0, depth=depth)


def test_the_limits_themselves_are_allowed_and_so_are_numbers_of_numpy():
    SamplingParams(
        repetition_penalty=10, presence_penalty=-2, frequency_penalty=2, n=128, log_probs=20, min_tokens=7,
        max_tokens=7, logit_bias=dict.fromkeys(range(1024), 100), bad_words=["dog"] * 1024, stop=["x"] * 64,
        stop_token_ids={3},
    )  # fmt: skip
    SamplingParams(
        temperature=np.float32(0.5), top_k=np.int64(3), repetition_penalty=np.float64(1e-6), log_probs=np.int32(0)
    )
