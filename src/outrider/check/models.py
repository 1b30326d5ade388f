"""What checkpoints say before anything is loaded: one vocabulary? enough memory? And how exact the result will be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outrider.check.item import Item
from outrider.engine.config import EngineConfig
from outrider.engine.load import ledger_of
from outrider.engine.memory import Ledger, readable
from outrider.errors import UsageError
from outrider.model.checkpoint import resolve_checkpoint
from outrider.model.config import read_config
from outrider.model.tokenizer import Tokenizer
from outrider.model.weights import Weights
from outrider.runtime.base import Runtime


def name_of(draft: str | Path) -> str:
    """What a checkpoint is called in tables: its folder's name."""
    return resolve_checkpoint(draft).name


def refuse_unfit(target: str | Path, draft: str | Path) -> None:
    """Raise UsageError for a draft that cannot draft for this target, or could not be faster than it."""
    folders = [resolve_checkpoint(target), resolve_checkpoint(draft)]
    sizes = [Weights.from_folder(folder).num_bytes for folder in folders]
    if difference := _difference(*folders):
        raise UsageError(
            f"target and draft {folders[1].name} have different vocabularies: {difference}; take a draft of the "
            "target's family, or --draft suffix"
        )
    if sizes[1] > sizes[0]:
        raise UsageError(
            f"the draft {folders[1].name} has {readable(sizes[1])} of weights and the target {readable(sizes[0])}: "
            "a draft must be the smaller of the two; exchange them"
        )


def _difference(target: Path, draft: Path) -> str | None:
    if all((folder / "tokenizer.json").exists() for folder in (target, draft)):
        ours, theirs = Tokenizer.from_folder(target), Tokenizer.from_folder(draft)
        return ours.first_difference(theirs)
    sizes = [read_config(folder).vocab_size for folder in (target, draft)]
    return None if sizes[0] == sizes[1] else f"sizes are {sizes[0]} and {sizes[1]}"


def vocabulary_item(target: str | Path, draft: str | Path) -> Item:
    """Ids, special tokens and chat template; a draft of other ids was refused before."""
    folders = [resolve_checkpoint(target), resolve_checkpoint(draft)]
    name = f"vocabulary: {folders[1].name}"
    threshold = "same ids, special tokens and chat template"
    why = "a guess is a token id: where ids mean other tokens, or texts are laid out otherwise, guesses are wrong"
    if not all((folder / "tokenizer.json").exists() for folder in folders):
        return Item(name=name, status="warn", value="sizes are the same, but a tokenizer.json is missing",
                    threshold=threshold, why=why, remedy="save both tokenizers beside the weights")  # fmt: skip
    ours, theirs = map(Tokenizer.from_folder, folders)
    differences = [
        f"{each} is {ours.special_tokens.get(each)!r} and {theirs.special_tokens.get(each)!r}"
        for each in sorted(ours.special_tokens.keys() | theirs.special_tokens.keys())
        if ours.special_tokens.get(each) != theirs.special_tokens.get(each)
    ]
    if ours.chat_template != theirs.chat_template:
        differences.append("the chat templates differ (the target's is used)")
    if differences:
        return Item(name=name, status="warn", value="; ".join(differences[:3]), threshold=threshold, why=why,
                    remedy="only agreement suffers, and it is measured; prefer a draft of one family")  # fmt: skip
    return Item(name=name, status="pass", value=f"{ours.vocab_size} tokens, all the same", threshold=threshold, why=why)


def memory_of(target: str | Path, drafts: Sequence[str | Path], config: EngineConfig) -> dict[str, Any] | None:
    """The ledger of these models, and what drafting costs in bytes."""
    # what is given up where memory is short, and by the check, is no price of drafting
    config = dataclasses.replace(config, options=dataclasses.replace(config.options, num_forms=0))
    alone, together = ledger_of(target, None, config), ledger_of(target, [*drafts], config)
    if alone is None or together is None:
        return None
    return {
        "target": alone.num_bytes,
        "all": together.num_bytes,
        "draft": together.num_bytes - alone.num_bytes,
        "per_1000_tokens": _cache_bytes_each(together) * 1000,
        "target_per_1000_tokens": _cache_bytes_each(alone) * 1000,
        "limit": config.memory_limit,
        "entries": together.as_dict()["entries"],
    }


def _cache_bytes_each(ledger: Ledger) -> int:
    caches = sum(entry.num_bytes for entry in ledger.entries if entry.name.endswith("cache"))
    return caches // max(ledger.num_cache_tokens, 1)


def memory_item(memory: dict[str, Any], context: int, free: int | None) -> Item:
    """What all takes, and how many sequences fewer fit because of the draft."""
    per_sequence = memory["target_per_1000_tokens"] * context // 1000
    num_fewer = memory["draft"] / max(per_sequence, 1)
    allowed = memory["limit"] or free
    is_over = allowed is not None and memory["all"] > allowed
    is_dear = allowed is not None and memory["draft"] > 0.5 * allowed
    return Item(
        name="memory",
        status="fail" if is_over and memory["limit"] else "warn" if is_over or is_dear else "pass",
        value=f"{readable(memory['all'])} at most, {readable(memory['draft'])} of it for drafting: room for "
        f"{num_fewer:.0f} sequences of {context} tokens; cache {readable(memory['per_1000_tokens'])} per 1,000 tokens",
        threshold="no limit known"
        if allowed is None
        else f"{readable(allowed)} " + ("allowed" if memory["limit"] else "free now"),
        why="what drafting takes is not there for more texts at once",
        remedy="take a smaller draft, --draft suffix, or a smaller cache with --memory" if is_over or is_dear else "",
    )


def exactness_item(runtime: Runtime) -> Item:
    """The level that the runtime's self-test found."""
    is_bitwise = runtime.exactness == "bitwise"
    return Item(
        name="exactness",
        status="pass" if is_bitwise else "warn",
        value=runtime.exactness,
        threshold="bitwise: same seed, same text, with drafts or without",
        why="a row's rounding may depend on the rows beside it; the self-test probes that on this device"
        if is_bitwise
        else "the self-test found rows whose bits depend on the rows beside them, so near-ties may fall otherwise; "
        "the distribution is the target's own either way",
        remedy="" if is_bitwise else "none is needed; float32 may pass the self-test where bfloat16 does not",
    )
