"""The prediction put to the test: plain, the choice, what rivals it, the default and the worst depth, in turns.

Each group of texts is written with every setting, one right after the other in random order, and each text must come
out as plain decoding wrote it before: a comparison of strings that audits the choice on the way.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from outrider import noise
from outrider.check.agreement import estimate
from outrider.check.budget import Budget
from outrider.check.item import Item
from outrider.check.prediction import Choice
from outrider.check.stand import Stand
from outrider.check.texts import InterruptedCheckError, Texts, Watch
from outrider.predict.agreement import KnownText
from outrider.predict.interval import Estimate, combined, jackknife
from outrider.predict.prediction import Forecast
from outrider.request import Depth
from outrider.sequence import Sequence as TextSequence

PLAIN, CHOICE, AUTO, RIVAL, DEFAULT, WORST = "plain", "choice", "auto", "without", "default", "worst"
MIN_PROMPTS = 3
# One text at a time has this many groups before several at once have their first.
NUM_ALONE_FIRST = 6


class Use(NamedTuple):
    """What a setting drafts with, and how deep; no drafter is plain decoding."""

    drafter: str | None
    depth: Depth


@dataclass(slots=True)
class Cell:
    """What was measured at one temperature with so many texts at once.

    Attributes:
        uses: of each setting.
        seconds: of decoding a token, by setting and prompt, over all rounds.
        num_tokens: of each prompt's text.
    """

    temperature: float
    num_sequences: int
    uses: dict[str, Use]
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict[str, dict[str, list[float]]])
    num_tokens: dict[str, int] = field(default_factory=dict[str, int])
    num_groups: int = 0
    num_compared: int = 0
    different: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def speedup(self, setting: str, over: str = PLAIN) -> Estimate | None:
        """Over another setting: seconds of all texts, with an interval over prompts."""
        pairs = [(self._of(over, prompt), self._of(setting, prompt)) for prompt in self.seconds.get(setting, {})]
        if not pairs:
            return None
        return combined(_ratio(pairs), [jackknife(pairs, _ratio)])

    def _of(self, setting: str, prompt: str) -> float:
        each = self.seconds[setting][prompt]
        return self.num_tokens[prompt] * math.fsum(each) / len(each)


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return math.fsum(first for first, _ in pairs) / math.fsum(second for _, second in pairs)


class Wanted(NamedTuple):
    """What is to be put to the test.

    Attributes:
        choice: drafter and depth.
        rival: the best without the draft that is in question, to be measured beside it; None where that is plain.
        is_open: whether it is measured only because it is open whether it pays: then as few texts at once will do.
    """

    choice: Choice
    rival: Choice | None = None
    is_open: bool = False


class Trial:
    """Writes known texts again with every setting.

    Args:
        stand: with the chosen drafter loaded.
        wanted: what to measure.
        predictions: to find the worst depth, and to know how long it takes.
        watch: how it hears that it should end, and says where it is.
        is_of_use: asked after each turn of all cells whether more would still decide something.
    """

    def __init__(
        self,
        stand: Stand,
        wanted: Wanted,
        predictions: Sequence[Forecast],
        watch: Watch,
        is_of_use: Callable[[], bool] = lambda: True,
    ) -> None:
        self._stand, self._wanted, self._watch, self._is_of_use = stand, wanted, watch, is_of_use
        self._predictions = [each for each in predictions if each.drafter == wanted.choice.drafter]
        self._everything = [*stand.candidates][-1]
        self._random = random.Random(0)  # noqa: S311 - an order that can be repeated
        self.cells: list[Cell] = []

    def run(self, texts: Texts, temperatures: Sequence[float], concurrencies: Sequence[int], budget: Budget) -> None:
        """Measure groups until the time is gone, those of one text at a time first.

        What decides nothing is left out where there is no time for a few texts with every setting.
        """
        self.cells += [
            Cell(temperature, num_sequences, self._uses(temperature, num_sequences))
            for num_sequences in concurrencies
            for temperature in temperatures
            if texts.at(temperature)
        ]
        first = [cell for cell in self.cells if cell.num_sequences == self.cells[0].num_sequences]
        if not budget.has_room(MIN_PROMPTS * math.fsum(self._expected(cell, texts) for cell in first)):
            for cell in self.cells:
                extras = (WORST, DEFAULT) if AUTO in cell.uses else (WORST,)
                cell.uses = {setting: use for setting, use in cell.uses.items() if setting not in extras}
        seconds: dict[tuple[float, int], float] = {}
        while (queue := self._next_cells(texts)) and self._is_of_use():
            for cell in queue:
                kind = cell.temperature, cell.num_sequences
                if not budget.has_room(seconds.get(kind) or self._expected(cell, texts)):
                    return
                began = time.monotonic()
                self._watch.report(f"measuring: T = {cell.temperature:g}, {cell.num_sequences} at once")
                self._measure(cell, texts.at(cell.temperature))
                seconds[kind] = time.monotonic() - began

    def _next_cells(self, texts: Texts) -> list[Cell]:
        """Those that have not had all their texts; the first number of texts at once goes ahead."""
        open_cells = [
            cell for cell in self.cells if cell.num_groups * cell.num_sequences < len(texts.at(cell.temperature))
        ]
        ahead = [
            cell
            for cell in open_cells
            if cell.num_sequences == self.cells[0].num_sequences and cell.num_groups < NUM_ALONE_FIRST
        ]
        return ahead or open_cells

    def _same(self, temperature: float, num_sequences: int) -> list[Forecast]:
        setting = (temperature, num_sequences)
        return [each for each in self._predictions if (each.temperature, each.num_sequences) == setting]

    def _uses(self, temperature: float, num_sequences: int) -> dict[str, Use]:
        """What decides comes first. Auto depth with all drafters, the default, may be that with the chosen ones."""
        choice, rival = self._wanted.choice, self._wanted.rival
        same = self._same(temperature, num_sequences)
        worst = min(same, key=lambda each: each.speedup.value).depth if same else choice.depth
        uses = {PLAIN: Use(None, 0), CHOICE: Use(choice.drafter, choice.depth), AUTO: Use(choice.drafter, "auto")}
        if rival is not None:
            uses[RIVAL] = Use(rival.drafter, rival.depth)
        if choice.drafter == self._everything:
            uses[DEFAULT] = uses.pop(AUTO)
        elif not self._wanted.is_open:
            uses[DEFAULT] = Use(self._everything, "auto")
        return uses if self._wanted.is_open else uses | {WORST: Use(choice.drafter, worst)}

    def _expected(self, cell: Cell, texts: Texts) -> float:
        """Seconds of a group, if every setting were as slow as plain decoding."""
        plain = max((each.plain_seconds for each in self._same(cell.temperature, cell.num_sequences)), default=0.0)
        return plain * len(cell.uses) * max((len(text.token_ids) for text in texts.at(cell.temperature)), default=0)

    def _measure(self, cell: Cell, texts: Sequence[KnownText]) -> None:
        first = cell.num_groups * cell.num_sequences
        group = [texts[(first + index) % len(texts)] for index in range(cell.num_sequences)]
        for setting in self._random.sample([*cell.uses], len(cell.uses)):
            self._write(cell, setting, group)
        cell.num_groups += 1

    def _write(self, cell: Cell, setting: str, group: Sequence[KnownText]) -> None:
        llm = self._stand.llm
        drafter, depth = cell.uses[setting]
        noise.forget()
        self._stand.use(None if drafter in (None, self._everything) else self._stand.candidates[drafter])
        sequences = llm.start([text.prompt_token_ids for text in group], [text.params for text in group], depth=depth)
        try:
            self._run_filled(sequences, group, depth)
        finally:
            self._stand.use()
        for text, sequence in zip(group, sequences, strict=True):
            stats = sequence.stats
            cell.num_compared += 1
            if tuple(sequence.output_token_ids) != text.token_ids:
                cell.different.append({"prompt": text.prompt, "setting": setting})
                continue
            cell.num_tokens[text.prompt] = len(text.token_ids)
            by_prompt = cell.seconds.setdefault(setting, {})
            by_prompt.setdefault(text.prompt, []).append(stats.decode_seconds / stats.num_emitted)

    def _run_filled(self, sequences: Sequence[TextSequence], group: Sequence[KnownText], depth: Depth) -> None:
        """Step until all are finished; where one is, one of the group begins again.

        Else the last ones would be written by fewer and fewer at once, and be the faster for it.
        """
        llm = self._stand.llm
        fillers: list[TextSequence] = []
        try:
            while not all(sequence.finish_reason for sequence in sequences):
                self._watch.look()
                num_finished = sum(sequence.finish_reason is not None for sequence in (*sequences, *fillers))
                for number in range(len(fillers), num_finished):
                    text = group[number % len(group)]
                    fillers += llm.start(text.prompt_token_ids, text.params, depth=depth)
                llm.engine.step()
        finally:
            for sequence in (*sequences, *fillers):
                llm.engine.cancel(sequence.request.request_id)


def measure(trial: Trial, texts: Texts, cells: tuple[Sequence[float], Sequence[int]], budget: Budget) -> None:
    """As `Trial.run`; what a group was given up over is left out."""
    try:
        trial.run(texts, *cells, budget)
    except InterruptedCheckError:
        for cell in trial.cells:
            _keep_whole(cell)
        raise


def skip_unmeasured(cells: Sequence[Cell], budget: Budget) -> None:
    """Name what no trial came to measure on enough texts."""
    num_texts: dict[tuple[float, int], int] = {}
    for cell in cells:
        kind = cell.temperature, cell.num_sequences
        num_texts[kind] = max(num_texts.get(kind, 0), cell.num_groups * cell.num_sequences)
    for (temperature, num_sequences), count in num_texts.items():
        if count < MIN_PROMPTS:
            budget.skip(f"measured speedup at T = {temperature:g}, {num_sequences} at once: no time")


def _keep_whole(cell: Cell) -> None:
    """Only prompts that every setting has written."""
    whole = {
        prompt
        for prompt in cell.seconds.get(PLAIN, {})
        if all(prompt in cell.seconds.get(setting, {}) for setting in cell.uses)
    }
    cell.seconds = {
        setting: {prompt: seconds for prompt, seconds in by_prompt.items() if prompt in whole}
        for setting, by_prompt in cell.seconds.items()
    }


def rows_of(cells: Sequence[Cell], predictions: Sequence[Forecast]) -> list[dict[str, Any]]:
    """One row for each cell and setting: predictions of fixed depths beside them, and what was gained over others."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        _keep_whole(cell)
        for setting, (drafter, depth) in cell.uses.items():
            found = cell.speedup(setting)
            if setting == PLAIN or found is None:
                continue
            wanted = (drafter, depth, cell.temperature, cell.num_sequences)
            predicted = next((each.speedup for each in predictions if _key(each) == wanted), None)
            rows.append(
                {
                    "setting": setting,
                    "drafter": drafter,
                    "depth": depth,
                    "temperature": cell.temperature,
                    "num_sequences": cell.num_sequences,
                    "num_prompts": len(cell.seconds[setting]),
                    "speedup": estimate(found),
                    "over": _over_others(cell, setting),
                    "predicted": estimate(predicted),
                    "error": predicted.value / found.value - 1 if predicted else None,
                    "is_inside": predicted.low <= found.value <= predicted.high if predicted else None,
                }
            )
    return rows


def _over_others(cell: Cell, setting: str) -> list[dict[str, Any]]:
    """What it brought over each setting of another drafter."""
    others = {other: use for other, use in cell.uses.items() if use.drafter not in (None, cell.uses[setting].drafter)}
    return [{**use._asdict(), "gain": estimate(cell.speedup(setting, other))} for other, use in others.items()]


def _key(each: Forecast) -> tuple[str, Depth, float, int]:
    return each.drafter, each.depth, each.temperature, each.num_sequences


def measured_item(rows: Sequence[Mapping[str, Any]]) -> Item:
    """Predicted against measured."""
    judged = [row for row in rows if row["error"] is not None]
    worst = max((abs(row["error"]) for row in judged), default=0.0)
    outside = sum(not row["is_inside"] for row in judged)
    lines = [
        f"{row['setting']} ({row['drafter']}, depth {row['depth']}) at T = {row['temperature']:g}, "
        f"{row['num_sequences']} at once: "
        f"{row['speedup']['value']:.2f}x"
        + (f", predicted {row['predicted']['value']:.2f}x" if row["predicted"] else "")
        for row in rows
    ]
    return Item(
        name="measured",
        status="warn" if not judged or worst > 0.1 else "pass",
        value="; ".join(lines) or "not measured",
        threshold="within 10 % of the prediction",
        why="a prediction is worth what it is worth where it was put to the test"
        + (f"; {outside} of {len(judged)} lay outside their 95 % interval" if judged else ""),
        remedy="" if judged and worst <= 0.1 else "trust the measured numbers, and measure again on a quiet machine",
    )


def lossless_item(cells: Sequence[Cell], exactness: str) -> Item:
    """Every text that was written again, compared token by token with what plain decoding had written."""
    num_compared, different = (
        sum(cell.num_compared for cell in cells),
        [each for cell in cells for each in cell.different],
    )
    promised = exactness == "bitwise"
    return Item(
        name="lossless",
        status="warn" if not num_compared else "pass" if not different else "fail" if promised else "warn",
        value=f"{len(different)} of {num_compared} texts differ" if num_compared else "not measured",
        threshold="none, at level bitwise; near-ties only, at level seed",
        why="drafts must change the speed and never the text",
        remedy=f"report this: {different[0]['prompt']} with {different[0]['setting']}"
        if different and promised
        else "",
    )
