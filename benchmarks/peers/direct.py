"""No proxy at all: what the origin and this client can do."""

from __future__ import annotations

from benchmarks.load import Target, trusting
from benchmarks.peers import Running, Site


def start(site: Site) -> Running:
    """Return the way straight to the origin."""
    target = Target(
        proxy=None,
        host="localhost",
        port=site.port,
        context=trusting(site.ca_file),
        roots=(site.ca_file,),
    )
    return Running(name="direct", target=target, pid=None)
