#!/bin/sh
# Install, as root on Debian, what the live and long tests use and Python's registry has not,
# and the packages that are named.
# What is not there afterwards is skipped by the tests themselves, which print why.
set -eu

packages="squid-openssl nginx curl git wget openssl ca-certificates systemd strace nftables iproute2 $*"

if [ "$(id -u)" -ne 0 ]; then
    echo "packages: not root: nothing is installed, and what needs it is skipped" >&2
    exit 0
elif ! command -v apt-get >/dev/null 2>&1; then
    echo "packages: no apt-get here: nothing is installed" >&2
    exit 0
fi
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "packages: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
{ apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing; } \
    >/dev/null || echo "packages: apt-get failed; going on without$missing" >&2
