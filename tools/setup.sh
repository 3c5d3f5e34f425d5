#!/usr/bin/env bash
# Makes .venv from the locked requirements. Needs a Python of 3.11 or newer with its venv module, and nothing else.
# A second run with nothing changed does nothing (the Makefile's stamp sees to that). PYTHON=... names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
BOOTSTRAP=.uv # uv lives apart, so that syncing .venv to its lock cannot remove it
NEEDED_GIB=10

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
stop() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'
usable() { "$1" -c "$supported" >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

check_platform() {
    case "$(uname -s)/$(uname -m)" in
    Linux/x86_64 | Linux/aarch64) ;;
    *) stop "$(uname -s) on $(uname -m) is not supported: use Linux on x86-64 or arm64, or docker compose." ;;
    esac
}

check_disk() {
    local free
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$NEEDED_GIB" ] ||
        stop "$free GiB are free here and the packages (torch, vLLM) take about $NEEDED_GIB: make room, or clone elsewhere."
}

bootstrap_uv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "$1 has no venv module: install it (Debian, Ubuntu: apt install python3-venv) and run again."
    [ -x "$BOOTSTRAP/bin/python" ] || "$1" -m venv "$BOOTSTRAP"
    "$BOOTSTRAP/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        -r requirements/uv.txt ||
        stop "pip could not fetch uv: check the network, or the package index in pip's own configuration, and run again."
}

install() {
    export UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV="$PWD/$VENV"
    local uv=$BOOTSTRAP/bin/uv
    if ! usable "$VENV/bin/python"; then
        "$uv" venv --quiet --clear --python "$1" "$VENV"
    fi
    # Compiled here: else the first start of every server pays for it (vLLM alone a minute on two cores).
    "$uv" pip sync --require-hashes --compile-bytecode requirements/local.txt ||
        stop "the packages could not be installed (the reason is above); what was fetched is kept, so run again."
    "$uv" pip install --quiet --no-deps --no-build-isolation --editable .
}

python=$(find_python) || stop "no Python 3.11 to 3.14 found: install one (Debian, Ubuntu: apt install python3.11 \
python3.11-venv), or name it: make setup PYTHON=/path/to/python3.11"
check_platform
check_disk
say "Setting up $VENV with $("$python" --version) ($python); the first time fetches about 4 GB of packages"
SECONDS=0
bootstrap_uv "$python"
install "$python"
touch "$VENV/.ready"
say "Ready after $SECONDS s: ./leyden --help shows the commands, make demo the whole loop"
