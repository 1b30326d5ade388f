"""What a checkpoint's config.json says, and the refusal by name of everything that we do not compute.

Keys that a config leaves out have the values that transformers' own classes give them. Knows no weights and needs
nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Literal, get_args

from outrider.errors import ModelError
from outrider.model.fields import Fields

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn"]
Dtype = Literal["float32", "bfloat16"]

ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

_COMMON: dict[str, Any] = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10_000.0}
_QWEN: dict[str, Any] = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
_DEFAULTS: dict[Family, dict[str, Any]] = {
    "llama": {**_COMMON, "eos_token_id": 2},
    "mistral": {**_COMMON, "eos_token_id": 2, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {**_COMMON, **_QWEN},
    "qwen3": {**_COMMON, **_QWEN, "head_dim": 128},
}

# A value that is neither absent, null, false, 0 nor empty asks for something that is not in our graphs.
_REFUSED_KEYS = {
    "compression_config": "compressed weights are not read: use the float32 or bfloat16 checkpoint it was made from",
    "auto_map": "code that comes with a checkpoint is never run: use a checkpoint of a plain architecture",
    "num_experts": "mixtures of experts are not computed: use a dense checkpoint",
    "num_local_experts": "mixtures of experts are not computed: use a dense checkpoint",
}

# How `outrider quantize` marks what it writes; a change of the arithmetic is another version.
QUANT_METHOD, QUANT_VERSION = "outrider", 1

# What each kind of rope is computed from: keys that must be there, keys that may.
_ROPE_KEYS: dict[RopeKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor", "original_max_position_embeddings"), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), ()),
    "yarn": (
        ("factor", "original_max_position_embeddings"),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """How positions turn into angles. `parameters` are those of the kind, named as in the checkpoint."""

    theta: float
    kind: RopeKind
    parameters: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a checkpoint says of its model.

    `max_context` ends where a sliding window would begin to hide anything: up to there sliding attention is full
    attention. `dtype` is the one to compute in; a single stored tensor may have the other. `is_quantised`: matrices are
    int8 with a scale for each output, and what they are multiplied with is rounded to int8 row by row.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    max_context: int
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    eos_token_ids: tuple[int, ...]
    dtype: Dtype
    is_quantised: bool = False


def read_config(folder: Path) -> ModelConfig:
    """Read `config.json`, and `generation_config.json` where there is one.

    Raises:
        ModelError: the folder holds no model, the file is damaged, or it asks for something we do not compute.
    """
    generation_path = folder / "generation_config.json"
    generation = Fields.read(generation_path) if generation_path.exists() else None
    return _read(Fields.read(folder / "config.json"), generation)


def parse_config(values: Mapping[str, Any], generation_values: Mapping[str, Any]) -> ModelConfig:
    """The same from the dictionaries of a loaded model's two configs; the second may be empty.

    Raises:
        ModelError: they ask for something we do not compute.
    """
    generation = Fields(path=Path("generation_config of the loaded model"), values=generation_values)
    return _read(Fields(path=Path("config of the loaded model"), values=values), generation)


def _read(fields: Fields, generation: Fields | None) -> ModelConfig:
    family = _read_family(fields)
    fields = fields.with_defaults(_DEFAULTS[family])
    _refuse_unsupported(fields)
    num_layers = fields.count("num_hidden_layers")
    num_heads, num_kv_heads, head_dim = _read_heads(fields)
    max_position = fields.count("max_position_embeddings", minimum=2)
    has_attention_bias = family in ("llama", "qwen3") and fields.flag("attention_bias")
    return ModelConfig(
        family=family,
        vocab_size=fields.count("vocab_size"),
        hidden_size=fields.count("hidden_size"),
        intermediate_size=fields.count("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps"),
        rope=_read_rope(fields, max_position),
        max_context=min(max_position, _read_window(fields, family, num_layers) or max_position),
        tie_word_embeddings=fields.flag("tie_word_embeddings"),
        qkv_bias=family == "qwen2" or has_attention_bias,
        output_bias=has_attention_bias,
        mlp_bias=family == "llama" and fields.flag("mlp_bias"),
        qk_norm=family == "qwen3",
        eos_token_ids=_read_end_tokens(fields, generation),
        dtype=_read_dtype(fields),
        is_quantised=_read_quantisation(fields),
    )


def _read_family(fields: Fields) -> Family:
    """The family; `model_type` decides where no architecture is named, as transformers has it."""
    model_type = fields.values.get("model_type")
    for name in fields.elements("architectures"):
        family = ARCHITECTURES.get(name) if isinstance(name, str) else None
        if family is None or family != model_type:
            raise _unsupported(fields, f"architecture {short_repr(name)} with model_type {short_repr(model_type)}")
    for family in get_args(Family):
        if model_type == family:
            return family
    raise _unsupported(fields, f"model_type {short_repr(model_type)}")


def _refuse_unsupported(fields: Fields) -> None:
    for key, reason in _REFUSED_KEYS.items():
        if fields.values.get(key):
            raise _unsupported(fields, f"{key} {short_repr(fields.values[key])}", reason)
    if fields.values["hidden_act"] != "silu":
        raise _unsupported(fields, f"hidden_act {short_repr(fields.values['hidden_act'])}", "only 'silu' is computed")


def _read_heads(fields: Fields) -> tuple[int, int, int]:
    """Query heads, key-value heads, and the width of each."""
    num_heads = fields.count("num_attention_heads")
    num_kv_heads = fields.optional_count("num_key_value_heads") or num_heads
    if num_heads % num_kv_heads:
        raise fields.wrong("num_key_value_heads", f"a divisor of num_attention_heads, which is {num_heads}")
    head_dim = fields.optional_count("head_dim")
    if head_dim is None:
        hidden_size = fields.count("hidden_size")
        if hidden_size % num_heads:
            raise fields.wrong("hidden_size", f"a multiple of num_attention_heads, which is {num_heads}")
        head_dim = hidden_size // num_heads
    if head_dim % 2:
        raise fields.wrong("head_dim", f"even for rotary positions, not {head_dim}")
    return num_heads, num_kv_heads, head_dim


def _read_window(fields: Fields, family: Family, num_layers: int) -> int | None:
    """The sliding window, if any layer has one."""
    window = fields.optional_count("sliding_window", minimum=2)
    if family in ("qwen2", "qwen3") and not fields.flag("use_sliding_window"):
        window = None
    layer_types = fields.elements("layer_types")
    if layer_types:
        _check_layer_types(fields, layer_types, num_layers)
        has_sliding_layer = "sliding_attention" in layer_types
        if has_sliding_layer and window is None:
            raise _unsupported(fields, "layer type 'sliding_attention'", "it needs a sliding_window in use")
    else:
        # transformers gives Qwen's window to the layers from max_window_layers on
        has_sliding_layer = family in ("qwen2", "qwen3") and fields.count("max_window_layers", minimum=0) < num_layers
    # in transformers' Mistral all layers slide, whatever their types say
    return window if has_sliding_layer or family == "mistral" else None


def _check_layer_types(fields: Fields, layer_types: list[Any], num_layers: int) -> None:
    if len(layer_types) != num_layers:
        raise fields.wrong("layer_types", f"a list with one name for each of the {num_layers} layers")
    for name in layer_types:
        if name not in ("full_attention", "sliding_attention"):
            raise _unsupported(fields, f"layer type {short_repr(name)}", "only full and sliding attention are computed")


def _read_rope(fields: Fields, max_position: int) -> RopeConfig:
    """Rope as transformers 4 (`rope_scaling`) or 5 (`rope_parameters`) writes it."""
    given = fields.section("rope_scaling").values or fields.section("rope_parameters").values
    if any(isinstance(value, dict) for value in given.values()):
        raise _unsupported(fields, "a rope for each layer type", "only one rope for all layers is computed")
    for partial in (fields.values.get("partial_rotary_factor"), given.get("partial_rotary_factor")):
        if partial not in (None, 1):
            raise _unsupported(fields, f"partial_rotary_factor {short_repr(partial)}", "only 1 is computed")
    name = given.get("rope_type", given.get("type", "default"))
    original = fields.values.get("original_max_position_embeddings")
    if name == "dynamic":
        original = max_position  # transformers starts to rescale there, whatever the original context was
    values = {
        "rope_theta": fields.values["rope_theta"],
        "original_max_position_embeddings": max_position,
        **given,
        **({} if original is None else {"original_max_position_embeddings": original}),
    }
    rope = Fields(path=fields.path, values=values)
    for kind in get_args(RopeKind):
        if name == kind:
            return RopeConfig(
                theta=rope.number("rope_theta", above=1), kind=kind, parameters=_read_rope_parameters(rope, kind)
            )
    raise _unsupported(fields, f"rope type {short_repr(name)}", f"only {', '.join(_ROPE_KEYS)} are computed")


def _read_rope_parameters(rope: Fields, kind: RopeKind) -> dict[str, float]:
    required, optional = _ROPE_KEYS[kind]
    present = [key for key in optional if rope.values.get(key) is not None]
    parameters = {key: rope.number(key) for key in (*required, *present)}
    if kind == "yarn":
        parameters["truncate"] = rope.with_defaults({"truncate": True}).flag("truncate")
    if kind == "llama3" and parameters["high_freq_factor"] <= parameters["low_freq_factor"]:
        raise rope.wrong("high_freq_factor", f"above low_freq_factor, which is {parameters['low_freq_factor']:g}")
    return parameters


def _read_end_tokens(fields: Fields, generation: Fields | None) -> tuple[int, ...]:
    """The generation config, where it names them, knows them better."""
    if generation is not None and generation.values.get("eos_token_id") is not None:
        fields = generation
    return () if fields.values.get("eos_token_id") is None else fields.counts("eos_token_id")


def _read_dtype(fields: Fields) -> Dtype:
    """The dtype to compute in; where none is named float32, in which weights of either dtype are exact."""
    name = fields.values.get("dtype") or fields.values.get("torch_dtype") or "float32"
    for dtype in get_args(Dtype):
        if name == dtype:
            return dtype
    remedy = "float32 and bfloat16 are read: load it with transformers and save_pretrained it in one of them"
    raise _unsupported(fields, f"dtype {short_repr(name)}", remedy)


def _read_quantisation(fields: Fields) -> bool:
    """Whether the checkpoint is one that we quantised; those of others are refused."""
    if not fields.values.get("quantization_config"):
        return False
    given = fields.section("quantization_config").values
    found = given.get("quant_method"), given.get("version")
    if found == (QUANT_METHOD, QUANT_VERSION):
        return True
    if found[0] == QUANT_METHOD:
        remedy = f"version {QUANT_VERSION} is read: quantize the original again"
        raise _unsupported(fields, f"version {short_repr(found[1])} of outrider's quantization", remedy)
    remedy = "take the float32 or bfloat16 checkpoint it was made from, and make it smaller with outrider quantize"
    raise _unsupported(fields, f"quantization_config {short_repr(dict(given))}", remedy)


def _unsupported(fields: Fields, what: str, reason: str | None = None) -> ModelError:
    reason = reason or f"supported are {', '.join(ARCHITECTURES)}"
    return ModelError(f"{fields.path}: {what} is not supported: {reason}")
