"""We and our peers on the same work: same checkpoints, token ids, lengths and precision, each at its best setting.

What is measured is first written plainly by us and not timed: a text that falls into a loop is measured up to where it
begins to repeat itself, and one that is too short not at all. Nobody ends a text otherwise: end tokens are written like
any other, so that all write the same number of tokens.
Then each peer's settings are tried on prompts that are measured nowhere else, and the fastest is its best, for each
temperature and each number of texts at once, and where that is one, for each workload. At last all take turns: each
group of texts is written by everybody, plainly and at the best setting, in random order.
Knows engines and turns; what is behind an engine is in `engine` and `peer`, what the measurements say in `results`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from outrider.bench.compare import BenchPlan
from outrider.bench.groups import Interruption, filled, parts
from outrider.bench.peers.engine import OURS, PLAIN, Asked, Engine, OurEngine, Written
from outrider.bench.peers.worker import GivenUpError, PeerError
from outrider.bench.workloads import ALL, MIN_TOKENS, Loop, Prompt, Workload, find_loop, is_random
from outrider.engine.llm import LLM
from outrider.errors import UsageError

# A setting is chosen by texts of this length, or of all of it where what is measured is shorter.
TUNING_TOKENS = 64
WARM_UP_TOKENS = 16

Setting = tuple[float, int]  # temperature, and how many texts at once
Place = tuple[str, float, int]  # the workload too; `ALL` where several are written at once, which are mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerText:
    """A text to be written.

    Attributes:
        workload, prompt, temperature: what it goes on from, and how.
        asked: it as engines get it; ends before it loops.
        token_ids: that our plain decoding wrote.
        loop: in which our plain text would have ended.
        fault: why it is not measured; None if it is.
    """

    workload: str
    prompt: Prompt
    temperature: float
    asked: Asked
    token_ids: tuple[int, ...] = ()
    loop: Loop | None = None
    fault: str | None = None


class PeerRun(NamedTuple):
    """Texts that were written at once, by everybody.

    Attributes:
        setting: temperature, and how many.
        texts: in the order of what was written.
        written: by engine and its setting.
        faults: of engines that could not.
    """

    setting: Setting
    texts: tuple[PeerText, ...]
    written: Mapping[str, Mapping[str, Written]]
    faults: Mapping[str, str]

    @property
    def place(self) -> Place:
        """Of the setting that is an engine's best."""
        return place_of(self.texts, self.setting)


class Tried(NamedTuple):
    """How fast a peer's setting was on the tuning prompts; tokens/s, or why it could not."""

    name: str
    workload: str
    temperature: float
    concurrency: int
    setting: str
    tokens_per_second: float | None
    fault: str | None = None


@dataclass(slots=True)
class PeerComparison:
    """All that was measured; `is_partial` if it was interrupted.

    Attributes:
        best: of each engine, its fastest setting for each workload, temperature and number of texts.
        lost: engines that ended on the way, and why.
    """

    texts: list[PeerText] = field(default_factory=list[PeerText])
    tried: list[Tried] = field(default_factory=list[Tried])
    best: dict[str, dict[Place, str]] = field(default_factory=dict[str, dict[Place, str]])
    runs: list[PeerRun] = field(default_factory=list[PeerRun])
    lost: dict[str, str] = field(default_factory=dict[str, str])
    is_partial: bool = False


def hold_out(workloads: Sequence[Workload], num_prompts: int | None) -> tuple[list[Workload], list[Workload]]:
    """Workloads to measure, and the same with the prompts that settings are chosen by: the last of each.

    Raises:
        UsageError: one has a single prompt.
    """
    for workload in workloads:
        if len(workload.prompts) < 2:
            raise UsageError(
                f"{workload.name} has one prompt, but --peers needs two: the last of each workload chooses the peers' "
                "settings and is not measured"
            )
    measured = [workload._replace(prompts=workload.prompts[:-1][:num_prompts]) for workload in workloads]
    return measured, [workload._replace(prompts=workload.prompts[-1:]) for workload in workloads]


def place_of(texts: Sequence[PeerText], setting: Setting) -> Place:
    """Where texts that are written at once belong."""
    return (texts[0].workload if setting[1] == 1 else ALL, *setting)


def compare_peers(
    llm: LLM,
    peers: Sequence[Engine],
    plan: BenchPlan,
    tuning: Sequence[Workload],
    interruption: Interruption,
    *,
    takes_plain_turns: bool = True,
) -> PeerComparison:
    """Measure everything, or as much as there is time for.

    Args:
        llm: ours.
        peers: loaded, stopped.
        plan: what to measure, and the depth of ours.
        tuning: prompts that settings are chosen by.
        interruption: how it is ended early.
        takes_plain_turns: of everybody; without, plain decoding is measured only where it is the best setting.

    Raises:
        UsageError: a prompt does not fit the model; nothing was measured.
    """
    bench = _Bench(llm, peers, plan, interruption, always=(PLAIN,) if takes_plain_turns else ())
    comparison = bench.comparison
    try:
        comparison.texts = bench.write_texts()
        bench.choose_settings(tuning)
        for run in bench.measure():
            comparison.runs.append(run)
    except GivenUpError:
        comparison.is_partial = True
    return comparison


class _Bench:
    def __init__(
        self, llm: LLM, peers: Sequence[Engine], plan: BenchPlan, interruption: Interruption, *, always: tuple[str, ...]
    ) -> None:
        self.llm = llm
        self.ours = OurEngine(llm, plan.depth, interruption.is_wanted)
        self.peers = list(peers)
        self.plan = plan
        self.interruption = interruption
        self.comparison = PeerComparison()
        self.always = always  # settings that are measured beside the best
        self.random = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated

    def write_texts(self) -> list[PeerText]:
        """What is to be measured, by what we write plainly."""
        texts: list[PeerText] = []
        asked = self._texts(self.plan.workloads, self.plan.max_tokens)
        for temperature in self.plan.temperatures:
            same = [text for text in asked if text.temperature == temperature]
            for part in parts(same, self.llm.config.max_sequences):
                self.interruption.report(f"writing the texts: {len(texts)} of {len(asked)}")
                texts += map(self._judge, part, self._write_plainly(part))
        return texts

    def _write_plainly(self, texts: Sequence[PeerText]) -> tuple[tuple[int, ...], ...]:
        """By us, all at once; if one does not fit, it is found by writing each alone."""
        try:
            return self.ours.write([text.asked for text in texts], texts[0].temperature, PLAIN).token_ids
        except UsageError as error:
            if len(texts) == 1:
                raise type(error)(f"{texts[0].workload}, {texts[0].prompt.name}: {error}") from error
            return tuple(self._write_plainly([text])[0] for text in texts)

    def choose_settings(self, tuning: Sequence[Workload]) -> None:
        """Each engine's best for each workload, temperature and number of texts at once.

        Ours is not searched for, but writes the same texts once: what others' settings are chosen by, it learns from.
        """
        ours = self.comparison.best.setdefault(OURS, {})
        texts = self._texts(tuning, min(TUNING_TOKENS, self.plan.max_tokens))
        for temperature in self.plan.temperatures:
            same = [text for text in texts if text.temperature == temperature]
            for concurrency in self.plan.concurrencies:
                setting = temperature, concurrency
                groups = filled(same, concurrency)
                by_place: dict[Place, list[tuple[PeerText, ...]]] = {}
                for group in groups:
                    by_place.setdefault(place_of(group, setting), []).append(group)
                ours |= dict.fromkeys(by_place, self.ours.settings[-1])
                self._warm_up(self.ours, groups[0], temperature)
                for group in groups:
                    self._write(self.ours, group, temperature, self.ours.settings[-1])
                for peer in tuple(self.peers):
                    self.interruption.report(
                        f"trying {peer.name}'s settings, T = {temperature:g}, {concurrency} at once"
                    )
                    faults = self._warm_up(peer, groups[0], temperature)
                    for place, part in by_place.items():
                        self._search(peer, part, place, faults)

    def measure(self) -> Iterator[PeerRun]:
        """All groups of all runs, in random order."""
        groups: list[tuple[Setting, tuple[PeerText, ...]]] = []
        for _ in range(self.plan.num_runs):
            for temperature in self.plan.temperatures:
                valid = [
                    text for text in self.comparison.texts if text.fault is None and text.temperature == temperature
                ]
                for concurrency in self.plan.concurrencies if valid else ():
                    self.random.shuffle(valid)
                    groups += [((temperature, concurrency), group) for group in filled(valid, concurrency)]
        self.random.shuffle(groups)
        for number, (setting, group) in enumerate(groups):
            self.interruption.report(f"measuring: {number} of {len(groups)}")
            yield self._run(setting, group)

    def _run(self, setting: Setting, group: tuple[PeerText, ...]) -> PeerRun:
        best, place = self.comparison.best, place_of(group, setting)
        turns = [
            (engine, each)
            for engine in (self.ours, *self.peers)
            if place in best.get(engine.name, {})
            for each in dict.fromkeys((*self.always, best[engine.name][place]))
        ]
        written: dict[str, dict[str, Written]] = {}
        faults: dict[str, str] = {}
        for engine, each in self.random.sample(turns, len(turns)):
            if engine.name in faults:
                continue
            try:
                written.setdefault(engine.name, {})[each] = self._write(engine, group, setting[0], each)
            except PeerError as error:
                faults[engine.name] = f"{each}: {error}"
        return PeerRun(setting, group, {name: by for name, by in written.items() if name not in faults}, faults)

    def _search(
        self, peer: Engine, groups: Sequence[tuple[PeerText, ...]], place: Place, cold: Mapping[str, str]
    ) -> None:
        """Try all settings of a peer in random order, but those that could not be warmed up."""
        workload, temperature, concurrency = place
        faults = dict(cold)
        seconds = {each: 0.0 for each in peer.settings if each not in faults}
        turns = [(each, group) for each in seconds for group in groups]
        for each, group in self.random.sample(turns, len(turns)):
            if each in faults:
                continue
            try:
                seconds[each] += self._write(peer, group, temperature, each).seconds
            except PeerError as error:
                faults[each] = str(error)
        num_tokens = sum(text.asked.max_tokens for group in groups for text in group)
        rates = {each: num_tokens / spent for each, spent in seconds.items() if each not in faults}
        for each in peer.settings:
            tried = Tried(peer.name, workload, temperature, concurrency, each, rates.get(each), faults.get(each))
            self.comparison.tried.append(tried)
        # Without plain decoding nobody knows what a peer's own text is.
        if PLAIN in rates:
            self.comparison.best.setdefault(peer.name, {})[place] = max(rates, key=lambda each: rates[each])

    def _warm_up(self, engine: Engine, group: Sequence[PeerText], temperature: float) -> dict[str, str]:
        """Write a little in each setting: what is done only once is nobody's to pay for.

        Returns:
            Settings in which it cannot, and why.
        """
        faults: dict[str, str] = {}
        for setting in engine.settings:
            short = [
                text.asked._replace(max_tokens=min(WARM_UP_TOKENS, text.asked.max_tokens), prediction=None)
                for text in group
            ]
            try:
                self._ask(engine, short, temperature, setting)
            except PeerError as error:
                faults[setting] = str(error)
        return faults

    def _write(self, engine: Engine, group: Sequence[PeerText], temperature: float, setting: str) -> Written:
        return self._ask(engine, [text.asked for text in group], temperature, setting)

    def _ask(self, engine: Engine, texts: Sequence[Asked], temperature: float, setting: str) -> Written:
        """What it writes; one that is gone is asked no more.

        Raises:
            PeerError: it cannot.
        """
        if engine.name in self.comparison.lost:
            raise PeerError(self.comparison.lost[engine.name])
        try:
            return engine.write(texts, temperature, setting)
        except PeerError as error:
            if not engine.is_alive:
                self.comparison.lost[engine.name] = str(error)
                self.peers = [peer for peer in self.peers if peer is not engine]
            raise

    def _texts(self, workloads: Sequence[Workload], max_tokens: int) -> list[PeerText]:
        """All of them, at each temperature."""
        assert self.llm.tokenizer
        encode = self.llm.tokenizer.encode
        return [
            PeerText(
                workload=workload.name,
                prompt=prompt,
                temperature=temperature,
                asked=Asked(tuple(encode(prompt.text)), max_tokens, self.plan.seed + number, prompt.prediction),
            )
            for temperature in self.plan.temperatures
            for workload in workloads
            for number, prompt in enumerate(workload.prompts)
        ]

    def _judge(self, text: PeerText, token_ids: tuple[int, ...]) -> PeerText:
        loop = find_loop(token_ids)
        length = loop.start if loop else len(token_ids)
        fault: str | None = None
        if is_random(text.asked.token_ids, self.llm.target.config.vocab_size):
            fault = "the prompt's tokens look randomly drawn"
        elif loop and length < MIN_TOKENS:
            fault = f"repeats {loop.period} tokens from token {loop.start} on"
        elif length < MIN_TOKENS:
            fault = f"ends after {length} tokens"
        return PeerText(
            workload=text.workload,
            prompt=text.prompt,
            temperature=text.temperature,
            asked=text.asked._replace(max_tokens=max(length, 1)),
            token_ids=token_ids[: max(length, 1)],
            loop=loop,
            fault=fault,
        )
