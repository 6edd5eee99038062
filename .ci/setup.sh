#!/bin/sh
# Make .venv ready: find Python 3.12 or 3.13, bring uv if there is none, install what uv.lock says.
#
# Needs nothing but a Python of those versions, and the package registry. Quick when
# done before: a stamp in .venv is newer than pyproject.toml, uv.lock and what is compiled. With
# --find it only prints the interpreter that it would take.
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/.setup-done
marks=src/aesp_proxy/decide/secrets/_marks.c
runs=src/aesp_proxy/decide/secrets/_runs.c

say() { printf '%s\n' "setup: $*" >&2; }

# Print the real path of interpreter $1 when it runs and is of a version we support. A
# pyenv shim on PATH fails when .python-version names a version that pyenv does not
# have: so every candidate is run, never trusted by name.
usable() {
    [ -n "$1" ] || return 1
    "$1" -I -c 'import sys
sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14)) if sys.version_info[0] == 3 else sys.exit(1)' \
        >/dev/null 2>&1 || return 1
    "$1" -I -c 'import sys; print(sys.executable)' 2>/dev/null
}

on_path() {
    _old_ifs=$IFS
    IFS=:
    for _directory in $PATH; do
        [ -x "$_directory/$1" ] && printf '%s\n' "$_directory/$1"
    done
    IFS=$_old_ifs
}

candidates() {
    [ -z "${PYTHON:-}" ] || printf '%s\n' "$PYTHON"
    for _name in python3.12 python3.13 python3 python; do
        on_path "$_name"
    done
    for _pattern in \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3 \
        "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/cpython-3.12*/bin/python3 \
        "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/cpython-3.13*/bin/python3 \
        /usr/local/bin/python3.12 /usr/local/bin/python3.13 \
        /opt/homebrew/bin/python3.12 /opt/homebrew/bin/python3.13 \
        /usr/bin/python3.12 /usr/bin/python3.13 /opt/python/3.1[23]*/bin/python3; do
        [ -x "$_pattern" ] && printf '%s\n' "$_pattern"
    done
    return 0
}

find_python() {
    candidates | while IFS= read -r _candidate; do
        if usable "$_candidate"; then
            return 0
        fi
    done
}

# Put uv under .uv with whatever way this Python has to install a package.
bring_uv() {
    if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
        command -v uv
        return 0
    fi
    for _uv in .uv/bin/uv .uv/lib/bin/uv; do
        if [ -x "$_uv" ] && "$_uv" --version >/dev/null 2>&1; then
            printf '%s\n' "$_uv"
            return 0
        fi
    done
    say "bringing uv into .uv"
    rm -rf .uv
    if "$1" -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip install --quiet uv >&2; then
        printf '%s\n' .uv/bin/uv
        return 0
    fi
    # Debian's python3 without python3-venv cannot make an environment; its pip may still install.
    rm -rf .uv
    if "$1" -m pip install --quiet --target .uv/lib uv >&2 && [ -x .uv/lib/bin/uv ]; then
        printf '%s\n' .uv/lib/bin/uv
        return 0
    fi
    say "cannot bring uv: $1 has neither venv nor pip, or the package registry is not reachable"
    say "on Debian or Ubuntu: apt install python3-venv; or put uv on PATH yourself"
    return 1
}

# With --bench what draws the report's plot comes too.
groups="" also=""
if [ "${1:-}" = --bench ]; then
    groups="--group bench" also=", matplotlib, duckdb"
fi

if [ "${1:-}" != --find ] && [ -f "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && [ ! uv.lock -nt "$stamp" ] &&
    [ ! "$marks" -nt "$stamp" ] && [ ! "$runs" -nt "$stamp" ] &&
    [ ! hatch_build.py -nt "$stamp" ] &&
    .venv/bin/python -I -c "import aesp_proxy$also" >/dev/null 2>&1; then
    exit 0
fi

python=$(find_python)
if [ -z "$python" ]; then
    say "no Python 3.12 or 3.13 found on PATH, under pyenv or under uv"
    say "install one (apt install python3.12, pyenv install 3.12, uv python install 3.12),"
    say "or name one: make setup PYTHON=/path/to/python3.12"
    exit 3
fi
if [ "${1:-}" = --find ]; then
    printf '%s\n' "$python"
    exit 0
fi
uv=$(bring_uv "$python")
say "$python, $("$uv" --version)"
# uv brings roots of its own. Where the registry is behind a root that only this machine
# trusts, the machine's are asked; where the machine has none, uv's are right: so uv's first.
# shellcheck disable=SC2086 # two words or none
install() { UV_PYTHON_DOWNLOADS=never "$uv" sync --frozen --quiet $groups --python "$python"; }
errors=$(install 2>&1) ||
    errors=$(UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 && export UV_SYSTEM_CERTS UV_NATIVE_TLS && install 2>&1) || {
    printf '%s\n' "$errors" >&2
    say "uv could not install what uv.lock names: see above; is the package registry reachable?"
    exit 4
}
.venv/bin/python -I -c 'import aesp_proxy, pytest'
.venv/bin/python -I -c 'from aesp_proxy.decide.secrets import _marks, _runs' 2>/dev/null ||
    say "no C compiler or no headers of Python: secrets are searched for by numpy and Hyperscan, more slowly"
: >"$stamp"
say "ready: .venv/bin/aesp-proxy"
