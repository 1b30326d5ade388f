"""Decoding without models: texts whose drafters are right where a seed says so, and steps that take virtual seconds.

A plain step of one sequence takes one second. Outcomes belong to positions of a text, so that every policy meets the
same luck, and what a policy is told may be noisy while what it is judged by is not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence as Sequences
from dataclasses import dataclass, field

from outrider.draft.growth import BestFirst
from outrider.policy.base import Policy
from outrider.policy.cost import Changes, StepCosts, sum_of_rows
from outrider.policy.curve import logit
from outrider.policy.marginal import AutoPolicy
from outrider.request import Depth, Request, SamplingParams
from outrider.sequence import DecodeStep, DraftWork, Hindsight, ScheduledBatch, ScheduledSequence, Sequence
from outrider.tree import ROOT, DraftBudget, TokenTree, Verdict, Worth

FREE = DraftBudget(0, 0)


def flat(rows: int) -> float:
    return 1.0 + 0.005 * (rows - 1)


def steep(rows: int) -> float:
    return 1.0 + 0.12 * (rows - 1)


def staircase(rows: int) -> float:
    return {2: 1.0, 5: 1.05, 9: 1.15, 13: 1.3, 17: 1.45}.get(rows, 1.0 + 0.028 * rows)


RUNGS = (5, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257)


def rungs(num_rows: Sequences[int]) -> int:
    total = sum(max(2, rows) for rows in num_rows)
    return next((rung for rung in RUNGS if rung >= total), total)


@dataclass
class Guesser:
    """A source of drafts.

    Attributes:
        chance: how likely the guess at a place of a text is right.
        step: seconds of a draft step for one sequence; `growth` times as many for twice the sequences.
        siblings: how likely the second guess at a place is right where the first is wrong, the third where both are;
            empty for a source that makes chains only.
        is_scored: whether guesses come with their chance, blurred by `blur`.
        offers: whether there is a guess at that place at all.
        looks_back: whether it tells what it would have guessed of the tokens that it reads, the last ones.
        look_seconds: that this takes for each text.
        after_seconds: that the target takes longer after a draft of it.
    """

    name: str
    chance: Callable[[int, int], float]
    step: float = 0.1
    growth: float = 1.1
    per_token: float = 0.0
    is_scored: bool = False
    blur: float = 0.5
    spread: float = 0.0
    offers: Callable[[int, int], bool] | None = None
    first_extra: float = 0.0
    is_stepless: bool = False
    siblings: tuple[float, ...] = ()
    looks_back: bool = False
    look_seconds: float = 0.0
    after_seconds: float = 0.0


MAX_TOLD = 16


@dataclass
class World:
    guessers: list[Guesser]
    target: Callable[[int], float] = flat
    computed_rows: Callable[[Sequences[int]], int] = sum_of_rows
    noise: float = 0.0
    slowness: Callable[[int], float] = lambda step: 1.0
    change_seconds: float = 0.0
    seed: int = 0
    branch_seconds: float = 0.0  # of a leaf more than a chain has
    thinking_seconds: float = 0.0  # of a step in which somebody may be drafted for


@dataclass
class Outcome:
    seconds: float = 0.0
    num_tokens: int = 0
    num_steps: int = 0
    depths: list[list[int]] = field(default_factory=list)  # planned, by step and sequence
    lengths: list[list[int]] = field(default_factory=list)  # of the output, before the step
    sequences: list[Sequence] = field(default_factory=list)
    draft_seconds: float = 0.0
    look_seconds: float = 0.0
    branchings: list[bool] = field(default_factory=list)  # by step, whether some tree was no chain

    @property
    def rate(self) -> float:
        return self.num_tokens / self.seconds


def make_sequence(
    index: int, num_tokens: int, *, depth: Depth = "auto", num_prompt: int = 16, max_children: int = 1
) -> Sequence:
    return Sequence.start(
        Request(
            request_id=index, prompt_token_ids=(0,) * num_prompt, params=SamplingParams(max_tokens=num_tokens), seed=0,
            depth=depth, max_children=max_children,
        )
    )  # fmt: skip


class Luck:
    """For one guesser and text: per position which guess is right (0 is the first, None is none), and its score."""

    def __init__(self, guesser: Guesser, index: int, length: int, seed: int) -> None:
        draw = random.Random(f"{seed} {guesser.name} {index}")
        self.ranks: list[int | None] = []
        beside = random.Random(f"{seed} {guesser.name} {index} beside")
        self.scores: list[float] = []
        for position in range(length):
            chance = guesser.chance(index, position)
            if guesser.spread:
                logit = math.log(chance / (1 - chance)) if 0 < chance < 1 else math.copysign(9, chance - 0.5)
                chance = 1 / (1 + math.exp(-(logit + draw.gauss(0, guesser.spread))))
            self.ranks.append(0 if draw.random() < chance else rank_of(guesser.siblings, beside))
            clear = min(max(chance, 0.001), 0.999)
            self.scores.append(math.log(clear / (1 - clear)) * 0.7 - 2 + draw.gauss(0, guesser.blur))


def rank_of(siblings: tuple[float, ...], draw: random.Random) -> int | None:
    return next((rank for rank, chance in enumerate(siblings, 1) if draw.random() < chance), None)


class Simulation:
    def __init__(self, world: World, policy: Policy, sequences: list[Sequence], *, start: list[int] | None = None):
        self.world, self.policy = world, policy
        self.waiting = list(zip(start or [0] * len(sequences), sequences, strict=True))
        self.running: list[Sequence] = []
        self.lucks: dict[tuple[str, int], Luck] = {}
        self.seen: dict[tuple[str, int], int] = {}
        self.noise = random.Random(world.seed + 1)
        self.outcome = Outcome(sequences=sequences)
        self.last_rows = 0
        self.asked: set[str] = set()
        self.hindsight: list[Hindsight] = []

    def run(self, *, at_once: int = 1000, num_tokens: int | None = None) -> Outcome:
        """Until all are finished, or so many tokens are decoded; at most `at_once` run together."""
        while self.waiting or self.running:
            while self.waiting and self.waiting[0][0] <= self.outcome.num_steps and len(self.running) < at_once:
                self.running.append(self.waiting.pop(0)[1])
            self.step()
            if num_tokens is not None and self.outcome.num_tokens >= num_tokens:
                break
            for sequence in [sequence for sequence in self.running if sequence.num_tokens_left <= 0]:
                self.running.remove(sequence)
                self.policy.release(sequence)
        return self.outcome

    def step(self) -> None:
        sequences, outcome, world = list(self.running), self.outcome, self.world
        self.hindsight.clear()
        budgets = self.policy.plan(sequences)
        assert len(budgets) == len(sequences)
        outcome.depths.append([budget.limit for budget in budgets])
        outcome.lengths.append([sequence.num_output_tokens for sequence in sequences])
        trees, scores, sources, work = self.propose(sequences, budgets)
        draft_seconds = sum(each.seconds for each in work)
        items = [ScheduledSequence(sequence, 1, budget) for sequence, budget in zip(sequences, budgets, strict=True)]
        counts = self.policy.select(ScheduledBatch("decode", items), trees, scores, sources)
        trees = [tree.first(count) for tree, count in zip(trees, counts, strict=True)]
        scores = [each and each[:count] for each, count in zip(scores, counts, strict=True)]
        verdicts = [self.verify(*parts) for parts in zip(sequences, trees, sources, strict=True)]
        num_rows = [1 + len(tree) for tree in trees]
        computed = world.computed_rows(num_rows)
        seconds = world.target(computed) + (world.change_seconds if computed != self.last_rows else 0.0)
        self.last_rows = computed
        leaves = [len(tree) - len(set(tree.parents) - {ROOT}) - 1 for tree in trees if not tree.is_chain]
        outcome.branchings.append(bool(leaves))
        seconds += world.branch_seconds * sum(leaves)
        drafted = {source for source, tree in zip(sources, trees, strict=True) if len(tree)}
        seconds += sum(guesser.after_seconds for guesser in world.guessers if guesser.name in drafted)
        slowness = world.slowness(outcome.num_steps)
        thinking_seconds = world.thinking_seconds * any(budget.limit for budget in budgets)
        outcome.seconds += (seconds + draft_seconds + thinking_seconds) * slowness
        outcome.draft_seconds += draft_seconds
        outcome.num_steps += 1
        for sequence, verdict in zip(sequences, verdicts, strict=True):
            emitted = min(verdict.num_accepted + 1, sequence.num_tokens_left)
            outcome.num_tokens += emitted
            sequence.token_ids += [0] * emitted
        self.policy.observe(
            DecodeStep(
                sequences=sequences, budgets=budgets, trees=trees, scores=scores, sources=sources, verdicts=verdicts,
                num_rows=num_rows, num_computed_rows=computed,
                work=[each._replace(seconds=each.seconds * slowness * self.blur()) for each in work],
                seconds=seconds * slowness * self.blur(), thinking_seconds=thinking_seconds * slowness,
                hindsight=tuple(self.hindsight),
            )
        )  # fmt: skip

    def blur(self) -> float:
        return math.exp(self.noise.gauss(0, self.world.noise)) if self.world.noise else 1.0

    def luck(self, name: str, sequence: Sequence) -> Luck:
        key = name, sequence.request.request_id
        if key not in self.lucks:
            guesser = next(guesser for guesser in self.world.guessers if guesser.name == name)
            length = sequence.request.params.max_tokens + 80
            self.lucks[key] = Luck(guesser, sequence.request.request_id, length, self.world.seed)
        return self.lucks[key]

    def verify(self, sequence: Sequence, tree: TokenTree, source: str) -> Verdict:
        position = sequence.num_output_tokens
        ranks = self.luck(source, sequence).ranks
        path: list[int] = []
        while True:
            last = path[-1] if path else ROOT
            guesses = [node for node, parent in enumerate(tree.parents) if parent == last]
            rank = ranks[position + len(path)]
            found = [node for node in guesses if tree.tokens[node] == rank]
            if not found:
                return Verdict(tuple(path), 0, not guesses)
            path += found

    def propose(self, sequences: list[Sequence], budgets: list[DraftBudget]):
        trees = [TokenTree()] * len(sequences)
        scores: list[tuple[float, ...] | None] = [None] * len(sequences)
        sources = [self.world.guessers[0].name] * len(sequences)
        left = [place for place, budget in enumerate(budgets) if budget.limit > 0]
        work: list[DraftWork] = []
        for number, guesser in enumerate(self.world.guessers):
            work += self.look_back(guesser, sequences, [budget.of_member(number) for budget in budgets])
            is_last = number == len(self.world.guessers) - 1
            asked = []
            for place in left:
                budget = budgets[place].members[number] if budgets[place].members else budgets[place]
                if budget.limit > 0:
                    asked.append((place, budget))
            found, steps, seconds, caught = self.grow(guesser, sequences, asked)
            if asked and work and work[-1].source == guesser.name:  # it looked back, too, in the same call
                looked = work.pop()
                caught, seconds = caught + looked.num_caught_up, seconds + looked.seconds
            work += [DraftWork(guesser.name, len(asked), steps, caught, seconds)] if asked else []
            for place, budget in asked:
                tree, tree_scores = found[place]
                if not len(tree):
                    continue
                rival = budgets[place].members[-1].gain if budgets[place].members else 0.0
                if is_last or gain_of(len(tree), tree_scores, budget.worth) > rival:
                    trees[place], scores[place], sources[place] = tree, tree_scores, guesser.name
                    left.remove(place)
        return trees, scores, sources, work

    def look_back(self, guesser: Guesser, sequences: list[Sequence], budgets: list[DraftBudget]) -> list[DraftWork]:
        """Read all but the last token, or as much as may be."""
        caught, num_asked = 0, 0
        for sequence, budget in zip(sequences, budgets, strict=True):
            if not budget.looks_back:
                continue
            num_asked, request_id = num_asked + 1, sequence.request.request_id
            seen = self.seen.get((guesser.name, request_id), 0)
            behind = max(0, len(sequence.token_ids) - seen - 1)
            is_part = budget.max_catch_up is not None and behind > budget.max_catch_up
            num_read = budget.max_catch_up if is_part and budget.max_catch_up is not None else behind
            caught += num_read * (not guesser.is_stepless)
            self.seen[guesser.name, request_id] = seen + num_read
            first = max(seen - len(sequence.request.prompt_token_ids), 0)
            places = range(first, sequence.num_output_tokens)[-MAX_TOLD:]
            if not is_part and places:
                ranks = self.luck(guesser.name, sequence).ranks
                outcomes = tuple(
                    ranks[place] == 0 if guesser.offers is None or guesser.offers(request_id, place) else None
                    for place in places
                )
                self.hindsight.append(Hindsight(guesser.name, request_id, outcomes, None))
        if not num_asked:
            return []
        seconds = caught * guesser.per_token + (guesser.step if caught else 0.0) + num_asked * guesser.look_seconds
        self.outcome.look_seconds += seconds
        return [DraftWork(guesser.name, num_asked, 0, caught, seconds)]

    def grow(self, guesser: Guesser, sequences: list[Sequence], asked: list[tuple[int, DraftBudget]]):
        """Chains as `ModelDrafter` makes them: the first guess always stays, a later one must pay."""
        found: dict[int, tuple[TokenTree, tuple[float, ...] | None]] = {}
        growing: list[tuple[int, DraftBudget, list[float], float]] = []
        seconds, steps, caught = 0.0, 0, 0
        is_reading = False
        for place, budget in asked:
            sequence = sequences[place]
            key = guesser.name, sequence.request.request_id
            behind = max(0, len(sequence.token_ids) - self.seen.get(key, 0) - 2) * (not guesser.is_stepless)
            if budget.max_catch_up is not None and behind > budget.max_catch_up:
                caught, is_reading = caught + budget.max_catch_up, True
                self.seen[key] = self.seen.get(key, 0) + budget.max_catch_up
                found[place] = TokenTree(), None
                continue
            caught += behind
            self.seen[key] = len(sequence.token_ids) + budget.limit  # its own guesses, where they are right
            if guesser.offers is None or guesser.offers(sequence.request.request_id, sequence.num_output_tokens):
                growing.append((place, budget, [], 1.0))
            else:
                found[place] = TokenTree(), None
        if (growing or is_reading) and guesser.name not in self.asked:
            self.asked.add(guesser.name)
            seconds += guesser.first_extra
        # Reading takes a forward of its own, which guessing right after it does not.
        seconds += caught * guesser.per_token + is_reading * guesser.step
        while growing:
            steps += 1
            seconds += guesser.step * guesser.growth ** math.log2(len(growing))
            still = []
            for place, budget, chain, before in growing:
                sequence = sequences[place]
                luck = self.luck(guesser.name, sequence)
                chain.append(luck.scores[sequence.num_output_tokens + len(chain)])
                survival = before * (budget.worth.chance(chain[-1]) if guesser.is_scored else 1.0)
                if len(chain) < budget.limit and (not guesser.is_scored or budget.worth.pays_to_go_on(survival)):
                    still.append((place, budget, chain, survival))
                    continue
                if len(chain) > 1 and guesser.is_scored and survival < budget.worth.node_price:
                    chain.pop()
                found[place] = TokenTree.chain((0,) * len(chain)), tuple(chain) if guesser.is_scored else None
                if budget.is_comb and guesser.siblings:
                    found[place] = comb_of(chain, budget, len(guesser.siblings), is_scored=guesser.is_scored)
            growing = still
        return found, 0 if guesser.is_stepless else steps, seconds, caught


def comb_of(chain: list[float], budget: DraftBudget, num_siblings: int, *, is_scored: bool):
    """A chain's tree with its siblings, as `Comb` makes it: each token is its guess's rank."""
    worth = budget.worth if is_scored else budget.worth._replace(intercept=logit(budget.worth.mean), slope=0.0)
    growth, node = BestFirst(budget._replace(worth=worth), len(chain)), ROOT
    for score in chain:
        guesses = [(rank, score if rank == 0 else -score) for rank in range(1 + num_siblings)][: budget.max_children]
        before, node = node, len(growth.known)
        growth.add([(before, guesses)])
    tree, scores = growth.finish()
    return tree, scores if is_scored else None


def gain_of(num_nodes: int, scores: tuple[float, ...] | None, worth: Worth) -> float:
    survival, gain = 1.0, 0.0
    for node in range(num_nodes):
        survival *= worth.mean if scores is None else worth.chance(scores[node])
        gain += survival - worth.node_price
    return gain


def auto(
    world: World,
    *,
    profiled: bool = True,
    priors: dict[str, float | None] | None = None,
    forward: Callable[[int], float] | None = None,
    max_rows: int | None = None,
) -> AutoPolicy:
    """The policy, and what it knows of a world: `forward` is what one costs, where a step may take several."""
    widths = (1, 5, 9, 13, 17, 25, 33, 49, 65)
    profile = [
        (rows, (forward or world.target)(rows)) for rows in map(world.computed_rows, ([width] for width in widths))
    ]
    known = {guesser.name: guesser.step for guesser in world.guessers} if priors is None else priors
    costs = StepCosts(
        sorted(set(profile)) if profiled else [], world.computed_rows, known, changes=Changes(world.change_seconds),
        max_rows=max_rows,
    )  # fmt: skip
    branching = [guesser.name for guesser in world.guessers if guesser.siblings]
    looking_back = [guesser.name for guesser in world.guessers if guesser.looks_back]
    return AutoPolicy(
        costs, tuple(guesser.name for guesser in world.guessers), branching=branching, looking_back=looking_back
    )


def decode(world: World, policy: Policy, *, num_sequences: int = 1, num_tokens: int = 512, **kwargs) -> Outcome:
    sequences = [make_sequence(index, num_tokens, **kwargs) for index in range(num_sequences)]
    return Simulation(world, policy, sequences).run()


def decode_stream(world: World, policy: Policy, *, at_once: int, num_tokens: int = 512) -> Outcome:
    """Texts of many lengths, so many at once, until `num_tokens` for each place were decoded: no end is waited for."""
    draw = random.Random(world.seed)
    sequences = [make_sequence(index, draw.randint(128, 512)) for index in range(at_once * (num_tokens // 128 + 2))]
    return Simulation(world, policy, sequences).run(at_once=at_once, num_tokens=at_once * num_tokens)
