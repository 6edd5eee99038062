"""What this machine allows ``run`` to do, found out by trying, once."""

from __future__ import annotations

import os
from functools import cache

from aesp_proxy.launch.child import Child
from aesp_proxy.launch.isolation.layers import EVERYTHING, Report
from aesp_proxy.launch.isolation.wish import Wish


@cache
def probe() -> Report:
    """Try every layer around a command that is never let go."""
    child = Child(["true"], os.environ, Wish(layers=EVERYTHING, transparent=True, dns=True))
    prepared = child.prepare()
    child.discard()
    prepared.close()
    return prepared.report


def run_options() -> tuple[str, ...]:
    """Return what ``run`` needs to start here: nothing, or the leave to go on degraded."""
    return ("--allow-degraded",) if probe().missing() else ()
