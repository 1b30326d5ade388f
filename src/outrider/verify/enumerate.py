"""Certifies a verifier: every chance that a round can take, replayed one by one, with probabilities as fractions.

What a draft and a verifier do with chance is a tree of choices. An experiment is run again and again, each time along
another branch, until all branches were seen. What comes out is not an estimate: if the texts' distribution differs from
the target's by 0, the verifier is lossless on that case, and if it does not, the difference is the bias.

One round suffices. If the tokens that a round emits, gone on with by the target, have the target's distribution
whatever came before, then so has any number of rounds, as long as each takes fresh chance. Cases with several rounds
are for what does not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from numbers import Integral, Rational
from typing import Any, NamedTuple, TypeVar, cast

from numpy.typing import NDArray

from outrider.errors import UsageError
from outrider.tree import TokenTree, Verdict
from outrider.verify.base import Round, Verifier

Text = tuple[int, ...]
# A text to the probabilities of its next token, as fractions.
Model = Callable[[Text], NDArray[Any]]
Rule = Callable[[TokenTree, Round], Verdict]
Result = TypeVar("Result", bound=Hashable)
_ALL = (Fraction(0), Fraction(1))


class Chance:
    """One run's chance: follows a script as far as that goes, then takes the first of what can happen.

    Attributes:
        probability: of the run so far.
    """

    def __init__(self, script: Sequence[int] = ()) -> None:
        self.probability = Fraction(1)
        self._script = script
        self._taken: list[int] = []
        self._num_options: list[int] = []
        self._known: dict[Hashable, tuple[Fraction, Fraction]] = {}

    def pick(self, probabilities: Sequence[Any] | NDArray[Any], key: Hashable = None) -> int:
        """A token by these probabilities.

        Args:
            probabilities: fractions or whole numbers that add up to 1.
            key: of the row of noise that decides, a number between 0 and 1 which is looked up in the cumulated
                probabilities; what is picked twice with one key is not independent. None: a row of its own.

        Raises:
            UsageError: these are no exact probabilities.
        """
        shares = [_exact(probability) for probability in probabilities]
        if min(shares, default=-1) < 0 or sum(shares) != 1:
            raise UsageError(
                f"picks by probabilities {list(map(str, shares))}, but they must add up to 1, all 0 or more"
            )
        low, high = self._known.get(key, _ALL)
        options: list[tuple[int, Fraction, Fraction]] = []
        begin = _ALL[0]
        for token, share in enumerate(shares):
            end = begin + share
            if share and begin < high and low < end:
                options.append((token, max(begin, low), min(end, high)))
            begin = end
        token, begin, end = options[self._take(len(options))]
        if len(options) > 1:
            self.probability *= (end - begin) / (high - low)
            self._known[key] = (begin, end)
            self._known.pop(None, None)
        return token

    def flip(self, probability: Any, key: Hashable = None) -> bool:
        """A coin, true with this probability.

        Raises:
            UsageError: this is no exact probability.
        """
        share = _exact(probability)
        if not 0 <= share <= 1:
            raise UsageError(f"flips a coin with probability {share}, but it must be between 0 and 1")
        return self.pick((share, 1 - share), key) == 0

    def next_script(self) -> list[int] | None:
        """The next branch's; None after the last."""
        script = self._taken.copy()
        while script:
            if script[-1] + 1 < self._num_options[len(script) - 1]:
                script[-1] += 1
                return script
            script.pop()
        return None

    def _take(self, num_options: int) -> int:
        place = len(self._taken)
        self._taken.append(self._script[place] if place < len(self._script) else 0)
        self._num_options.append(num_options)
        return self._taken[-1]


def outcomes(experiment: Callable[[Chance], Result]) -> dict[Result, Fraction]:
    """All that an experiment can come to, with probabilities. It must take chance from what it is given alone."""
    found: dict[Result, Fraction] = {}
    script: list[int] | None = []
    while script is not None:
        chance = Chance(script)
        result = experiment(chance)
        found[result] = found.get(result, Fraction(0)) + chance.probability
        script = chance.next_script()
    return found


class Proposal(NamedTuple):
    """A draft of one text. `probabilities` of each node [vocab] are what it was drawn from, None for a point mass."""

    tree: TokenTree
    probabilities: Sequence[NDArray[Any] | None]


class Case(NamedTuple):
    """A target, a way to draft for it, and how far the texts are compared.

    Attributes:
        name: in words.
        target: fractions, by the text so far.
        propose: drafts for a text, with the chance that it is given.
        num_tokens: of the texts compared; a round should be able to emit as many.
        num_rounds: at most; the target goes on by itself from there.
    """

    name: str
    target: Model
    propose: Callable[[Text, Chance], Proposal]
    num_tokens: int
    num_rounds: int = 1


class Certificate(NamedTuple):
    """What was found over all cases.

    Attributes:
        distance: the largest total variation between the emitted texts and the target's; 0 is lossless.
        num_cases: that were enumerated.
        worst_case: name of the case with that distance; None where it is 0.
        num_outcomes: different texts that rounds emitted, of all cases together.
    """

    distance: Fraction
    num_cases: int
    worst_case: str | None
    num_outcomes: int


def certify(verifier: Verifier | Rule, cases: Iterable[Case] | None = None) -> Certificate:
    """Enumerate a verifier on cases, by default on those of `cases.all_cases()`.

    Args:
        verifier: or its `verify` alone, a function of a tree and a round. It must compute in the numbers that it is
            given and take chance from the round's `flip` and `pick`.
        cases: `cases.chain_cases()` is for a verifier of chains; `cases.large_cases()` are more, and take longer.

    Raises:
        UsageError: the verifier computed with rounding, with what are no probabilities, or returned what is no verdict
            on the tree; or there are no cases.
    """
    if cases is None:
        from outrider.verify.cases import all_cases  # noqa: PLC0415 - made of what is defined here

        cases = all_cases()
    rule = verifier.verify if isinstance(verifier, Verifier) else verifier
    worst, worst_case, num_cases, num_outcomes = Fraction(0), None, 0, 0
    for case in cases:
        try:
            emitted = emissions(rule, case)
        except UsageError as error:
            raise UsageError(f"the verifier {error}; in the case {case.name!r}") from error
        distance = distance_of(emitted, case)
        num_cases, num_outcomes = num_cases + 1, num_outcomes + len(emitted)
        if distance > worst:
            worst, worst_case = distance, case.name
    if not num_cases:
        raise UsageError("there are no cases to certify it on: give some, and a generator only once")
    return Certificate(worst, num_cases, worst_case, num_outcomes)


def emissions(rule: Rule, case: Case) -> dict[Text, Fraction]:
    """What a case's rounds emit, with probabilities."""

    def run(chance: Chance) -> Text:
        text: Text = ()
        for _ in range(case.num_rounds):
            if len(text) < case.num_tokens:
                tree, probabilities = case.propose(text, chance)
                verdict = rule(tree, ExactRound(case.target, text, Proposal(tree, probabilities), chance))
                text += _emitted(tree, verdict, len(case.target(())))
        return text

    return outcomes(run)


def distance_of(emitted: dict[Text, Fraction], case: Case) -> Fraction:
    """Total variation between texts that begin like this and the target's own, over the case's first tokens."""
    found: dict[Text, Fraction] = {}
    for text, probability in emitted.items():
        for whole, share in _continued(text[: case.num_tokens], case):
            found[whole] = found.get(whole, Fraction(0)) + probability * share
    wanted = dict(_continued((), case))
    differences = [abs(found.get(text, Fraction(0)) - wanted.get(text, Fraction(0))) for text in found.keys() | wanted]
    return sum(differences, Fraction(0)) / 2


class ExactRound:
    """A `Round` in fractions. Rows of noise have the keys that the engine gives them: purpose, root, node's place."""

    def __init__(self, target: Model, text: Text, proposal: Proposal, chance: Chance) -> None:
        self._target, self._text, self._chance = target, text, chance
        self._tree, self._probabilities = proposal

    def token(self, row: int) -> int:
        path = self._tree.tokens_to(row - 1)
        return self._chance.pick(self.target_probabilities(row), ("target", len(self._text) + len(path)))

    def target_probabilities(self, row: int) -> NDArray[Any]:
        return self._target((*self._text, *self._tree.tokens_to(row - 1)))

    def draft_probabilities(self, node: int) -> NDArray[Any] | None:
        return self._probabilities[node]

    def flip(self, node: int, probability: Any) -> bool:
        return self._chance.flip(probability, ("coin", len(self._text), self._tree.ranks_to(node)))

    def pick(self, node: int, probabilities: NDArray[Any]) -> int:
        return self._chance.pick(probabilities, ("residual", len(self._text), self._tree.ranks_to(node)))


def _emitted(tree: TokenTree, verdict: object, vocab_size: int) -> Text:
    """The tokens of a verdict, which is anybody's."""
    if not isinstance(verdict, Verdict):
        raise UsageError(f"returned {verdict!r}, but must return a Verdict(path, next_token, is_bonus)")
    path, token = verdict.path, verdict.next_token
    if not _is_below(vocab_size, token):
        raise UsageError(f"ended with {token!r}, but must end with a token, a whole number below {vocab_size}")
    if not _are_below(len(tree), path):
        raise UsageError(f"accepted {path!r}, but must accept nodes of the tree, whole numbers below {len(tree)}")
    if not all(tree.parents[node] == parent for parent, node in pairwise((-1, *path))):
        raise UsageError(f"accepted {path}, which is no path of {tree}")
    return (*(tree.tokens[node] for node in path), int(token))


def _is_below(end: int, number: object) -> bool:
    return not isinstance(number, bool) and isinstance(number, Integral) and 0 <= int(number) < end


def _are_below(end: int, numbers: object) -> bool:
    return isinstance(numbers, tuple | list) and all(_is_below(end, number) for number in cast("list[object]", numbers))


def _continued(text: Text, case: Case) -> Iterable[tuple[Text, Fraction]]:
    """All texts of the case's length that the target makes of this beginning."""
    if len(text) >= case.num_tokens:
        yield text, Fraction(1)
        return
    for token, share in enumerate(case.target(text)):
        if share:
            for whole, rest in _continued((*text, token), case):
                yield whole, share * rest


def _exact(number: Any) -> Fraction:
    if not isinstance(number, Rational):
        raise UsageError(f"computed {number!r}, which is rounded: use the numbers that it is given, and no logarithms")
    return Fraction(int(number.numerator), int(number.denominator))  # numpy's whole numbers would overflow
