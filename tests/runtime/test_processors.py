"""What is computed how on which processor: decided from what the system says of it, so it can be tested on any."""

from __future__ import annotations

from dataclasses import replace

from outrider.model.config import read_config
from outrider.model.weights import num_matrix_values
from outrider.runtime.base import RuntimeOptions, SequenceRows
from outrider.runtime.openvino import processors
from outrider.runtime.openvino.runtime import OpenVinoRuntime
from outrider.runtime.remembered import ISA_LIMITS
from tests.runtime.checkpoints import make_checkpoint


def test_how_many_rows_are_computed_at_least(tmp_path, monkeypatch):
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    plain, small = read_config(make_checkpoint(tmp_path, "llama", dtype="bfloat16")), 2**20
    int8 = replace(plain, is_quantised=True)
    zen, xeon = "avx512_vnni avx512_bf16", "avx512_vnni avx512_bf16 amx_bf16 amx_int8"
    for flags, cache, config, dtype, has_bfloat16, is_bitwise, expected in (
        (zen, small, plain, "bfloat16", True, True, 6),
        (zen, small, plain, "bfloat16", True, False, 1),
        (zen, 0, plain, "bfloat16", True, False, 6),  # too large for the cache: six cost no more
        (zen, small, int8, "float32", True, True, 6),
        (zen, small, int8, "float32", True, False, 1),
        (xeon, small, plain, "bfloat16", True, True, 1),
        (xeon, 0, plain, "bfloat16", True, False, 1),
        (xeon, small, int8, "float32", True, True, 5),
        (xeon, small, int8, "float32", True, False, 5),
        ("avx2", small, plain, "float32", False, True, 1),
        ("avx2", small, int8, "float32", False, False, 1),
    ):
        monkeypatch.setattr(processors, "processor", lambda flags=flags: flags)
        monkeypatch.setattr(processors, "last_cache_bytes", lambda cache=cache: cache)
        found = processors.least_rows(config, dtype, has_bfloat16=has_bfloat16, is_bitwise=is_bitwise)
        assert found == expected, (flags, cache, config.is_quantised, dtype, is_bitwise)


def test_a_targets_prompt_is_filled_up_to_multiples_of_16_rows_where_others_are_slow(tmp_path, monkeypatch):
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    folder = make_checkpoint(tmp_path, "llama")
    for flags, has_bfloat16, expected in (
        ("avx512_bf16", True, [40, 64, 80, 80]),
        ("avx512_bf16 amx_bf16", True, [40, 64, 65, 80]),
        ("avx2", False, [40, 64, 65, 80]),
    ):
        monkeypatch.setattr(processors, "processor", lambda flags=flags: flags)
        monkeypatch.setattr(processors, "computes_bfloat16", lambda _, has=has_bfloat16: has)
        runtime = OpenVinoRuntime.from_folder(folder, RuntimeOptions(dtype="float32", num_threads=1))
        runtime.resize(3)
        prompts = [[SequenceRows([7] * length, 0, [0, 1, 2], ())] for length in (40, 64, 65, 80)]
        assert [runtime.forward(prompt).num_computed_rows for prompt in prompts] == expected, flags


def test_where_openvinos_products_of_int8_matrices_serve(monkeypatch):
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    for flags, limit, expected in (
        ("avx512_vnni avx512_bf16", "", True),
        ("avx512_vnni avx512_bf16", "avx512_core_vnni", True),
        ("avx512_vnni avx512_bf16", "AVX512_CORE", False),
        ("avx512_vnni avx512_bf16", "AVX512_CORE_AMX", True),
        ("avx512_vnni amx_bf16 amx_int8", "", False),
        ("avx512_vnni amx_bf16 amx_int8", "AVX512_CORE_BF16", True),
        ("avx2 avx_vnni", "", False),
    ):
        monkeypatch.setattr(processors, "processor", lambda flags=flags: flags)
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")  # which is torch's alone
        assert processors.has_int8_products() == expected, (flags, limit)


def test_matrices_of_small_models_are_joined_without_amx(tmp_path, monkeypatch):
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    config = read_config(make_checkpoint(tmp_path, "llama", dtype="bfloat16"))
    num_bytes = 2 * num_matrix_values(config)
    for flags, cache, dtype, expected in (
        ("avx512_bf16", num_bytes // 2 + 1, "bfloat16", True),
        ("avx512_bf16", num_bytes // 2 - 1, "bfloat16", False),
        ("avx512_bf16", num_bytes // 2 + 1, "float32", False),
        ("avx512_bf16 amx_bf16", num_bytes, "bfloat16", False),
    ):
        monkeypatch.setattr(processors, "processor", lambda flags=flags: flags)
        monkeypatch.setattr(processors, "last_cache_bytes", lambda cache=cache: cache)
        assert processors.is_joined(config, dtype) == expected, (flags, cache, dtype)
    monkeypatch.setattr(processors, "processor", lambda: "avx512_bf16")
    monkeypatch.setattr(processors, "computes_bfloat16", lambda _: True)
    for bitwise, is_quantised, has_gates in ((True, False, False), (False, False, True), (True, True, True)):
        asked = replace(config, is_quantised=is_quantised)
        form = processors.computed_form(asked, num_bytes, RuntimeOptions(dtype="bfloat16", bitwise=bitwise))
        assert (form.is_joined, form.is_gate_joined) == (True, has_gates)


def test_feed_forwards_are_not_fused_where_openvino_would_fail_or_does_not(tmp_path, monkeypatch):
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processors, "processor", lambda: "flags: amx_bf16")
    monkeypatch.setattr(processors, "computes_bfloat16", lambda _: True)
    config = read_config(make_checkpoint(tmp_path, "llama", dtype="bfloat16"))
    forms = {
        options: processors.computed_form(
            config, 10**6, RuntimeOptions(num_threads=options[0], dtype=options[1])
        ).is_fused
        for options in ((1, "bfloat16"), (2, "float32"), (2, "bfloat16"))
    }
    assert list(forms.values()) == [False, False, True]
    assert not processors.is_fused(replace(config, intermediate_size=80))
    assert not processors.is_fused(replace(config, mlp_bias=True))
    for limit, expected in (("AVX512_CORE_BF16", False), ("avx512_core_amx", True)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        assert processors.is_fused(config) == expected
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(processors, "processor", lambda: "flags: avx512_bf16")
    assert not processors.is_fused(config)
