"""What verifiers are certified on: small vocabularies, models that contradict each other, and ways to draft.

Probabilities are fractions that depend on the text so far. Every way to draft here keeps to what makes drawing safe:
its shape is fixed before a token is drawn, or ends after a token that is still verified.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outrider.tree import ROOT, TokenTree
from outrider.verify.enumerate import Case, Chance, Model, Proposal, Text

# A tree without tokens: the shapes of its branches.
Shape = tuple["Shape", ...]
Pick = Callable[[NDArray[Any]], int]
# From a draft model's probabilities, the tokens tried before and a row of noise: a child and what it was drawn from.
Draw = Callable[[NDArray[Any], list[int], Pick], tuple[int, NDArray[Any] | None]]

_USUAL, _QUICK = ("general", "zeros"), ("drawn", "not drawn", "the first not drawn")
TREES: dict[str, Shape] = {"[2; 2, 1]": (((), ()), ((),)), "[3; 1]": (((),), (), ())}


class Models(NamedTuple):
    """Who writes and who drafts."""

    target: Model
    draft: Model


def chain_of(length: int) -> Shape:
    """The shape with one branch."""
    return (chain_of(length - 1),) if length else ()


def all_cases() -> Iterator[Case]:
    """Chains, then trees: those that take seconds together. `large_cases` has the others."""
    yield from chain_cases()
    for kind in KINDS:
        yield from _tree_cases(kind, 3, DRAWS)
    for kind in _USUAL:
        yield from _tree_cases(kind, 4, _QUICK)


def large_cases() -> Iterator[Case]:
    """What trees of four tokens have beyond `all_cases`: the other kinds of models, and draws with replacement."""
    for kind in KINDS:
        yield from _tree_cases(kind, 4, [way for way in DRAWS if kind not in _USUAL or way not in _QUICK])


def _tree_cases(kind: str, vocab_size: int, ways: Iterable[str]) -> Iterator[Case]:
    models = make_models(kind, vocab_size)
    for name, shape in TREES.items():
        for way in ways:
            yield tree_case(f"{kind}, {vocab_size} tokens, tree {name}, {way}", models, shape, DRAWS[way])


def chain_cases() -> Iterator[Case]:
    """Chains of up to three tokens: drawn, not drawn, and some that end early; then two rounds."""
    for vocab_size in (3, 4):
        for kind in KINDS:
            models = make_models(kind, vocab_size)
            where = f"{kind}, {vocab_size} tokens"
            for length in (1, 2, 3):
                yield tree_case(f"{where}, chain {length}", models, chain_of(length), drawn)
            yield tree_case(f"{where}, chain 2, not drawn", models, chain_of(2), likeliest)
            yield Case(f"{where}, chain 2, ends after unlikely tokens", models.target, _ends_after(models.draft, 2), 3)
    for kind in KINDS:
        models = make_models(kind, 3)
        case = tree_case(f"{kind}, 3 tokens, chain 1, two rounds", models, chain_of(1), drawn)
        yield case._replace(num_tokens=3, num_rounds=2)


def tree_case(name: str, models: Models, shape: Shape, draw: Draw) -> Case:
    """One round with trees of this shape."""

    def propose(text: Text, chance: Chance) -> Proposal:
        growing = _Growing(models.draft, text, draw, chance)
        growing.grow(shape, ROOT, ())
        return Proposal(TokenTree(tuple(growing.tokens), tuple(growing.parents)), growing.probabilities)

    return Case(name, models.target, propose, _depth(shape) + 1)


class _Growing:
    """A tree being drawn, a parent before its children."""

    def __init__(self, draft: Model, text: Text, draw: Draw, chance: Chance) -> None:
        self.draft, self.text, self.draw, self.chance = draft, text, draw, chance
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.probabilities: list[NDArray[Any] | None] = []

    def grow(self, shape: Shape, parent: int, place: Text, path: Text = ()) -> None:
        probabilities = self.draft((*self.text, *path))
        tried: list[int] = []
        for rank, below in enumerate(shape):
            key = ("proposal", len(self.text), (*place, rank))
            token, proposal = self.draw(probabilities, tried, lambda left, key=key: self.chance.pick(left, key))
            tried.append(token)
            self.tokens.append(token)
            self.parents.append(parent)
            self.probabilities.append(proposal)
            self.grow(below, len(self.tokens) - 1, (*place, rank), (*path, token))


def drawn(probabilities: NDArray[Any], tried: list[int], pick: Pick) -> tuple[int, NDArray[Any] | None]:
    """Without replacement; what is left without any probability is taken in order."""
    left = probabilities.copy()
    left[tried] = Fraction(0)
    if not (total := left.sum()):
        return min(set(range(len(left))) - set(tried)), None
    return pick(left / total), left / total


def drawn_again(probabilities: NDArray[Any], _: list[int], pick: Pick) -> tuple[int, NDArray[Any] | None]:
    """With replacement."""
    return pick(probabilities), probabilities


def likeliest(probabilities: NDArray[Any], tried: list[int], _: Pick) -> tuple[int, NDArray[Any] | None]:
    """Not drawn at all."""
    untried = [token for token in range(len(probabilities)) if token not in tried]
    return max(untried, key=lambda token: probabilities[token]), None


def likeliest_then_drawn(probabilities: NDArray[Any], tried: list[int], pick: Pick) -> tuple[int, NDArray[Any] | None]:
    """The first not drawn, the others without replacement."""
    return (drawn if tried else likeliest)(probabilities, tried, pick)


DRAWS: dict[str, Draw] = {
    "drawn": drawn,
    "drawn with replacement": drawn_again,
    "not drawn": likeliest,
    "the first not drawn": likeliest_then_drawn,
}


def _ends_after(draft: Model, length: int) -> Callable[[Text, Chance], Proposal]:
    """A chain that goes no further than a token which was unlikely; that token is verified like the others."""

    def propose(text: Text, chance: Chance) -> Proposal:
        tokens: list[int] = []
        proposals: list[NDArray[Any] | None] = []
        while len(tokens) < length:
            probabilities = draft((*text, *tokens))
            tokens.append(chance.pick(probabilities, ("proposal", len(text), (0,) * (len(tokens) + 1))))
            proposals.append(probabilities)
            if probabilities[tokens[-1]] < Fraction(1, 3):
                break
        return Proposal(TokenTree.chain(tuple(tokens)), proposals)

    return propose


def make_models(kind: str, vocab_size: int, seed: int = 0) -> Models:
    """A pair of one of the `KINDS`, whose probabilities differ from text to text."""

    @functools.cache
    def pair(text: Text) -> tuple[NDArray[Any], ...]:
        generator = random.Random(f"{seed} {kind} {vocab_size} {text}")  # noqa: S311 - replayed
        return tuple(map(_as_fractions, KINDS[kind](generator, vocab_size)))

    def target(text: Text) -> NDArray[Any]:
        return pair(text)[0]

    def draft(text: Text) -> NDArray[Any]:
        return pair(text)[1]

    return Models(target, draft)


def _general(generator: random.Random, vocab_size: int) -> tuple[list[int], list[int]]:
    target, draft = ([generator.randint(1, 6) for _ in range(vocab_size)] for _ in range(2))
    return target, draft


def _zeros(generator: random.Random, vocab_size: int) -> tuple[list[int], list[int]]:
    target, draft = ([generator.choice((0, 0, 1, 2, 5)) for _ in range(vocab_size)] for _ in range(2))
    for weights in (target, draft):
        weights[generator.randrange(vocab_size)] = 3
    return target, draft


def _equal(generator: random.Random, vocab_size: int) -> tuple[list[int], list[int]]:
    target, _ = _zeros(generator, vocab_size)
    return target, target


def _disjoint(generator: random.Random, vocab_size: int) -> tuple[list[int], list[int]]:
    target, draft = _general(generator, vocab_size)
    border = vocab_size // 2
    return [*target[:border], *[0] * (vocab_size - border)], [*[0] * border, *draft[border:]]


def _certain_target(generator: random.Random, vocab_size: int) -> tuple[list[int], list[int]]:
    return _certain(generator, vocab_size), _general(generator, vocab_size)[1]


def _certain_draft(generator: random.Random, vocab_size: int) -> tuple[list[int], list[int]]:
    return _general(generator, vocab_size)[0], _certain(generator, vocab_size)


def _certain(generator: random.Random, vocab_size: int) -> list[int]:
    chosen = generator.randrange(vocab_size)
    return [int(token == chosen) for token in range(vocab_size)]


KINDS: dict[str, Callable[[random.Random, int], tuple[list[int], list[int]]]] = {
    "general": _general,
    "zeros": _zeros,
    "equal": _equal,
    "disjoint": _disjoint,
    "certain target": _certain_target,
    "certain draft": _certain_draft,
}


def _as_fractions(weights: list[int]) -> NDArray[Any]:
    probabilities = np.array([Fraction(weight, sum(weights)) for weight in weights])
    probabilities.flags.writeable = False  # it is kept, and a verifier may be anybody's code
    return probabilities


def _depth(shape: Shape) -> int:
    return 1 + max(map(_depth, shape)) if shape else 0
