"""The prediction put to the test: plain, the default, the choice and the worst sensible depth, in turns, on real steps.

Each group of texts is written with every setting, one right after the other in random order, and each text must come
out as plain decoding wrote it before: a comparison of strings that audits the choice on the way.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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

PLAIN, DEFAULT, CHOICE, WORST = "plain", "default", "choice", "worst"
SETTINGS = (PLAIN, DEFAULT, CHOICE, WORST)
MIN_PROMPTS = 3
# One text at a time has this many groups before several at once have their first.
NUM_ALONE_FIRST = 6


@dataclass(slots=True)
class Cell:
    """What was measured at one temperature with so many texts at once.

    Attributes:
        depths: of each setting.
        seconds: of decoding a token, by setting and prompt, over all rounds.
        num_tokens: of each prompt's text.
    """

    temperature: float
    num_sequences: int
    depths: dict[str, Depth]
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict[str, dict[str, list[float]]])
    num_tokens: dict[str, int] = field(default_factory=dict[str, int])
    num_groups: int = 0
    num_compared: int = 0
    different: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def speedup(self, setting: str) -> Estimate | None:
        """Over plain decoding: seconds of all texts, with an interval over prompts."""
        pairs = [(self._of(PLAIN, prompt), self._of(setting, prompt)) for prompt in self.seconds.get(setting, {})]
        if not pairs:
            return None
        return combined(_ratio(pairs), [jackknife(pairs, _ratio)])

    def _of(self, setting: str, prompt: str) -> float:
        each = self.seconds[setting][prompt]
        return self.num_tokens[prompt] * math.fsum(each) / len(each)


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return math.fsum(first for first, _ in pairs) / math.fsum(second for _, second in pairs)


class Trial:
    """Writes known texts again with every setting.

    Args:
        stand: with the chosen drafter loaded.
        choice: drafter and depth.
        predictions: of that drafter, to find its worst depth.
    """

    def __init__(self, stand: Stand, choice: Choice, predictions: Sequence[Forecast], watch: Watch) -> None:
        self._stand, self._choice, self._watch = stand, choice, watch
        self._predictions = [each for each in predictions if each.drafter == choice.drafter]
        self._random = random.Random(0)  # noqa: S311 - an order that can be repeated
        self.cells: list[Cell] = []

    def run(self, texts: Texts, temperatures: Sequence[float], concurrencies: Sequence[int], budget: Budget) -> None:
        """Measure groups until the time is gone, those of one text at a time first."""
        self.cells += [
            Cell(temperature, num_sequences, self._depths(temperature, num_sequences))
            for num_sequences in concurrencies
            for temperature in temperatures
            if texts.at(temperature)
        ]
        seconds: dict[int, float] = {}
        while queue := self._next_cells(texts):
            for cell in queue:
                expected = seconds.get(cell.num_sequences, max(seconds.values(), default=0.0))
                if not budget.has_room(expected):
                    return
                began = time.monotonic()
                self._watch.report(f"measuring: T = {cell.temperature:g}, {cell.num_sequences} at once")
                self._measure(cell, texts.at(cell.temperature))
                seconds[cell.num_sequences] = time.monotonic() - began

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

    def _depths(self, temperature: float, num_sequences: int) -> dict[str, Depth]:
        same = [
            each for each in self._predictions if (each.temperature, each.num_sequences) == (temperature, num_sequences)
        ]
        worst = min(same, key=lambda each: each.speedup.value).depth if same else self._choice.depth
        return {PLAIN: 0, DEFAULT: "auto", CHOICE: self._choice.depth, WORST: worst}

    def _measure(self, cell: Cell, texts: Sequence[KnownText]) -> None:
        first = cell.num_groups * cell.num_sequences
        group = [texts[(first + index) % len(texts)] for index in range(cell.num_sequences)]
        for setting in self._random.sample(SETTINGS, len(SETTINGS)):
            self._write(cell, setting, group)
        cell.num_groups += 1

    def _write(self, cell: Cell, setting: str, group: Sequence[KnownText]) -> None:
        llm = self._stand.llm
        self._stand.use(None if setting == DEFAULT else self._stand.candidates[self._choice.drafter])
        sequences = llm.start(
            [text.prompt_token_ids for text in group],
            [text.params for text in group],
            depth=cell.depths[setting],
        )
        try:
            self._run_filled(sequences, group, cell.depths[setting])
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
    for cell in trial.cells:
        if cell.num_groups * cell.num_sequences < MIN_PROMPTS:
            budget.skip(f"measured speedup at T = {cell.temperature:g}, {cell.num_sequences} at once: no time")


def _keep_whole(cell: Cell) -> None:
    """Only prompts that every setting has written."""
    whole = {
        prompt
        for prompt in cell.seconds.get(PLAIN, {})
        if all(prompt in cell.seconds.get(setting, {}) for setting in SETTINGS)
    }
    cell.seconds = {
        setting: {prompt: seconds for prompt, seconds in by_prompt.items() if prompt in whole}
        for setting, by_prompt in cell.seconds.items()
    }


def rows_of(cells: Sequence[Cell], predictions: Sequence[Forecast], choice: Choice) -> list[dict[str, Any]]:
    """One row for each cell and setting, predictions of fixed depths beside them."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        _keep_whole(cell)
        for setting in SETTINGS[1:]:
            found = cell.speedup(setting)
            if found is None:
                continue
            depth = cell.depths[setting]
            wanted = (choice.drafter, depth, cell.temperature, cell.num_sequences)
            predicted = next((each.speedup for each in predictions if _key(each) == wanted), None)
            rows.append(
                {
                    "setting": setting,
                    "drafter": None if setting == DEFAULT else choice.drafter,
                    "depth": depth,
                    "temperature": cell.temperature,
                    "num_sequences": cell.num_sequences,
                    "num_prompts": len(cell.seconds[setting]),
                    "speedup": estimate(found),
                    "predicted": estimate(predicted),
                    "error": predicted.value / found.value - 1 if predicted else None,
                    "is_inside": predicted.low <= found.value <= predicted.high if predicted else None,
                }
            )
    return rows


def _key(each: Forecast) -> tuple[str, Depth, float, int]:
    return each.drafter, each.depth, each.temperature, each.num_sequences


def measured_item(rows: Sequence[dict[str, Any]]) -> Item:
    """Predicted against measured."""
    judged = [row for row in rows if row["error"] is not None]
    worst = max((abs(row["error"]) for row in judged), default=0.0)
    outside = sum(not row["is_inside"] for row in judged)
    lines = [
        f"{row['setting']} (depth {row['depth']}) at T = {row['temperature']:g}, {row['num_sequences']} at once: "
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
