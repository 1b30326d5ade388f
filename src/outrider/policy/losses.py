"""What a draft took, as far as it can be believed. Knows costs; no texts and no drafters."""

from __future__ import annotations

from outrider.policy.cost import StepCosts
from outrider.policy.entry import Entry, is_proven
from outrider.policy.track import Source
from outrider.sequence import DraftWork

# Once so many drafts were timed, one that takes so many times as long says nothing of the drafter.
NUM_BELIEVED, SURPRISE = 8, 3.0
# Plain steps that a first draft is held to have taken at most: it makes ready what later ones find.
MAX_FIRST = 2.0


def lost_by(
    source: Source, work: DraftWork, costs: StepCosts, entry: Entry, plain_seconds: float, *, is_probe: bool
) -> float:
    """Seconds that making a draft took, what was invested left out: more than was to be expected is the machine's."""
    seconds = work.seconds / costs.speed - entry.reading_seconds(source, work)
    num_drafts = costs.num_drafts(source.name)
    if not num_drafts:
        return min(seconds, MAX_FIRST * plain_seconds)
    catching_up = costs.catch_up(source.name, work.num_caught_up) if is_proven(source) else 0.0
    if num_drafts >= NUM_BELIEVED:
        fixed, each = costs.draft(source.name, work.num_sequences)
        seconds = min(seconds, SURPRISE * (fixed + each * work.num_steps) + catching_up)
    return seconds if is_probe else max(0.0, seconds - catching_up)
