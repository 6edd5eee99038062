#!/bin/sh
# The tests that need root, kernel features or Debian packages. As root on Debian it installs
# what they use; what is not there is skipped by the tests themselves, which print why.
set -eu
cd "$(dirname "$0")/.."

sh .ci/packages.sh
exec .venv/bin/python -m pytest -q -ra tests/live
