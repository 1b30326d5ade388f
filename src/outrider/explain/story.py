"""What is said of a result: sentences by what they are about, what could not be said, and what would help most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["run", "bench", "check"]
Topic = Literal["speed", "agreement", "time", "drafting", "concurrency", "exactness"]
TOPICS: tuple[Topic, ...] = ("speed", "agreement", "time", "drafting", "concurrency", "exactness")
KINDS: dict[Kind, str] = {
    "run": "a result of `outrider run --json`",
    "bench": "a result of `outrider bench --json`",
    "check": "a check.json of `outrider check`",
}


@dataclass(slots=True)
class Story:
    """An explanation in the making.

    Attributes:
        kind: of result.
        sentences: in order, each of figures in the file.
        lacks: what the file does not say, and what would.
        advice: the one change that promises most.
    """

    kind: Kind
    sentences: list[tuple[Topic, str]] = field(default_factory=list[tuple[Topic, str]])
    lacks: list[str] = field(default_factory=list[str])
    advice: str = ""

    def say(self, topic: Topic, sentence: str) -> None:
        """Add a sentence."""
        self.sentences.append((topic, sentence))

    def by_topic(self) -> list[tuple[Topic, list[str]]]:
        """Sentences together that are about the same, in the order of the topics."""
        found: list[tuple[Topic, list[str]]] = [
            (topic, [sentence for about, sentence in self.sentences if about == topic]) for topic in TOPICS
        ]
        return [(topic, sentences) for topic, sentences in found if sentences]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "sentences": [{"about": topic, "sentence": sentence} for topic, sentence in self.sentences],
            "lacks": self.lacks,
            "advice": self.advice,
        }


def at_once(number: int) -> str:
    """How many texts are written together, in words."""
    return "one text at a time" if number == 1 else f"{number} texts at once"


def kind_of_text(temperature: float) -> str:
    """A temperature, in words."""
    return "greedy" if temperature == 0 else f"T = {temperature:g}"


def tokens(count: int) -> str:
    """So many tokens, in words."""
    return "1 token" if count == 1 else f"{count:,} tokens"


_LEVELS = {
    "bitwise": "bitwise: the same seed gives the same text with drafts or without",
    "seed": "seed: the same seed gives the same text, but for near-ties that rounding decides",
    "distribution": "distribution: drafts changed which sample came out, and not how likely any was",
}


def level_words(level: str) -> str:
    """A level of exactness, and what it means."""
    return _LEVELS.get(level, level or "the level is not known")
