"""The steps of other ways than chains of guesses: trees of guesses, and chains that block verification keeps a part of.

Both are counted on the target's own texts, without making any.

A tree grows by what a draft model offers at each node. Along the text that was measured; beside it, where a guess was
wrong, nobody knows what the model would have said next, and what it offered at some other place of the text stands in.
That decides which nodes there is room for, never which token is right.

Block verification keeps the tokens x1 ... xi of a drawn chain, and perhaps more, with the weight of the last one: the
smallest of 1 and, for each k up to i, of target(xk+1 ... xi) draft(x1 ... xk) / draft(x1 ... xi), all given what comes
before. What then is written is distributed as the target's text is. So of a text of the target's the first i tokens
were drafted and kept with probability

    min(1, draft(x1) / target(x1), draft(x1 x2) / target(x1 x2), ..., draft(x1 ... xi) / target(x1 ... xi)),

which takes nothing but both models' probabilities of the text's own tokens, and is exact. Knows numbers only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from outrider.draft.growth import BestFirst
from outrider.predict.trace import Offer, Trace, Walk, Way, walk
from outrider.tree import ROOT, DraftBudget

# Walks through a text where chance decides what is kept; together they leave less to it.
NUM_DRAWN = 4


def is_known(trace: Trace, way: Way) -> bool:
    """Whether the trace tells what this way would have made of the text."""
    if way.rule == "block":
        return way.max_children == 1 and bool(trace.odds)
    return way.max_children == 1 or bool(trace.offers)


def walks_of(trace: Trace, depth: int, way: Way) -> list[Walk]:
    """One walk through a text, or as many as are drawn.

    Args:
        trace: of which `is_known`.
        depth: guesses a step, or nodes of a tree.
        way: how they are made and kept.
    """
    if way.rule == "block":
        return [walk(trace, depth, _drawn(trace, number)) for number in range(NUM_DRAWN)]
    if way.max_children > 1:
        return [walk(trace, depth, _grown(trace, way.max_children))]
    return [walk(trace, depth)]


def num_kept_at_once(trace: Trace, way: Way) -> float:
    """Places at which a first guess is kept; under block verification, how many are to be expected."""
    if way.rule == "coupled":
        return trace.num_agreed
    return math.fsum(
        min(math.exp(odds), 1.0) if root.is_modelled else float(root.num_accepted > 0)
        for root, odds in zip(trace.roots, trace.odds, strict=False)
    )


def num_kept(odds: Sequence[float], chance: float) -> int:
    """Tokens of a drawn chain that block verification keeps, given the text and one number of chance in (0, 1].

    Args:
        odds: of the tokens, as `Trace` has them.
        chance: tokens are kept as long as the probability that they were is no smaller.
    """
    total, least = 0.0, math.log(chance)
    for count, each in enumerate(odds):
        total += each
        if total < least:
            return count
    return len(odds)


def _drawn(trace: Trace, number: int) -> Callable[[int, int], int]:
    """At each place the walks share out what chance there is."""
    generator = random.Random(len(trace.roots))  # noqa: S311 - chance that can be repeated
    chances = [1.0 - (generator.random() + number / NUM_DRAWN) % 1.0 for _ in trace.roots]
    return lambda place, num_drafted: num_kept(trace.odds[place : place + num_drafted], chances[place])


def _grown(trace: Trace, max_children: int) -> Callable[[int, int], int]:
    offers = [offer._replace(scores=offer.scores[:max_children]) for offer in trace.offers]
    elsewhere = random.Random(len(offers))  # noqa: S311 - as above
    return lambda place, num_nodes: len_of_path(offers, place, num_nodes, elsewhere)


def len_of_path(offers: Sequence[Offer], place: int, num_nodes: int, elsewhere: random.Random) -> int:
    """Tokens of the text that a tree of so many nodes has in a row, if it is grown at this place."""
    growth = BestFirst(DraftBudget(num_nodes, num_nodes), num_nodes)
    own = {ROOT: place}  # nodes that are the text's, and the places after them
    while num_nodes and (frontier := sorted(growth.frontier())):
        grown: list[tuple[int, list[tuple[int, float]]]] = []
        number = len(growth.known)
        for node in frontier:
            at = own.get(node, len(offers))
            offer = offers[at] if at < len(offers) else Offer(offers[elsewhere.randrange(len(offers))].scores, None)
            grown.append((node, [(int(rank == offer.rank), score) for rank, score in enumerate(offer.scores)]))
            if offer.rank is not None and offer.rank < len(offer.scores):
                own[number + offer.rank] = at + 1
            number += len(offer.scores)
        growth.add(grown)
    tree, _ = growth.finish()
    return sum(tree.tokens)
