"""``aesp-proxy run`` without walls around the command, for the clients that measure it.

They are outside, and inside is where the proxy listens otherwise. What is measured is the
proxy; what the walls cost at the start, ``run -- /bin/true`` as it is shows.
"""

from __future__ import annotations

import sys

from aesp_proxy.cli import main, walls


def run() -> None:
    """Do as ``aesp-proxy`` with these arguments."""
    walls.EVERYTHING = ()
    main.main(sys.argv[1:])


if __name__ == "__main__":
    run()
