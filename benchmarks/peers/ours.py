"""This product as a user starts it: ``aesp-proxy run``, enforcing, scanning, recording.

Before it is measured it is asked for what it must refuse, and afterwards its
record is verified: a proxy that does not enforce must not be given a figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.harness import BenchError
from benchmarks.load import Stream, Target
from benchmarks.peers import AbsentError, Running, Site, await_answer, end_group, free_port, spawn

HOST = "bench.test"
STOP_S_MAX = 60.0
LEAKED = "gh" + "p_" + "x7Kq2Wm9Zt4Rb6Yn1Vc8Lp3Hd5Js0Fg2Ua4E"  # gitleaks:allow - made up
POLICY = """\
version: "1.2.0"
name: benchmark
guards:
  egress_allowlist:
    enabled: true
    allow: ["{host}"]
    default_action: block
  secret_leak:
    enabled: true
"""


def command() -> Path:
    """Return the console script of this environment."""
    program = Path(sys.executable).with_name("aesp-proxy")
    if not program.exists():
        message = f"{program} is not there"
        raise AbsentError(message)
    return program


def write_settings(site: Site, folder: Path) -> list[str]:
    """Write policy and configuration into the folder; return the options that name them."""
    folder.mkdir(exist_ok=True)
    policy, configuration = folder / "policy.yaml", folder / "config.yaml"
    policy.write_text(POLICY.format(host=HOST))
    settings = {
        "upstream": {"resolve": {HOST: f"127.0.0.1:{site.port}"}, "ca_file": str(site.ca_file)}
    }
    configuration.write_text(json.dumps(settings))  # JSON is YAML
    return [
        "--policy",
        str(policy),
        "--config",
        str(configuration),
        "--state",
        str(folder / "state"),
    ]


def start(site: Site, *, passing: bool = False) -> Running:
    """Start it and wait for the first answer; ``passing``: its TLS is not taken off."""
    command()
    folder = site.folder / "ours"
    options = write_settings(site, folder)
    port = free_port()
    log = folder / "run.log"
    began = time.monotonic()
    process = spawn(
        [
            sys.executable,
            "-m",
            "benchmarks.open_run",
            "run",
            "--allow-degraded",
            *options,
            "--listen",
            f"127.0.0.1:{port}",
            *(("--set", f"egress.passthrough={HOST}") if passing else ()),
            "--",
            sys.executable,
            "-m",
            "benchmarks.hold",
        ],
        log=log,
        stdin=subprocess.PIPE,
    )
    target = await_answer(
        process,
        log=log,
        port=port,
        host=HOST,
        origin_port=443,
        trust=lambda: (site.ca_file if passing else folder / "state" / "ca" / "ca-cert.pem",),
    )
    took_ms = (time.monotonic() - began) * 1000
    try:
        must_enforce(target, reads=not passing)
    except BaseException:
        _stop(process)
        raise
    return Running(
        name="ours",
        target=target,
        pid=process.pid,
        start_ms=took_ms,
        stop=lambda: _stop(process),
        besides=_agents,
    )


def must_enforce(target: Target, *, reads: bool) -> None:
    """Check that a host outside the policy is refused and, where it ``reads``, a leaked key."""
    stranger = Target(proxy=target.proxy, host="stranger.test", port=443, context=target.context)
    try:
        Stream(stranger).sock.close()
    except BenchError as error:
        if "403" not in str(error):
            raise
    else:
        message = "a host outside the policy was let pass: nothing to measure"
        raise BenchError(message)
    if not reads:
        return
    with Stream(target) as stream:
        stream.sock.sendall(
            b"GET /bytes/1024 HTTP/1.1\r\nHost: %b\r\nX-Token: %b\r\n\r\n"
            % (stream.host, LEAKED.encode())
        )
        head, _ = stream.head()
        if b" 403 " not in head.partition(b"\r\n")[0]:
            message = f"a leaked key was let pass: {head[:200]!r}"
            raise BenchError(message)


def record_fault(site: Site) -> str:
    """Verify the record of a run that has ended; return what is wrong with it, empty if nothing."""
    state = site.folder / "ours" / "state"
    done = subprocess.run(
        [command(), "audit", "verify", state],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    return f"the record does not verify: {done.stdout[-500:]}{done.stderr[-500:]}"


def run_nothing(site: Site) -> float:
    """Return the milliseconds that ``run -- /bin/true`` takes from start to end."""
    options = write_settings(site, site.folder / "nothing")
    began = time.monotonic()
    done = subprocess.run(
        [command(), "run", *options, "--", "/bin/true"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    took_ms = (time.monotonic() - began) * 1000
    if done.returncode:
        message = f"run /bin/true ended with {done.returncode}: {done.stderr[-500:]}"
        raise BenchError(message)
    return took_ms


def _agents(pids: list[int]) -> list[int]:
    return [pid for pid in pids if "benchmarks.hold" in machine.command_line(pid).split()[-2:]]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the agent end, which ends the run, its worker and its sealer."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        end_group(process)
