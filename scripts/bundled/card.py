"""Measure how well the pair agrees, put it where the package finds it, and write its card.

    python scripts/bundled/card.py --target build/target --draft build/draft

Agreement is measured on text that the target itself writes after held-out beginnings: how often the draft's first guess
is the target's token, at the stated temperature and under the shared noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

from corpus import digest, read_documents
from outrider import LLM, SamplingParams, bundled_pair

NUM_PROMPTS, PROMPT_TOKENS, OUTPUT_TOKENS = 48, 64, 160
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

# ruff: noqa: E501 (the card's tables have long rows)
CARD = """\
# The bundled pair

A target and a draft model for trying Outrider without a download: two small language models of Python text with one
tokenizer. They are made to show speculative decoding, not to write programs.

| | target | draft |
|---|---|---|
| parameters | {target[num_parameters]:,} | {draft[num_parameters]:,} |
| shape | {target_shape} | {draft_shape} |
| file, bf16 | {target_bytes:.1f} MB | {draft_bytes:.1f} MB |
| trained for | {target[minutes]:g} minutes, {target[steps]:,} steps, {target[tokens_seen]:,} tokens | {draft[minutes]:g} minutes, {draft[steps]:,} steps, {draft[tokens_seen]:,} tokens |
| trained on | the text | the text, imitating the target |
| held-out loss, nats per token | {target[held_out_loss_nats_per_token]} | {draft[held_out_loss_nats_per_token]} |
| seed | {target[seed]} | {draft[seed]} |

**Agreement**, the probability that the draft's first guess is the target's token, on text the target writes after
{num_prompts} held-out beginnings ({num_tokens:,} tokens each): **{agreement_0:.3f}** greedy, **{agreement_1:.3f}** at temperature 1 under the
shared noise.

## Data

Source files of the Python standard library (without its tests) and Python's documentation topics, as they ship with
CPython {python}: {corpus_training_tokens:,} training tokens, sha256 of the text `{corpus_sha256}`. The tokenizer was trained
on the source of the library's tests too. One document in 40, chosen by the hash of its name, was held out of all
training. The text is under the Python Software Foundation License Version 2, copyright © 2001 Python Software
Foundation: see [LICENSE](LICENSE). The weights and the vocabulary are derived from it and are distributed under the
same terms.

## How it was made

    python scripts/bundled/tokenizer.py --out build/tokenizer
    python scripts/bundled/train.py target --minutes {target[minutes]:g} --out build/target
    python scripts/bundled/train.py draft --teacher build/target --minutes {draft[minutes]:g} --out build/draft
    python scripts/bundled/card.py --target build/target --draft build/draft

with torch {target[torch]} on {target[device]}. The schedule follows the clock, so another machine gets other weights. The draft
was trained to the target's distribution (KL divergence and the overlap of the two), because agreement, not its own
loss, is what a draft model is for.

## Limits

Context {context} tokens, mostly trained on windows of 256 and 512. It has seen one library's style, repeats itself in long
greedy texts, and knows nothing of the world.
"""


def agreement(llm: LLM, temperature: float, prompts: list[list[int]]) -> float:
    """First guesses that were the target's token, over all that were made."""
    params = [
        SamplingParams(temperature=temperature, seed=index, max_tokens=OUTPUT_TOKENS) for index in range(len(prompts))
    ]
    generations = llm.generate(prompts, params, depth=1)
    drafted = sum(generation.stats.num_drafted for generation in generations)
    return sum(generation.stats.num_accepted for generation in generations) / drafted


def shape_of(config: dict[str, Any]) -> str:
    heads = f"{config['num_attention_heads']} heads ({config['num_key_value_heads']} key-value) of {config['head_dim']}"
    return f"Qwen3, {config['num_hidden_layers']} layers, hidden {config['hidden_size']}, {heads}, tied head"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("src/outrider/demo/pair"))
    arguments = parser.parse_args()
    facts: dict[str, Any] = {}
    for role in ("target", "draft"):
        folder, out = getattr(arguments, role), arguments.out / role
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(folder / name, out / name)
        facts[role] = json.loads((folder / "training.json").read_text())
        facts[f"{role}_shape"] = shape_of(json.loads((folder / "config.json").read_text()))
        facts[f"{role}_bytes"] = (folder / "model.safetensors").stat().st_size / 1e6
        facts["context"] = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    documents = read_documents(with_tests=facts["target"]["with_tests"])
    if digest(documents) != facts["target"]["corpus_sha256"]:
        raise SystemExit(
            "this interpreter's standard library is not the one that the pair was trained on: use that one"
        )
    llm = LLM(bundled_pair().target, draft=bundled_pair().draft)
    assert llm.tokenizer
    held_out = [llm.tokenizer.encode(document.text) for document in documents if document.is_held_out]
    prompts = [tokens[:PROMPT_TOKENS] for tokens in held_out if len(tokens) >= PROMPT_TOKENS][:NUM_PROMPTS]
    measured = {temperature: agreement(llm, temperature, prompts) for temperature in (0.0, 1.0)}
    import platform

    card = CARD.format(
        **facts, agreement_0=measured[0.0], agreement_1=measured[1.0], num_prompts=len(prompts),
        num_tokens=OUTPUT_TOKENS, python=platform.python_version(), corpus_sha256=facts["target"]["corpus_sha256"],
        corpus_training_tokens=facts["target"]["corpus_training_tokens"],
    )  # fmt: skip
    (arguments.out / "README.md").write_text(card)
    shutil.copy(Path(sysconfig.get_path("stdlib")) / "LICENSE.txt", arguments.out / "LICENSE")
    result = {
        "agreement": {str(key): value for key, value in measured.items()},
        "training": {k: facts[k] for k in ("target", "draft")},
    }
    (arguments.out / "card.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["agreement"]))


if __name__ == "__main__":
    main()
