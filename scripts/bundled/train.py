"""Train the target, or distil the draft from it (`--teacher`), for a stated number of minutes or steps.

    python scripts/bundled/train.py target --tokenizer build/tokenizer --minutes 70 --out build/target
    python scripts/bundled/train.py draft --teacher build/target --minutes 15 --out build/draft

Hidden matrices are trained with Muon, the rest with AdamW; the rate is constant, then falls linearly over the last
half. The schedule follows the clock, so a slow machine gives a worse model but never a half-cooled one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from corpus import digest, read_documents
from models import DRAFT_SHAPE, TARGET_SHAPE, make_model, save

SEED = 20261123
MATRIX_RATE, OTHER_RATE = 0.02, 0.003
WARMUP_FRACTION, COOLDOWN_FRACTION = 0.02, 0.45
# (from this progress on, tokens of a window): attention is 40 % of a step at 512 on a CPU, so short windows come first.
WINDOW_LENGTHS = ((0.0, 256), (0.6, 512), (0.93, 1024))


class Progress(NamedTuple):
    """How far training came."""

    num_steps: int
    num_tokens: int


class Windows:
    """Random windows of the training tokens, by epochs without repetition, and fixed windows of the held-out ones."""

    def __init__(self, tokenizer: Tokenizer, *, with_tests: bool) -> None:
        documents = read_documents(with_tests=with_tests)
        self.digest = digest(documents)
        end = tokenizer.token_to_id("<|endoftext|>")
        parts: dict[bool, list[int]] = {False: [], True: []}
        generator = torch.Generator().manual_seed(SEED)
        for index in torch.randperm(len(documents), generator=generator).tolist():
            document = documents[index]
            parts[document.is_held_out] += [*tokenizer.encode(document.text).ids, end]
        self.training = torch.tensor(parts[False])
        self.held_out = torch.tensor(parts[True])
        self.generator = generator
        self.starts: list[int] = []
        self.length = 0

    def batch(self, num_sequences: int, length: int) -> Tensor:
        rows = []
        if length != self.length:
            self.length, self.starts = length, []
        while len(rows) < num_sequences:
            if not self.starts:
                offset = int(torch.randint(length, (1,), generator=self.generator))
                starts = torch.arange(offset, len(self.training) - length, length)
                self.starts = starts[torch.randperm(len(starts), generator=self.generator)].tolist()
            start = self.starts.pop()
            rows.append(self.training[start : start + length])
        return torch.stack(rows)

    def held_out_batches(self, num_tokens: int, length: int = 512) -> list[Tensor]:
        num_rows = min(num_tokens, len(self.held_out)) // length
        usable = self.held_out[: num_rows * length].view(-1, length)
        return list(usable.split(8))


def target_loss(model: Qwen3ForCausalLM, tokens: Tensor) -> Tensor:
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def distillation_loss(model: Qwen3ForCausalLM, teacher: Qwen3ForCausalLM, tokens: Tensor) -> Tensor:
    """KL to the teacher plus the acceptance loss -log sum min(target, draft) (LK losses, arXiv 2602.23881)."""
    with torch.no_grad():
        target_log_probs = teacher(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)
    draft_log_probs = model(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)
    target_probs = target_log_probs.exp()
    divergence = (target_probs * (target_log_probs - draft_log_probs)).sum(-1)
    overlap = torch.minimum(target_probs, draft_log_probs.exp()).sum(-1)
    return (0.5 * divergence - overlap.log()).mean()


def optimizers(model: Qwen3ForCausalLM, scale: float) -> list[torch.optim.Optimizer]:
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "layers" in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "layers" not in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE * scale, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=OTHER_RATE * scale, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(progress: float) -> float:
    return max(0.02, min(1.0, progress / WARMUP_FRACTION + 0.05, (1.0 - progress) / COOLDOWN_FRACTION))


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, batches: list[Tensor], device: str) -> float:
    model.eval()
    losses = [target_loss(model, batch.to(device)).item() * len(batch) for batch in batches]
    model.train()
    return sum(losses) / sum(map(len, batches))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("target", "draft"))
    parser.add_argument("--tokenizer", type=Path, default=Path("build/tokenizer"))
    parser.add_argument("--teacher", type=Path, help="imitate this model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--tokens-per-step", type=int, default=4096)
    parser.add_argument("--rate-scale", type=float, default=1.0)
    parser.add_argument("--with-tests", action="store_true", help="the standard library's own tests too")
    return parser.parse_args()


def train(
    model: Qwen3ForCausalLM, teacher: Qwen3ForCausalLM | None, windows: Windows, plan: argparse.Namespace
) -> Progress:
    """Until the clock says so; the progress made."""
    device = next(model.parameters()).device.type
    updates = optimizers(model, plan.rate_scale)
    began, step, num_tokens = time.monotonic(), 0, 0
    history: list[float] = []
    while (progress := (time.monotonic() - began) / (60 * plan.minutes)) < 1.0:
        length = [length for start, length in WINDOW_LENGTHS if progress >= start][-1]
        tokens = windows.batch(plan.tokens_per_step // length, length + 1).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = distillation_loss(model, teacher, tokens) if teacher else target_loss(model, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for update, base in zip(updates, (MATRIX_RATE, OTHER_RATE), strict=True):
            for group in update.param_groups:
                group["lr"] = base * plan.rate_scale * rate_factor(progress)
            update.step()
            update.zero_grad(set_to_none=True)
        step, num_tokens = step + 1, num_tokens + tokens.numel()
        history.append(loss.item())
        if not math.isfinite(history[-1]):
            raise SystemExit(f"the loss became {history[-1]} at step {step}: lower --rate-scale")
        if step % 20 == 0:
            rate, mean = num_tokens / (time.monotonic() - began), sum(history[-20:]) / 20
            print(
                f"step {step} progress {progress:.3f} loss {mean:.3f} tokens {num_tokens:,} ({rate:,.0f}/s)", flush=True
            )
        if step % 300 == 0:
            save(model, plan.tokenizer, plan.out)
    return Progress(step, num_tokens)


def main() -> None:
    plan = parse_arguments()
    torch.manual_seed(SEED)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    windows = Windows(Tokenizer.from_file(str(plan.tokenizer / "tokenizer.json")), with_tests=plan.with_tests)
    model = make_model(TARGET_SHAPE if plan.role == "target" else DRAFT_SHAPE).to(device).train()
    teacher = plan.teacher and Qwen3ForCausalLM.from_pretrained(plan.teacher, dtype=torch.float32).to(device)
    num_parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{plan.role}: {num_parameters:,} parameters, {len(windows.training):,} training tokens", flush=True)
    done = train(model, teacher, windows, plan)
    with torch.autocast(device, dtype=torch.bfloat16):
        final = held_out_loss(model, windows.held_out_batches(60_000), device)
    save(model, plan.tokenizer, plan.out)
    facts = {
        "role": plan.role,
        "num_parameters": num_parameters,
        "steps": done.num_steps,
        "tokens_seen": done.num_tokens,
        "minutes": plan.minutes,
        "seed": SEED,
        "device": device,
        "corpus_sha256": windows.digest,
        "corpus_training_tokens": len(windows.training),
        "with_tests": plan.with_tests,
        "held_out_loss_nats_per_token": round(final, 4),
        "torch": torch.__version__,
    }
    (plan.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
