"""Drafts from the sequence's own text: what followed the longest earlier occurrence of the current ending.

A suffix automaton (Blumer et al. 1985) of the text so far answers that in amortised constant time per token. Knows only
token ids; costs no model, and is right exactly where a text repeats itself.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from outrider.draft.base import Draft, Drafter
from outrider.sequence import Sequence
from outrider.tree import DraftBudget, TokenTree

MIN_MATCH_LENGTH = 2


class SuffixAutomaton:
    """All substrings of a growing text, each knowing an earlier place where it ended.

    States are sets of substrings that end at the same places; state 0 is the empty text. `_link` leads to the longest
    suffix that ends at more places, so the link of the newest state is the longest suffix that occurred before.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._end = [0]
        self._last = 0
        self._match_end, self._match_length = 0, 0

    def append(self, token: int) -> None:
        """Add one token and find where the ending that it completes occurred before."""
        self.tokens.append(token)
        self._extend(token)
        repeated = self._link[self._last]
        self._match_end, self._match_length = self._end[repeated], self._length[repeated]
        # The next time this ending comes up, the most recent place is the likeliest guide.
        self._end[repeated] = len(self.tokens)

    def continuation(self, num_tokens: int) -> tuple[int, ...]:
        """What followed the longest earlier occurrence of the text's ending, if that is long enough.

        An occurrence that reaches up to the ending is a repetition: it is unrolled as often as needed.
        """
        if self._match_length < MIN_MATCH_LENGTH:
            return ()
        period = len(self.tokens) - self._match_end
        return tuple(self.tokens[self._match_end + index % period] for index in range(num_tokens))

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
    """Keeps one automaton per sequence, fed with whatever tokens the text has gained since it was last asked."""

    name = "suffix"

    def __init__(self) -> None:
        self._automata: dict[int, SuffixAutomaton] = {}

    def propose(self, sequences: Sequences[Sequence], budgets: Sequences[DraftBudget]) -> Draft:
        return Draft([self._chain(*pair) for pair in zip(sequences, budgets, strict=True)])

    def release(self, sequence: Sequence) -> None:
        self._automata.pop(sequence.request.request_id, None)

    def _chain(self, sequence: Sequence, budget: DraftBudget) -> TokenTree:
        if budget.limit < 1:
            return TokenTree()
        automaton = self._automata.setdefault(sequence.request.request_id, SuffixAutomaton())
        for token in sequence.token_ids[len(automaton.tokens) :]:
            automaton.append(token)
        return TokenTree.chain(automaton.continuation(budget.limit))
