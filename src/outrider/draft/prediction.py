"""Drafts from text that the user expects, such as the file that is being edited, wherever the output agrees with it.

What the model leaves out, puts in or writes otherwise is survived: the drafter looks for the place in the prediction
that the output has come to, near where it last was sure of it. Knows token ids only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Sequences

from outrider.draft.base import Draft, Drafter
from outrider.draft.growth import paying_chain
from outrider.draft.suffix import score_of
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree

# How surely a prediction's beginning is taken: as if so many tokens had agreed.
START_LENGTH = 3
# From here on the place is not doubted, and a longer match is no better than a nearer one.
SURE_LENGTH = 16
# Tokens that must agree for a place to be the one that the next search starts from.
ANCHOR_LENGTH = 3
# A single token that agrees is believed this far ahead; two are believed anywhere.
NEAR = 16
# Of the places that two tokens lead to, so many are looked at behind and ahead of the anchor.
NUM_BEHIND, NUM_AHEAD = 8, 32
# Text goes back less often than ahead: a place behind counts as so many times as far.
BEHIND = 4
# The rest of a longer prediction is drafted too, but not found again after a mismatch.
MAX_INDEXED = 65_536
# Of a token in the index, measured as the process's memory where no two tokens come twice; less in real text.
NUM_INDEX_BYTES = 240


class Prediction:
    """Expected tokens, and where in them each pair of tokens leads: to places, ascending.

    Places lie between tokens: `token_ids[place]` is the one that comes next there.
    """

    def __init__(self, token_ids: tuple[int, ...], max_indexed: int = MAX_INDEXED) -> None:
        self.token_ids = token_ids
        self.places: dict[tuple[int, int], list[int]] = {}
        self.num_indexed = min(len(token_ids), max_indexed)
        for place in range(2, self.num_indexed + 1):
            self.places.setdefault((token_ids[place - 2], token_ids[place - 1]), []).append(place)


class Alignment:
    """Where in its prediction an output stands.

    Attributes:
        place: after which the output is expected to go on.
        num_matched: tokens before the place that are the text's last ones, counted up to `SURE_LENGTH`.
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self.place = 0
        self.num_matched = START_LENGTH
        self._expected = prediction.token_ids
        self._anchor = 0
        self._num_since_anchor = 0
        self._num_seen = 0

    def follow(self, text: list[int], begin: int) -> None:
        """Go along with what the output, `text` from `begin` on, has gained, and see where the text has come to."""
        num_followed, self._num_seen = max(self._num_seen, begin), len(text)
        for end in range(num_followed + 1, len(text) + 1):
            self._step(text[end - 1])
            if self.num_matched == 0 or (self.num_matched < SURE_LENGTH and end == len(text)):
                self._search(text[max(0, end - SURE_LENGTH) : end])

    def expected(self, num_tokens: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Tokens that should come next, with scores; none where the output went its own way."""
        tokens = self._expected[self.place : self.place + num_tokens]
        return tokens, tuple(score_of(self.num_matched + index) for index in range(len(tokens)))

    def _step(self, token: int) -> None:
        if self._expected[self.place : self.place + 1] == (token,):
            self.place += 1
            self.num_matched = min(self.num_matched + 1, SURE_LENGTH)
        else:
            self.num_matched = 0
        self._num_since_anchor += 1
        if self.num_matched >= ANCHOR_LENGTH:
            self._anchor, self._num_since_anchor = self.place, 0

    def _search(self, ending: list[int]) -> None:
        """Take the place that agrees longest, of several the nearest; failing that, what little there is to go by."""
        lengths = {self.place: self.num_matched} if self.num_matched else {}
        for place in self._near(self.prediction.places.get((ending[-2], ending[-1]), [])) if len(ending) > 1 else ():
            lengths[place] = max(self._match_length(ending, place), lengths.get(place, 0))
        if lengths:
            self.place = max(lengths, key=lambda place: (lengths[place], -self._distance(place)))
            self.num_matched = lengths[self.place]
        else:
            self._guess(ending[-1])

    def _guess(self, token: int) -> None:
        """One token replaces one more often than not; otherwise it may be one that comes a little later."""
        in_step = self._anchor + self._num_since_anchor
        ahead = self._expected[self._anchor : self._anchor + NEAR]
        if self._expected[in_step - 1 : in_step] == (token,):
            self.place, self.num_matched = in_step, 1
        elif token in ahead:
            self.place, self.num_matched = self._anchor + ahead.index(token) + 1, 1
        else:
            self.place = in_step if self._num_since_anchor == 1 else len(self._expected)

    def _near(self, places: list[int]) -> list[int]:
        middle = bisect_left(places, self._anchor)
        return places[max(0, middle - NUM_BEHIND) : middle + NUM_AHEAD]

    def _distance(self, place: int) -> int:
        return place - self._anchor if place >= self._anchor else BEHIND * (self._anchor - place)

    def _match_length(self, ending: list[int], place: int) -> int:
        longest, length = min(len(ending), place), 2
        while length < longest and self._expected[place - 1 - length] == ending[-1 - length]:
            length += 1
        return length


class PredictionDrafter(Drafter):
    """Follows `request.prediction_token_ids`; has nothing to say of a request without one.

    Where it is held to so many tokens, the predictions of all running texts have no more of them in their indexes.
    """

    name = "prediction"

    def __init__(self) -> None:
        self._alignments: dict[int, Alignment] = {}
        self._max_tokens: int | None = None

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        trees: list[TokenTree] = []
        scores: list[tuple[float, ...] | None] = []
        for sequence, budget in zip(sequences, budgets, strict=True):
            tree, tree_scores = TokenTree(), ()
            if budget.limit > 0 and sequence.request.prediction_token_ids:
                alignment = self._follow(sequence)
                tree, tree_scores = paying_chain(*alignment.expected(budget.limit), budget.worth)
            trees.append(tree)
            scores.append(tree_scores)
        return Draft(trees, scores, num_steps=0)

    def release(self, sequence: Sequence) -> None:
        self._alignments.pop(sequence.request.request_id, None)

    def memory(self) -> int:
        """Bytes, estimated."""
        return self._num_indexed() * NUM_INDEX_BYTES

    def max_memory(self, num_tokens: int) -> int:
        return num_tokens * NUM_INDEX_BYTES

    def hold(self, num_tokens: int) -> None:
        self._max_tokens = num_tokens

    def check(self) -> None:
        assert self._max_tokens is None or self._num_indexed() <= self._max_tokens

    def _num_indexed(self) -> int:
        predictions = {id(alignment.prediction): alignment.prediction for alignment in self._alignments.values()}
        return sum(prediction.num_indexed for prediction in predictions.values())

    def _follow(self, sequence: Sequence) -> Alignment:
        request_id = sequence.request.request_id
        if request_id not in self._alignments:
            self._alignments[request_id] = Alignment(self._prediction(sequence.request.prediction_token_ids))
        alignment = self._alignments[request_id]
        alignment.follow(sequence.token_ids, sequence.num_prompt_tokens)
        return alignment

    def _prediction(self, token_ids: tuple[int, ...]) -> Prediction:
        """Several texts of one prompt share what is known of their prediction."""
        known = (alignment.prediction for alignment in self._alignments.values())
        shared = next((each for each in known if each.token_ids == token_ids), None)
        if shared is not None:
            return shared
        num_left = MAX_INDEXED if self._max_tokens is None else self._max_tokens - self._num_indexed()
        return Prediction(token_ids, min(MAX_INDEXED, num_left))
