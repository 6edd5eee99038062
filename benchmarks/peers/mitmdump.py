"""Stock ``mitmdump -q`` of the pinned mitmproxy, with nothing on."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.peers import AbsentError, Running, Site, await_answer, end_group, free_port, spawn


def start(site: Site, *, passing: bool = False) -> Running:
    """Start it and wait for the first answer; ``passing``: as a tunnel that reads nothing."""
    program = Path(sys.executable).with_name("mitmdump")
    if not program.exists():
        message = f"{program} is not there"
        raise AbsentError(message)
    port = free_port()
    log = site.folder / "mitmdump.log"
    own = site.folder / "mitmdump" / "mitmproxy-ca-cert.pem"
    authority = site.ca_file if passing else own
    began = time.monotonic()
    process = spawn(
        [
            str(program),
            "-q",
            *("--listen-host", "127.0.0.1", "--listen-port", str(port)),
            *("--set", f"confdir={site.folder / 'mitmdump'}"),
            *("--set", f"ssl_verify_upstream_trusted_ca={site.ca_file}"),
            *(("--ignore-hosts", ".*") if passing else ()),
        ],
        log=log,
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
        name="mitmdump",
        target=target,
        pid=process.pid,
        start_ms=(time.monotonic() - began) * 1000,
        stop=lambda: end_group(process),
    )
