"""What `--explain` says of a finished text: how much was drafted and why, what went wrong, where time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the engine is imported when it runs, not when options are read
    from outrider.engine.llm import Generation
    from outrider.sequence import Decision

# A policy that wavers decides often; the JSON has all of it.
MAX_DECISIONS = 16
MAX_WIDTHS = 4


def explain(generation: Generation) -> list[str]:
    """Lines about one text, in the order in which things happened."""
    return [*_decisions(generation.decisions), *_drafts(generation), *_troubles(generation), *_times(generation)]


def explain_costs(policy: Mapping[str, Any]) -> list[str]:
    """What steps cost on this machine, from a policy's description of itself; nothing if it has learned nothing.

    The fewest rows of a forward are those of a plain step.
    """
    costs: Mapping[str, Any] = policy.get("costs", {})
    target: Mapping[str, float] = costs.get("target", {})
    widths = sorted((int(rows), seconds * 1e3) for rows, seconds in target.items())[:MAX_WIDTHS]
    lines: list[str] = []
    if widths:
        first, *others = widths
        more = "".join(f", {milliseconds:.2f} ms over {rows}" for rows, milliseconds in others)
        lines.append(f"costs: a forward of the target {first[1]:.2f} ms over {first[0]} rows, as in a plain step{more}")
    for source, draft in costs.get("drafts", {}).items():
        by_count: Mapping[str, Mapping[str, float]] = draft["by_num_sequences"]
        if by_count:
            line = by_count[min(by_count, key=int)]
            lines.append(
                f"costs: a draft of {source} {line['fixed'] * 1e3:.2f} ms, and {line['step'] * 1e3:.2f} ms a step"
            )
    return lines


def _decisions(decisions: Sequence[Decision]) -> list[str]:
    names_source = len({decision.source for decision in decisions}) > 1
    drafting: set[str] = set()
    lines: list[str] = []
    for decision in decisions:
        lines.append(_decision(decision, was_drafting=decision.source in drafting, names_source=names_source))
        (drafting.add if decision.depth else drafting.discard)(decision.source)
    num_left_out = len(lines) - MAX_DECISIONS
    if num_left_out > 1:
        half = MAX_DECISIONS // 2
        lines[half:-half] = [f"... {num_left_out} decisions more, all of them in --json"]
    return lines


def _decision(decision: Decision, *, was_drafting: bool, names_source: bool) -> str:
    if decision.depth:
        beside = f" and up to {decision.num_beside} beside them" if decision.num_beside else ""
        what = f"drafted {_tokens(decision.depth)}{beside} a step with {decision.source} from token {decision.at_token}"
    elif was_drafting:
        what = f"drafting {f'with {decision.source} ' if names_source else ''}stopped at token {decision.at_token}"
    else:
        what = f"nothing was drafted with {decision.source} from token {decision.at_token}"
    price = "none would pay" if decision.break_even is None else f"break-even {decision.break_even:.2f}"
    return f"{what}: agreement {decision.agreement:.2f}, {price}"


def _drafts(generation: Generation) -> Iterator[str]:
    stats = generation.stats
    if stats.acceptance_rate is None or stats.acceptance_length is None:
        yield "nothing was drafted"
        return
    if not generation.decisions:
        yield f"drafted up to {_tokens(len(stats.drafted_at))} a step throughout"
    sources = ", ".join(f"{count} from {name}" for name, count in stats.accepted_from.most_common())
    yield (
        f"accepted {stats.num_accepted} of {_tokens(stats.num_drafted)} drafted ({stats.acceptance_rate:.2f})"
        f"{f': {sources}' if sources else ''}; {stats.acceptance_length:.2f} tokens a forward of the target"
    )
    if stats.num_branching:
        yield f"{stats.num_branching} of {stats.num_steps} steps verified trees, the others chains or nothing"
    yield f"survival by depth: {' '.join(f'{value:.2f}' for value in stats.survival)}"


def _troubles(generation: Generation) -> Iterator[str]:
    if generation.draft_fault:
        yield f"{generation.draft_fault}: the text went on without it"
    if generation.num_preempted:
        times = "once" if generation.num_preempted == 1 else f"{generation.num_preempted} times"
        yield f"gave its cache to others {times}, for want of memory, and computed it again"


def _times(generation: Generation) -> Iterator[str]:
    stats = generation.stats
    prefill = f"{stats.seconds['prefill']:.3f} s for the prompt"
    if not stats.num_steps or not stats.decode_seconds:
        yield f"time: {prefill}"
        return
    stages = ", ".join(
        f"{stage} {seconds / stats.decode_seconds:.0%}"
        for stage, seconds in stats.seconds.items()
        if stage != "prefill"
    )
    each = stats.decode_seconds / stats.num_steps * 1e3
    steps = "1 step" if stats.num_steps == 1 else f"{stats.num_steps} steps"
    yield f"time: {prefill}, {stats.decode_seconds:.3f} s for {steps}, {each:.2f} ms each ({stages})"


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"
