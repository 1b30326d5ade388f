#!/usr/bin/env bash
# Makes .venv and installs Outrider there: `setup.sh core`, or `setup.sh dev` with torch and the tools as well.
#
# A stamp in .venv says what is installed, so that the next run ends here at once and needs no network. When it fails,
# its last line says why. PYTHON=... chooses an interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    core) requirement=. download="150 MB" disk_mb=1000 ;;
    dev) requirement=.[dev] download="500 MB or more" disk_mb=3000 ;;
    *) echo "usage: scripts/setup.sh core|dev" >&2; exit 2 ;;
esac
level=$1
stamp=.venv/outrider-installed
log=.venv/outrider-install.log
inputs=$(cat pyproject.toml constraints.txt | cksum)

fail() {
    echo "outrider: $*" >&2
    exit 1
}

is_suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
        if is_suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer (tried: ${PYTHON:-python3.12, python3.11, python3}); install one, or name one: make PYTHON=..."
}

# A copied or moved .venv still points to where it was made, so it is made again.
has_environment() {
    .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        grep -qF "$(pwd -P)/.venv" .venv/pyvenv.cfg
}

make_environment() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; install its venv module (Debian, Ubuntu: ${python##*/}-venv)"
    echo "outrider: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "$python could not make .venv"
}

check_disk() {
    local free_mb
    free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
    ((free_mb >= disk_mb)) || fail "$free_mb MB free on this disk, $disk_mb MB needed; make room and run this again"
}

install() {
    echo "outrider: installing into .venv, once (downloads about $download)"
    rm -f "$stamp" "$log"
    # As variables, the pins hold for the build backend too: newer pips look for those under the second name.
    PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_RETRIES=2 \
        .venv/bin/python -m pip install --disable-pip-version-check --no-input --log "$log" \
        --editable "$requirement" 2>.venv/outrider-errors.log || explain_failure
    echo "$level $inputs" >"$stamp"
}

explain_failure() {
    if grep -qi 'no space left' "$log"; then
        fail "the disk is full; make room and run this again (about $disk_mb MB are needed)"
    elif grep -qiE 'connection broken|name resolution|max retries exceeded|timed out' "$log"; then
        fail "no network, or the package index cannot be reached; run this again where it can (details: $log)"
    fi
    fail "pip failed: $(grep '^ERROR' .venv/outrider-errors.log | tail -1) (details: $log)"
}

case "$(cat "$stamp" 2>/dev/null)" in
    "$level $inputs" | "dev $inputs") has_environment && exit 0 ;;
esac
check_disk
has_environment || make_environment
install
