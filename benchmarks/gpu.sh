#!/bin/sh
# Everything that is measured on a GPU, in one call: benchmarks/gpu.sh [options of benchmarks/gpu.py].
# Needs torch, transformers, numpy, tokenizers, safetensors and jinja2; no network, no openvino, typer or rich.
# Results go to $OUT, or to benchmarks/results. $PYTHON names another interpreter than python3.
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH="src:.${PYTHONPATH:+:$PYTHONPATH}"
exec timeout 470 "${PYTHON:-python3}" -m benchmarks.gpu "$@"
