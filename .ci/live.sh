#!/bin/sh
# The tests that need root, kernel features or Debian packages. As root on Debian it installs
# what they use; what is not there is skipped by the tests themselves, which print why.
set -eu
cd "$(dirname "$0")/.."

packages="squid-openssl curl git wget openssl ca-certificates systemd strace nftables iproute2"

if [ "$(id -u)" -ne 0 ]; then
    echo "live: not root: nothing is installed, and what needs root is skipped" >&2
elif ! command -v apt-get >/dev/null 2>&1; then
    echo "live: no apt-get here: nothing is installed" >&2
else
    missing=""
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        echo "live: installing$missing" >&2
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of words
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing; } \
            >/dev/null || echo "live: apt-get failed; going on without$missing" >&2
    fi
fi

exec .venv/bin/python -m pytest -q -ra tests/live
