"""What penalties, biases and bans are, token by token, as their definitions say."""

from __future__ import annotations

import numpy as np

from outrider.request import Request


def processed_by_definition(logits: np.ndarray, request: Request, text: list[int]) -> np.ndarray:
    """The logits of the token after `text`, rounded to single precision after penalties and after biases."""
    params, output = request.params, text[len(request.prompt_token_ids) :]
    processed = np.empty_like(logits)
    for token in range(len(logits)):
        value = float(logits[token])
        if token in text:
            value = value / params.repetition_penalty if value > 0 else value * params.repetition_penalty
        num_written = output.count(token)
        value -= params.frequency_penalty * num_written + params.presence_penalty * (num_written > 0)
        processed[token] = float(np.float32(value)) + params.logit_bias.get(token, 0.0)
    for token in range(len(logits)):
        completes_bad_run = any([*text, token][-len(run) :] == list(run) for run in request.bad_token_ids)
        ends_too_early = token in request.end_token_ids and len(output) < params.min_tokens
        if completes_bad_run or ends_too_early:
            processed[token] = -np.inf
    return processed
