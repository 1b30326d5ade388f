"""Full-price pairs: a target of a stated size and price, and a draft that agrees with it as often as asked for.

The target is the bundled target inside a larger model: it writes the bundled target's text, with the statistics of real
text, at the price of its size. The draft is the bundled target too, with its last layers damped until it agrees as
often as wanted: it errs where a weaker model errs. (Disturbing the target instead, by random layers, made texts of
noise: at a greedy agreement of 0.8 it was 0.3 at temperature 1, where trained pairs differ by a few hundredths.)
How much damping that takes is searched for on texts of the bundled target, and what is reported was measured on texts
that the large one wrote.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from outrider import noise, sampling
from outrider.bench.embedding import GROUP_SIZE, Embedding, Shape, write_damped
from outrider.bench.provenance import make_room, provenance, write_json
from outrider.bench.workloads import WORKLOADS, find_loop, read_workloads
from outrider.cache.table import BlockTable
from outrider.demo import BundledPair
from outrider.engine.config import EngineConfig
from outrider.engine.llm import LLM, Generation
from outrider.errors import ParameterError, UsageError
from outrider.request import SamplingParams
from outrider.runtime.base import RuntimeOptions, SequenceRows

# Qwen3 with heads of 64 and the bundled vocabulary: 507,598,848 and 1,518,466,816 parameters.
SIZES = {
    "0.5b": Shape(hidden_size=1024, intermediate_size=3072, num_layers=40, num_heads=16, num_kv_heads=8),
    "1.5b": Shape(hidden_size=2048, intermediate_size=6144, num_layers=30, num_heads=32, num_kv_heads=16),
}
MIN_AGREEMENT, MAX_AGREEMENT = 0.3, 0.99
PAIR_FILE = "pair.json"
NUM_TOKENS = 96  # of a text that agreement is measured on
CHUNK = 256
# Of the target's random layers: beside it the small model's own output is a thousand times as large.
EPSILON = 0.01
MAX_TRIALS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlan:
    """Which pair to make.

    Args:
        shape: of the target.
        agreement: how often the draft's greedy guess is to be the target's token.
        seed: of the target's random weights.
        num_threads: to compute with; None: one per core.

    Raises:
        ParameterError: no such agreement can be made.
    """

    shape: Shape
    agreement: float
    seed: int = 0
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if not MIN_AGREEMENT <= self.agreement <= MAX_AGREEMENT:
            raise ParameterError(
                f"agreement is {self.agreement:g}, but must be between {MIN_AGREEMENT} and {MAX_AGREEMENT}"
            )

    @property
    def tolerance(self) -> float:
        """How far from the agreement asked for the search may end."""
        return min(0.01, (1 - self.agreement) / 4)


class Trial(NamedTuple):
    """A damping that was tried, and the agreement that came of it."""

    damping: float
    agreement: float


class Agreement(NamedTuple):
    """How many of the target's tokens the draft guessed; the repetitions of a loop are not counted."""

    num_agreed: int
    num_tokens: int

    @property
    def rate(self) -> float:
        return self.num_agreed / max(self.num_tokens, 1)


def make_pair(source: BundledPair, out: Path, plan: PairPlan, report: Callable[[str], None]) -> dict[str, Any]:
    """Make a pair of folders, `out/target` and `out/draft`, and `out/pair.json`, which is returned.

    Args:
        source: the pair whose target is embedded.
        out: a folder that does not exist; it appears when all of it is there.
        plan: which pair.
        report: is told what is being done.

    Raises:
        UsageError: the folder exists or cannot be made, or the disk is too full.
    """
    began = provenance()
    embedding = Embedding(source.target, plan.shape, plan.seed)
    if out.exists():
        raise UsageError(f"{out} exists already: name a folder that does not")
    make_room(out, 2 * embedding.num_parameters, "the pair")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / out.name
        target, draft = folder / "target", folder / "draft"
        folder.mkdir()
        meter = AgreementMeter(source.target, plan.num_threads)
        report("writing texts")
        meter.write_search_texts()

        def measure(damping: float) -> float:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            write_damped(source.target, draft, damping)
            return meter.of_search_texts(draft).rate

        trials = find_damping(measure, plan, embedding.inner.num_layers / GROUP_SIZE, report)
        measure(trials[-1].damping)
        report(f"writing {2 * embedding.num_parameters / 1e9:.2f} GB of weights")
        target.mkdir()
        embedding.write(target, EPSILON)
        shutil.copyfile(source.target.parent / "LICENSE", folder / "LICENSE")
        report("measuring agreement on the target's own texts, greedy and at temperature 1")
        measured = {str(temperature): meter.of_own_texts(target, draft, temperature) for temperature in (0.0, 1.0)}
        document = {
            "provenance": began,
            "plan": asdict(plan),
            "source_sha256": _sha256(source.target / "model.safetensors"),
            "num_parameters": {"target": embedding.num_parameters, "draft": embedding.num_inner_parameters},
            "epsilon": EPSILON,
            "damping": trials[-1].damping,
            "agreement": {temperature: found.rate for temperature, found in measured.items()},
            "num_tokens_compared": {temperature: found.num_tokens for temperature, found in measured.items()},
            "search": [trial._asdict() for trial in trials],
            "how": HOW,
            "files": {
                path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }
        write_json(folder / PAIR_FILE, document)
        folder.replace(out)
    return document


HOW = (
    "The target is the bundled target in the first dimensions of a larger residual, followed by random layers whose "
    "outputs are scaled by epsilon. The draft is the bundled target, what its last layers add being damped. Agreement: "
    f"the target wrote up to {NUM_TOKENS} tokens after each prompt of the six workloads, plainly (in the search, the "
    "bundled target did); counted are those that the draft, given all before them, would have chosen under the same "
    "temperature, seed and noise. The repetitions of a loop are left out. Weights are numpy's normal numbers, made "
    "from the seed and the tensor's name."
)


class FixedText(NamedTuple):
    """A prompt and what a model wrote after it, up to where it begins to repeat itself."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]

    @classmethod
    def of(cls, generation: Generation) -> FixedText:
        loop = find_loop(generation.token_ids)
        return cls(generation.prompt_token_ids, generation.token_ids[: loop.start] if loop else generation.token_ids)


class AgreementMeter:
    """Has one model write, and another guess each token of what was written.

    Args:
        writer: folder of the model that writes the texts of the search: small, and like the target.
        num_threads: to compute with.
    """

    def __init__(self, writer: Path, num_threads: int | None) -> None:
        self.prompts = [prompt.text for workload in read_workloads(WORKLOADS) for prompt in workload.prompts]
        self._config = EngineConfig(
            max_sequences=len(self.prompts), self_test=False, options=RuntimeOptions(num_threads=num_threads)
        )
        self._writer = writer
        self._texts: list[FixedText] = []

    def write_search_texts(self) -> None:
        self._texts = self._write(self._writer, _params(0.0))

    def of_search_texts(self, draft: Path) -> Agreement:
        """How often a draft guesses what was written greedily: falls smoothly as the draft gets weaker."""
        return self._compare(draft, self._texts, _params(0.0))

    def of_own_texts(self, target: Path, draft: Path, temperature: float) -> Agreement:
        """How often a draft guesses what a target writes."""
        params = _params(temperature)
        return self._compare(draft, self._write(target, params), params)

    def _write(self, folder: Path, params: SamplingParams) -> list[FixedText]:
        llm = LLM(folder, config=self._config)
        seeded = [replace(params, seed=seed) for seed in range(len(self.prompts))]
        return list(map(FixedText.of, llm.generate(self.prompts, seeded, depth=0)))

    def _compare(self, draft: Path, texts: Sequence[FixedText], params: SamplingParams) -> Agreement:
        llm = LLM(draft, config=self._config)
        parts = [_num_agreed(llm, text, replace(params, seed=seed)) for seed, text in enumerate(texts)]
        return Agreement(sum(parts), sum(len(text.token_ids) for text in texts))


def _params(temperature: float) -> SamplingParams:
    return SamplingParams(temperature=temperature, max_tokens=NUM_TOKENS)


def _num_agreed(llm: LLM, text: FixedText, params: SamplingParams) -> int:
    """How many of a text's tokens a model would have chosen itself, given all before them, under the same noise."""
    table = BlockTable(llm.engine.pool)
    token_ids = (*text.prompt_token_ids, *text.token_ids)
    first, num_rows, num_agreed = len(text.prompt_token_ids) - 1, len(token_ids) - 1, 0
    for start in range(0, num_rows, CHUNK):
        chunk = token_ids[start : min(start + CHUNK, num_rows)]
        wanted = range(max(first - start, 0), len(chunk))
        with table.reserve(max(len(chunk), llm.target.min_rows)):
            logits = llm.target.forward([SequenceRows(chunk, start, table.blocks, wanted)]).logits
            table.commit(tuple(range(len(chunk))))
        for row, logit_row in zip(wanted, logits, strict=True):
            position = start + row + 1
            choice = sampling.choose(logit_row, params, noise.Address(params.seed or 0, 0, position))
            num_agreed += choice == token_ids[position]
    table.release()
    return num_agreed


def find_damping(
    measure: Callable[[float], float], plan: PairPlan, most: float, report: Callable[[str], None]
) -> list[Trial]:
    """Search by halving where `measure`, which falls from 1, is what the plan asks for.

    Args:
        measure: the agreement at a damping between 0 and `most`.
        plan: says what is wanted, and how nearly.
        most: damping that there can be.
        report: is told of each trial.

    Returns:
        all trials, the best one last.
    """
    trials: list[Trial] = []
    low, high = 0.0, most
    while len(trials) < MAX_TRIALS:
        damping = (low + high) / 2
        trials.append(Trial(damping, measure(damping)))
        report(f"damping {damping:.4f}: agreement {trials[-1].agreement:.3f}, {plan.agreement:g} wanted")
        if abs(trials[-1].agreement - plan.agreement) <= plan.tolerance:
            break
        low, high = (damping, high) if trials[-1].agreement > plan.agreement else (low, damping)
    return sorted(trials, key=lambda trial: abs(trial.agreement - plan.agreement), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
