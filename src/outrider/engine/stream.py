"""Token ids to text as it grows, and where a text ends. Knows the tokenizer's decoding; no models, no arrays."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.model.tokenizer import Tokenizer
from outrider.request import FinishReason, Request, TokenLogProbs


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one step added to one text.

    Attributes:
        request_id: whose text.
        token_ids: emitted tokens: `num_accepted` drafted ones that were the target's own, then the target's next.
        pieces: text that each token released; a piece waits while it could still belong to a stop text or to a
            character of several tokens, so some are empty and the last may hold more.
        num_accepted: how many of the emitted tokens had been drafted.
        rejected_token_ids: the rest of the draft.
        finish_reason: why the text ended here, or None.
        log_probs: of each emitted token, where asked for.

    Example:
        >>> from outrider import Delta
        >>> Delta(request_id=0, token_ids=(7,), pieces=("def",)).text
        'def'
    """

    request_id: int
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    num_accepted: int = 0
    rejected_token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    log_probs: tuple[TokenLogProbs, ...] = ()

    @property
    def text(self) -> str:
        """The pieces together."""
        return "".join(self.pieces)


class TextStream:
    """One output's text, token by token, so that how many tokens a step emits cannot matter.

    A stop text ends the output if it is complete with token number `min_tokens` or later, wherever it began. One that
    is complete earlier is text like any other, then and for good.

    [0, num_released)    is told
    [0, num_exempt)      was decoded before token number `min_tokens`: a stop text that ends in here does not count

    Args:
        tokenizer: None for a checkpoint without one: no text, and no stop texts.
        request: the prompt that the text goes on from; stop texts, end tokens and lengths.
    """

    def __init__(self, tokenizer: Tokenizer | None, request: Request) -> None:
        self.text = ""  # all that was decoded
        self.num_released = 0
        self.num_exempt = 0
        self.num_tokens = 0
        self._params = request.params
        self._end_token_ids = request.end_token_ids
        self._decoder = tokenizer.stream(request.prompt_token_ids) if tokenizer else None

    def push(self, token_id: int) -> tuple[str, FinishReason | None]:
        """Add a token: the text it releases, and why the output ends with it."""
        self.num_tokens += 1
        if token_id in self._end_token_ids:
            return self.finish(), "stop"
        if self._decoder:
            self.text += self._decoder.push(token_id)
            if self.num_tokens < self._params.min_tokens:
                self.num_exempt = len(self.text)
            if (end := self._stop_text_start()) is not None:
                self.text = self.text[:end]
                return self._release(end), "stop"
        if self.num_tokens == self._params.max_tokens:
            return self.finish(), "length"
        return self._release(len(self.text) - self._num_held_back()), None

    def finish(self) -> str:
        """What was held back, and what an unfinished character shows, when the output ends here."""
        self.text += self._decoder.finish() if self._decoder else ""
        return self._release(len(self.text))

    def _release(self, end: int) -> str:
        piece = self.text[self.num_released : end]
        self.num_released = max(self.num_released, end)
        return piece

    def _stop_text_start(self) -> int | None:
        # Nothing released can hold the start of a stop text that counts, so only the rest is searched.
        starts = [
            start
            for stop in self._params.stop
            if (start := self.text.find(stop, max(self.num_released, self.num_exempt - len(stop) + 1))) >= 0
        ]
        return min(starts, default=None)

    def _num_held_back(self) -> int:
        """Length of the longest ending that a stop text begins with."""
        rest = self.text[self.num_released :]
        return max(
            (length for stop in self._params.stop for length in range(1, len(stop)) if rest.endswith(stop[:length])),
            default=0,
        )
