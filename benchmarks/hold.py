"""The agent of the egress benchmark: it does nothing until its standard input is closed."""

from __future__ import annotations

import os


def main() -> int:
    """Wait without using the processor."""
    while os.read(0, 4096):
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
