"""The intercepting proxy of ``@anthropic-ai/sandbox-runtime``, by the code its manager calls.

0.0.78 is the last that runs on Node 20, Debian's.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.peers import Running, Site, await_answer, end_group, fetched, free_port, spawn

PACKAGE = "@anthropic-ai/sandbox-runtime"
VERSION = "0.0.78"


def start(site: Site) -> Running:
    """Start it and wait for the first answer."""
    package = fetched.node_package(PACKAGE, VERSION, install=site.install)
    script = Path(__file__).with_suffix(".mjs")
    port = free_port()
    authority = site.folder / "sandbox-runtime-ca.pem"
    log = site.folder / "sandbox-runtime.log"
    began = time.monotonic()
    process = spawn(
        ["node", str(script), str(package), str(port), str(authority)],
        log=log,
        env={"NODE_EXTRA_CA_CERTS": str(site.ca_file)},
    )
    target = await_answer(
        process,
        log=log,
        port=port,
        host="localhost",
        origin_port=site.port,
        trust=lambda: (authority,),
    )
    return Running(
        name="sandbox-runtime",
        target=target,
        pid=process.pid,
        start_ms=(time.monotonic() - began) * 1000,
        stop=lambda: end_group(process),
        without={"HTTP/2": "it does not offer it", "frames": "it drops the upgrade"},
    )
