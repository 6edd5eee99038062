"""proxy.py with TLS interception: one acceptor, one worker, no plugin but what that needs."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.certificates import write_authority
from benchmarks.peers import Running, Site, await_answer, end_group, fetched, free_port, spawn

REQUIREMENT = "proxy.py==2.4.10"


def start(site: Site) -> Running:
    """Start it and wait for the first answer."""
    program = fetched.python_program("proxy", REQUIREMENT, install=site.install)
    folder = site.folder / "proxy_py"
    folder.mkdir()
    certificate, key = write_authority(folder, "proxy.py benchmark CA")
    signing = _signing_key(folder)
    port = free_port()
    log = folder / "proxy.log"
    began = time.monotonic()
    process = spawn(
        [
            str(program),
            *("--hostname", "127.0.0.1", "--port", str(port)),
            *("--num-acceptors", "1", "--num-workers", "1", "--log-level", "ERROR"),
            *("--ca-cert-file", str(certificate), "--ca-key-file", str(key)),
            *("--ca-signing-key-file", str(signing), "--ca-cert-dir", str(folder / "leaves")),
            *("--ca-file", str(site.ca_file), "--data-dir", str(folder / "data")),
        ],
        log=log,
    )
    target = await_answer(
        process,
        log=log,
        port=port,
        host="localhost",
        origin_port=site.port,
        trust=lambda: (certificate,),
    )
    return Running(
        name="proxy.py",
        target=target,
        pid=process.pid,
        start_ms=(time.monotonic() - began) * 1000,
        stop=lambda: end_group(process),
        without={"HTTP/2": "it does not offer it", "bodies": "100 MB stand still"},
    )


def _signing_key(folder: Path) -> Path:
    """Make the key that all of its leaves share; EC, like everybody's here."""
    path = folder / "signing-key.pem"
    words = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run([*words, "-out", str(path)], check=True, capture_output=True)
    return path
