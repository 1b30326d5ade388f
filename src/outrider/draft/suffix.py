"""Drafts from text that was there before: what followed the longest earlier occurrence of the current ending.

A suffix automaton (Blumer et al. 1985) of the text so far answers that in amortised constant time per token. Knows only
token ids; costs no model, and is right exactly where a text repeats itself, or, if asked to remember, other texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Sequences, Set as AbstractSet
from typing import NamedTuple

from outrider.draft.base import Draft, Drafter
from outrider.draft.growth import paying_chain
from outrider.draft.remembered import RememberedTexts
from outrider.errors import ParameterError
from outrider.sequence import MAX_TOLD, Hindsight, Sequence
from outrider.tree import DraftBudget, TokenTree

MIN_MATCH_LENGTH = 2
# What a text that has gone on in several ways from here takes off a score. Fitted, as the scores' form is, to code and
# prose read as if they were being written: there it is worth as much as a match a quarter as long.
AMBIGUITY = 2.0
# Measured. Source code has 1.4 states a token; a text has at most 2, which take less each.
NUM_STATE_BYTES = 390
MAX_TOKEN_BYTES = 2 * NUM_STATE_BYTES


class Continuation(NamedTuple):
    """What a matching text went on with, and how surely this one will: a score for each token."""

    tokens: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()


def score_of(match_length: int) -> float:
    """How surely a token comes next that followed a match of this length; every token that holds makes it longer."""
    return math.log2(1 + match_length)


class SuffixAutomaton:
    """All substrings of a growing text, each knowing an earlier place where it ended.

    States are sets of substrings that end at the same places; state 0 is the empty text. `_link` leads to the longest
    suffix that ends at more places, so the link of the newest state is the longest suffix that occurred before.

    Attributes:
        first_told: first place that no draft was made for.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._end = [0]
        self._last = 0
        self._match_end, self._match_length = 0, 0
        self.first_told = 0

    def append(self, token: int) -> None:
        """Add one token and find where the ending that it completes occurred before."""
        self.tokens.append(token)
        self._extend(token)
        repeated = self._link[self._last]
        self._match_end, self._match_length = self._end[repeated], self._length[repeated]
        # The next time this ending comes up, the most recent place is the likeliest guide.
        self._end[repeated] = len(self.tokens)

    @property
    def match_length(self) -> int:
        """How long the text's longest ending is that occurred before."""
        return self._match_length

    @property
    def num_states(self) -> int:
        return len(self._next)

    def continuation(self, num_tokens: int) -> Continuation:
        """What followed the longest earlier occurrence of the text's ending, if that is long enough.

        An occurrence that reaches up to the ending is a repetition: it is unrolled as often as needed.
        """
        if self._match_length < MIN_MATCH_LENGTH:
            return Continuation()
        period = len(self.tokens) - self._match_end
        tokens = tuple(self.tokens[self._match_end + index % period] for index in range(num_tokens))
        return Continuation(tokens, self._scores(tokens))

    def _scores(self, tokens: tuple[int, ...]) -> tuple[float, ...]:
        scores: list[float] = []
        state: int | None = self._link[self._last]
        for match_length, token in enumerate(tokens, start=self._match_length):
            # Unrolled beyond the text's end there is no state, and nothing that speaks against it.
            followers = self._next[state] if state is not None else {}
            scores.append(score_of(match_length) - (AMBIGUITY if len(followers) > 1 else 0.0))
            state = followers.get(token)
        return tuple(scores)

    def _extend(self, token: int) -> None:
        created = self._add_state({}, self._length[self._last] + 1, len(self.tokens))
        state = self._last
        while state != -1 and token not in self._next[state]:
            self._next[state][token] = created
            state = self._link[state]
        self._link[created] = 0 if state == -1 else self._split(state, token)
        self._last = created

    def _split(self, state: int, token: int) -> int:
        """The state of exactly the substrings of `state` followed by `token`, cloned off if longer ones share it."""
        follower = self._next[state][token]
        if self._length[follower] == self._length[state] + 1:
            return follower
        clone = self._add_state(dict(self._next[follower]), self._length[state] + 1, self._end[follower])
        self._link[clone] = self._link[follower]
        while state != -1 and self._next[state].get(token) == follower:
            self._next[state][token] = clone
            state = self._link[state]
        self._link[follower] = clone
        return clone

    def _add_state(self, followers: dict[int, int], length: int, end: int) -> int:
        self._next.append(followers)
        self._link.append(0)
        self._length.append(length)
        self._end.append(end)
        return len(self._next) - 1


class SuffixDrafter(Drafter):
    """Keeps one automaton per sequence, fed with whatever tokens the text has gained since it was last asked.

    Where it is held to so many tokens, it forgets the texts that it was not asked about, longest unused first; one that
    still finds no room is not drafted for from its own past.

    It may also remember what other requests were answered, finished or cancelled, but not what they asked. Drafts
    change no text, but the time that they save tells that others' answers went on alike: ask for it only where all
    requests may know of each other.

    Args:
        num_remembered: tokens of earlier outputs to draft from as well, the oldest forgotten first; 0: none.

    Raises:
        ParameterError: `num_remembered` is negative.
    """

    name = "suffix"

    def __init__(self, num_remembered: int = 0) -> None:
        if num_remembered < 0:
            raise ParameterError(f"num_remembered is {num_remembered}, but must be 0 (remember nothing) or more")
        self._automata: dict[int, SuffixAutomaton] = {}  # by request, longest unused first
        self._num_tokens = 0  # of all automata
        self._max_tokens: int | None = None
        self._remembered = RememberedTexts(num_remembered) if num_remembered else None
        self.looks_back = not num_remembered  # of remembered texts nobody knows what they would have said

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        trees: list[TokenTree] = []
        scores: list[tuple[float, ...] | None] = []
        hindsight: list[Hindsight] = []
        asked = {sequence.request.request_id for sequence in sequences}
        for sequence, budget in zip(sequences, budgets, strict=True):
            automaton, told = self._follow(sequence, asked) if budget.is_asking else (None, [])
            hindsight += told
            found = self._continuation(sequence, budget.limit, automaton) if budget.limit > 0 else Continuation()
            tree, tree_scores = paying_chain(*found, budget.worth)
            trees.append(tree)
            scores.append(tree_scores)
            if budget.limit > 0 and automaton is not None:
                automaton.first_told = len(sequence.token_ids) + max(1, len(tree))
        return Draft(trees, scores, num_steps=0, hindsight=tuple(hindsight))

    def release(self, sequence: Sequence) -> None:
        self._forget(sequence.request.request_id)
        if self._remembered is not None:
            self._remembered.forget_reader(sequence.request.request_id)
            if sequence.finish_reason is not None:
                self._remembered.learn(sequence.output_token_ids)

    def memory(self) -> int:
        """Bytes, estimated."""
        num_states = sum(automaton.num_states for automaton in self._automata.values())
        return num_states * NUM_STATE_BYTES + (self._remembered.num_bytes if self._remembered else 0)

    def max_memory(self, num_tokens: int) -> int:
        return num_tokens * MAX_TOKEN_BYTES + (self._remembered.max_bytes if self._remembered else 0)

    def hold(self, num_tokens: int) -> None:
        self._max_tokens = num_tokens

    def check(self) -> None:
        assert self._num_tokens == sum(len(automaton.tokens) for automaton in self._automata.values())
        assert self._max_tokens is None or self._num_tokens <= self._max_tokens

    def _continuation(self, sequence: Sequence, num_tokens: int, automaton: SuffixAutomaton | None) -> Continuation:
        """The text's own, unless a remembered text agrees with more of its ending."""
        if self._remembered is not None:
            match = self._remembered.find(sequence.request.request_id, sequence.token_ids)
            if match.length > (automaton.match_length if automaton else 0):
                tokens = self._remembered.following(match.end, num_tokens)
                return Continuation(tokens, tuple(score_of(match.length + index) for index in range(len(tokens))))
        return automaton.continuation(num_tokens) if automaton else Continuation()

    def _follow(self, sequence: Sequence, asked: AbstractSet[int]) -> tuple[SuffixAutomaton | None, list[Hindsight]]:
        """The automaton of all its text, None if there is no room for it, and what it would have guessed of its end."""
        request_id = sequence.request.request_id
        automaton = self._automata.pop(request_id, None) or SuffixAutomaton()
        self._automata[request_id] = automaton
        gained = sequence.token_ids[len(automaton.tokens) :]
        if not self._make_room(len(gained), asked):
            self._forget(request_id)
            return None, []
        self._num_tokens += len(gained)
        num_prompt, num_tokens = len(sequence.request.prompt_token_ids), len(sequence.token_ids)
        first_told = max(automaton.first_told, num_prompt, num_tokens - MAX_TOLD)
        outcomes: list[bool | None] = []
        scores: list[float] = []
        for place, token in enumerate(gained, len(automaton.tokens)):
            if place >= first_told and self.looks_back:
                guess = automaton.continuation(1)
                outcomes.append(guess.tokens[0] == token if guess.tokens else None)
                scores += guess.scores
            automaton.append(token)
        told = [Hindsight(self.name, request_id, tuple(outcomes), tuple(scores))] if outcomes else []
        return automaton, told

    def _make_room(self, num_tokens: int, asked: AbstractSet[int]) -> bool:
        while self._max_tokens is not None and self._num_tokens + num_tokens > self._max_tokens:
            unused = next((request_id for request_id in self._automata if request_id not in asked), None)
            if unused is None:
                return False
            self._forget(unused)
        return True

    def _forget(self, request_id: int) -> None:
        automaton = self._automata.pop(request_id, None)
        if automaton is not None:
            self._num_tokens -= len(automaton.tokens)
