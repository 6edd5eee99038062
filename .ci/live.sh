#!/bin/sh
# The tests that need root, kernel features or Debian packages. As root on Debian it installs
# what they use; what is not there is skipped by the tests themselves, which print why.
set -eu
cd "$(dirname "$0")/.."

# The clients of docs/clients.md; Node and Java from Debian only where there are none.
clients="openssh-server rclone ruby libwww-perl liblwp-protocol-https-perl netcat-openbsd"
# The receiver of docs/siem.md.
clients="$clients rsyslog-gnutls"
# Copied by in live views and watched trees.
clients="$clients rsync"
# The object store of docs/aggregator.md: 61 MB to fetch.
clients="$clients radosgw ceph-mon ceph-osd"
# The database of docs/aggregator.md.
clients="$clients postgresql"
command -v npm >/dev/null 2>&1 || clients="$clients nodejs npm"
command -v javac >/dev/null 2>&1 || clients="$clients default-jdk-headless"
# shellcheck disable=SC2086 # a list of words
sh .ci/packages.sh $clients

modules="undici@6.29.1 proxy-agent@6.5.0"
if command -v npm >/dev/null 2>&1 && ! [ -d .cache/clients/node_modules/proxy-agent ]; then
    # shellcheck disable=SC2086 # a list of words
    timeout 120 npm install --prefix .cache/clients --no-save --no-package-lock --silent $modules ||
        echo "live: npm cannot install $modules" >&2
fi

# ClickHouse in a library (chdb) comes with what the benchmarks need: 200 MB.
sh .ci/setup.sh --bench || echo "live: cannot install the group bench" >&2

# Most of it waits: for networks, time-outs, processes that end. A file is one worker's.
exec .venv/bin/python -m pytest -q -ra -n 3 --dist=loadfile tests/live
