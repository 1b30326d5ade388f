"""Why texts of `outrider run` took as long as they did. Knows its JSON.

There is no plain run beside them. What plain decoding would have taken follows from what the policy holds a plain step
to take, for one text at a time; for several, nothing in the file tells.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from outrider.explain.drafting import drafting_words
from outrider.explain.steps import MeanStep, advice_of, price_words, stage_words
from outrider.explain.story import Story, at_once, level_words, tokens

Texts = Sequence[Mapping[str, Any]]


def explain_run(document: Mapping[str, Any]) -> Story:
    """The story of one text or of many."""
    story = Story("run")
    texts: Texts = document["sequences"]
    decoded = [text for text in texts if text["steps"]]
    if not decoded:
        story.lacks.append("any decoding: no text came as far as its second token")
        story.advice = "Let it write more: raise --max-tokens."
        return story
    step = _mean_step(document, decoded)
    _say_speed(story, document, decoded, step)
    _say_agreement(story, decoded, step)
    story.say("time", f"of the seconds in decoding steps, {stage_words(_seconds(decoded))}")
    for sentence in _drafting(decoded):
        story.say("drafting", sentence)
    _say_concurrency(story, document, decoded)
    for level in dict.fromkeys(text["exactness"] for text in texts):
        story.say("exactness", level_words(level))
    story.advice = _advice(decoded, step)
    return story


def _seconds(texts: Texts) -> dict[str, float]:
    stages = texts[0]["seconds"]
    return {stage: math.fsum(text["seconds"][stage] for text in texts) for stage in stages}


def _mean_step(document: Mapping[str, Any], texts: Texts) -> MeanStep | None:
    """None where nobody drafted, where steps were shared, or where the file does not say what a plain step takes."""
    costs = document.get("policy", {}).get("costs", {})
    drafted = sum(text.get("num_drafted", 0) for text in texts)
    if len(texts) > 1 or not drafted or not costs.get("target"):
        return None
    num_steps = texts[0]["steps"]
    seconds = {stage: each / num_steps for stage, each in _seconds(texts).items()}
    fewest = min(costs["target"], key=int)
    host = {stage: each for stage, each in seconds.items() if stage not in ("draft", "target")}
    return MeanStep(
        tokens=texts[0]["acceptance_length"],
        drafted=drafted / num_steps,
        seconds=seconds,
        plain={"target": costs["target"][fewest] * costs.get("speed", 1.0), **host},
    )


def _say_speed(story: Story, document: Mapping[str, Any], texts: Texts, step: MeanStep | None) -> None:
    num_tokens = sum(len(text["token_ids"]) for text in texts)
    if len(texts) == 1:
        seconds = math.fsum(_seconds(texts).values())
        num_decoded = round(texts[0]["acceptance_length"] * texts[0]["steps"])
        story.say(
            "speed",
            f"{tokens(num_decoded)} took {seconds:.3f} s of decoding, {texts[0]['decode_tokens_per_second']:.1f} a "
            f"second, after {texts[0]['prefill_seconds']:.3f} s for the prompt of "
            f"{tokens(texts[0]['num_prompt_tokens'])}",
        )
    elif "seconds" in document:
        rate = num_tokens / document["seconds"]
        story.say(
            "speed", f"{len(texts)} texts of {tokens(num_tokens)} took {document['seconds']:.2f} s, {rate:.1f} a second"
        )
    else:
        story.lacks.append("how long all texts took together: it was written by an older version")
    if step is not None:
        story.say(
            "speed",
            f"a plain step is held to take {1e3 * math.fsum(step.plain.values()):.2f} ms here, so that is about "
            f"{step.speedup:.2f} times as fast as plain decoding would have been",
        )
        story.lacks.append("a plain run beside it, so its speedup is an estimate: outrider bench measures one")
    else:
        story.lacks.append("what plain decoding would have taken: outrider bench measures the speedup")


def _say_agreement(story: Story, texts: Texts, step: MeanStep | None) -> None:
    drafted = sum(text.get("num_drafted", 0) for text in texts)
    if not any(text["acceptance_rate"] is not None for text in texts):
        story.say("agreement", "nothing was drafted, so every step gave one token")
        return
    kept = Counter[str]()
    for text in texts:
        kept.update(text["accepted_from"])
    if drafted:
        accepted = sum(text["num_accepted"] for text in texts)
        sources = ", ".join(f"{count} from {name}" for name, count in kept.most_common() if count)
        story.say(
            "agreement",
            f"{accepted:,} of {drafted:,} guesses were the target's tokens ({100 * accepted / drafted:.0f} %)"
            + (f": {sources}" if sources else ""),
        )
    else:
        story.lacks.append("how many guesses were made: it was written by an older version")
    if step is not None:
        story.say("agreement", price_words(step))
    elif drafted:
        num_tokens = sum(text["acceptance_length"] * text["steps"] for text in texts)
        story.say(
            "agreement", f"a step gave {num_tokens / sum(text['steps'] for text in texts):.2f} tokens of each text"
        )


def _drafting(texts: Texts) -> list[str]:
    found = list(drafting_words([text["decisions"] for text in texts]))
    faults = Counter(text["draft_fault"] for text in texts if text["draft_fault"])
    found += [f"{fault}: {count} of {len(texts)} texts went on without it" for fault, count in faults.items()]
    if found:
        return found
    depths = {text.get("depth") for text in texts}
    if depths == {0}:
        return ["drafting was off: depth 0 was asked for"]
    if any(text["acceptance_rate"] is not None for text in texts):
        return ["a fixed depth was asked for, so nothing decided whether drafting pays"]
    return ["nothing could draft: there was no drafter, or it had no guess to make"]


def _say_concurrency(story: Story, document: Mapping[str, Any], texts: Texts) -> None:
    if len(texts) == 1:
        story.say("concurrency", "it was written alone: every step's forward was its own")
    elif "max_sequences" in document:
        most = min(document["max_sequences"], len(texts))
        story.say(
            "concurrency", f"{at_once(most)} at most shared each step, so a forward had more rows without any guess"
        )
    else:
        story.lacks.append("how many texts shared a step: it was written by an older version")
    if preempted := sum(text["num_preempted"] for text in texts):
        story.say("concurrency", f"memory ran short: caches were given up {preempted:,} times and computed again")


def _advice(texts: Texts, step: MeanStep | None) -> str:
    """The first that applies: what is broken, what is dearest, what is missing."""
    prefill = math.fsum(text["prefill_seconds"] for text in texts)
    decoding = math.fsum(_seconds(texts).values())
    candidates = {
        "Mend the drafter that failed, or leave it out: its texts went on plain.": any(
            text["draft_fault"] for text in texts
        ),
        "Give more --memory, or write fewer texts at once with --batch: computing a cache twice is lost time.": any(
            text["num_preempted"] for text in texts
        ),
        f"Nothing about drafts: prompts took {prefill:.2f} s and decoding {decoding:.2f} s, and drafts help decoding "
        "only. Texts with a common beginning, written in one run, share its computation.": prefill > decoding,
        advice_of(step) if step else "": step is not None,
        "Measure it beside plain decoding before changing anything: outrider bench with these models.": any(
            text["acceptance_rate"] is not None for text in texts
        ),
        "Let drafting stay off, or find a drafter that agrees more often: outrider check tells which would pay.": any(
            text["decisions"] for text in texts
        ),
    }
    nothing_drafts = "Name a drafter, if there is one: --draft DIR, or --draft suffix, which needs no second model."
    return next((advice for advice, applies in candidates.items() if applies), nothing_drafts)
