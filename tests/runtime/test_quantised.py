"""A quantised checkpoint on OpenVINO: the stated arithmetic, in int8 products indeed, whatever shares a forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from outrider import LLM, EngineConfig, SamplingParams
from outrider.errors import ModelError
from outrider.model.config import read_config
from outrider.model.weights import Weights, expected_shapes, scale_name
from outrider.quantize.checkpoint import Original
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.numerics import run_self_test
from outrider.runtime.openvino import processors
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from outrider.runtime.torch.runtime import TorchRuntime
from tests.cli.tiny import make_tiny, save_bfloat16
from tests.runtime.checkpoints import make_checkpoint, make_model

VARIANTS = {
    "qwen3 tied": ("qwen3", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
}
NUM_TOKENS = 40
TOKEN_IDS = np.random.default_rng(7).integers(0, 211, NUM_TOKENS).tolist()
# Of the logits' spread: a last bit decides between two levels of a number now and then, of 255.
TOLERANCE = 0.02


class Product(torch.nn.Module):
    """Rows times an int8 matrix by its definition: whole numbers, added exactly."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.levels = weights[f"{name}.weight"].array.astype(np.int64)
        self.scales = weights[scale_name(f"{name}.weight")].array
        self.bias = weights[f"{name}.bias"].array if f"{name}.bias" in weights.names else np.float32(0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        values = rows.numpy()
        largest = np.abs(values).max(axis=-1, keepdims=True)
        sums = np.rint(values / largest * 127).astype(np.int64) @ self.levels.T
        return torch.tensor((sums * self.scales / 127 * largest + self.bias).astype(np.float32))


def reference(folder, family: str, changes: dict) -> np.ndarray:
    """Transformers' own forward, its products replaced."""
    weights = Weights.from_folder(folder)
    model = make_model(family, **changes)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            parent, _, child = name.rpartition(".")
            is_tied = name == "lm_head" and changes.get("tie_word_embeddings")
            setattr(model.get_submodule(parent), child, Product(weights, "model.embed_tokens" if is_tied else name))
    name = "model.embed_tokens.weight"
    embedding = weights[name].array * weights[scale_name(name)].array[:, None]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.tensor(embedding))
        return model(torch.tensor([TOKEN_IDS])).logits[0].numpy()


def quantised(folder, out):
    out.mkdir()
    Original(folder).write_quantised(out, lambda _: None)
    return out


def load(folder, **options) -> OpenVinoRuntime:
    runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(num_threads=1, **options))
    runtime.resize(8)
    return runtime


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return quantised(make_tiny(root / "original", scale=2.0), root / "new")


@pytest.fixture(params=["products", "convolutions"])
def has_products(request, monkeypatch) -> bool:
    """Both forms of products, of which this processor would have one."""
    has_products = request.param == "products"
    if has_products and not processors.has_int8_products():
        pytest.skip("this processor's products of int8 matrices are not used")
    monkeypatch.setattr(processors, "has_int8_products", lambda: has_products)
    return has_products


@pytest.fixture(params=[True, False], ids=["joined", "apart"])
def is_joined(request, monkeypatch) -> bool:
    """Both forms of matrices for the same rows, of which this processor would have one."""
    monkeypatch.setattr(processors, "is_joined", lambda *_: request.param)
    return request.param


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("has_products", "is_joined")
def test_the_graph_computes_the_stated_arithmetic(variant, tmp_path):
    family, changes = VARIANTS[variant]
    out = quantised(make_checkpoint(tmp_path / "original", family, **changes), tmp_path / "new")
    found = load(out).forward([SequenceRows(TOKEN_IDS, 0, [3, 1], range(NUM_TOKENS))]).logits
    wanted = reference(out, family, changes)
    assert np.abs(found - wanted).max() < TOLERANCE * wanted.std()
    # and it is not what the original computes
    original = load(tmp_path / "original").forward([SequenceRows(TOKEN_IDS, 0, [3, 1], range(NUM_TOKENS))]).logits
    assert np.abs(found - original).max() > TOLERANCE * wanted.std()


def test_products_are_of_int8_numbers(tiny, has_products, is_joined):
    runtime = load(tiny)
    precisions: dict[str, list[str]] = {}
    for node in runtime._forms.compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        precisions.setdefault(info["layerType"].astype(str), []).append(info["runtimePrecision"].astype(str))
    # of each of two layers, and the head
    kind = "FullyConnected" if has_products else "Convolution"
    assert len(precisions[kind]) == 2 * (4 if is_joined else 7) + 1
    assert set(precisions[kind]) <= {"i8", "u8"}
    assert not (precisions.keys() - {kind}) & {"FullyConnected", "MatMul", "Convolution"}


def test_both_forms_of_products_are_the_same_sums(tiny, monkeypatch):
    if not processors.has_int8_products():
        pytest.skip("this processor's products of int8 matrices are not used")
    found: dict[bool, list[np.ndarray]] = {}
    for has_products in (True, False):
        monkeypatch.setattr(processors, "has_int8_products", lambda has=has_products: has)
        runtime = load(tiny, bitwise=False)
        found[has_products] = [logits_of(runtime, number).copy() for number in (1, 2, 3, 5, 9, 33)]
    for products, convolutions in zip(found[True], found[False], strict=True):
        assert np.array_equal(products, convolutions)


@pytest.mark.usefixtures("has_products")
def test_few_rows_are_as_right_as_many(tiny):
    """As a draft model computes them, from one on."""
    runtime = load(tiny, bitwise=False)
    wanted = logits_of(runtime, 33).copy()
    for number in (1, 2, 3, 4, 5):
        parts: list[np.ndarray] = []
        for past in range(0, 4 * number, number):
            rows = SequenceRows(TOKEN_IDS[past : past + number], past, [3, 1], range(number))
            parts.append(runtime.forward([rows]).logits.copy())
        found = np.concatenate(parts)
        assert np.abs(found - wanted[: 4 * number]).max() < TOLERANCE * wanted.std(), number


def logits_of(runtime: OpenVinoRuntime, number: int) -> np.ndarray:
    return runtime.forward([SequenceRows(TOKEN_IDS[:number], 0, [3, 1], range(number))]).logits


@pytest.mark.usefixtures("has_products")
def test_the_largest_sums_do_not_overflow(tmp_path):
    """All levels as large as they can be: a kernel that adds pairs in 16 bits would saturate with 8 whole bits."""
    folder = make_tiny(tmp_path / "original", scale=0.0, num_hidden_layers=1, intermediate_size=96)
    ones = {name: np.ones(shape) for name, shape in expected_shapes(read_config(folder)).items()}
    save_bfloat16(folder / "model.safetensors", ones)
    out = quantised(folder, tmp_path / "new")
    rows = [SequenceRows([5, 6], 0, [0], range(2))]
    found, wanted = (load(each).forward(rows).logits.copy() for each in (out, folder))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_the_self_test_finds_a_level_and_texts_keep_it(tiny):
    found = run_self_test(load(tiny))
    llm = LLM(tiny, draft="suffix", config=EngineConfig(options=RuntimeOptions(num_threads=1)))
    assert llm.target.exactness == found.exactness
    prompts, params = ["def f(x):", "import os", "a a a a a a"], SamplingParams(max_tokens=40, seed=3)
    texts = [[each.text for each in llm.generate(prompts, params, depth=depth)] for depth in (0, 4)]
    alone = [llm.generate([prompt], params, depth=4)[0].text for prompt in prompts]
    if found.exactness == "bitwise":
        assert texts[0] == texts[1] == alone


def test_memory_is_declared(tiny):
    llm = LLM(tiny, config=EngineConfig(self_test=False))
    assert llm.ledger is not None
    declared = {entry.name: entry.num_bytes for entry in llm.ledger.entries}
    assert declared["target weights"] == Weights.from_folder(tiny).num_bytes == llm.target.memory().weights


def test_the_torch_runtime_refuses_it_by_name(tiny):
    with pytest.raises(ModelError, match="is quantized, which the torch runtime does not compute"):
        TorchRuntime.from_folder(tiny, RuntimeOptions())
