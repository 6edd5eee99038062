"""Names under ``run``: the command's C library asks our resolver, whatever it is configured for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dns_lab import PUBLIC, DnsLab, dns_lab

__all__ = ["dns_lab"]

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """
version: "1.2.0"
name: test
guards:
  egress_allowlist:
    enabled: true
    allow: ["allowed.test", "*.sub.test"]
    default_action: block
"""
COMMAND = """
import socket
for name in ("allowed.test", "bad.sub.test", "evil.example"):
    try:
        print(socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as error:
        print(error.errno == socket.EAI_NONAME)
"""


def run(tmp_path: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python code under enforcement; skips, saying why, where a network cannot be made."""
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user and network namespaces here")
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY, "utf-8")
    words = ["run", "--state", str(tmp_path / "state"), "--policy", str(policy), "--"]
    return subprocess.run(
        [str(PROGRAM), *words, sys.executable, "-I", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | variables,
    )


def test_the_command_resolves_what_the_policy_allows_and_nothing_else_leaves(dns_lab, tmp_path):
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    lab.upstream.say("bad.sub.test", "A", ["bad.sub.test. 60 IN A 10.0.0.1"])
    ran = run(tmp_path, COMMAND, AESP_RESOLVER_UPSTREAMS="{}:{}".format(*lab.server))
    assert ran.stdout.splitlines() == [PUBLIC, "True", "True"], ran.stderr
    assert lab.upstream.names() == {"allowed.test", "bad.sub.test"}
    tail = [
        str(PROGRAM),
        "audit",
        "tail",
        "--state",
        str(tmp_path / "state"),
        "--json",
        "-n",
        "100",
    ]
    told = subprocess.run(tail, capture_output=True, text=True, check=True, timeout=60).stdout
    records = [json.loads(line) for line in told.splitlines()]
    found = {(r.get("action"), r.get("target_host"), r.get("reason")) for r in records}
    for wanted in (
        ("dns.query", "allowed.test", "allowed"),
        ("dns.query", "bad.sub.test", "address_forbidden"),
        ("dns.query", "evil.example", "host_not_allowed"),
    ):
        assert wanted in found, records


FETCH = """
import urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open("http://allowed.test/", timeout=10).read().decode())
"""


def test_a_program_that_knows_no_proxy_reaches_an_allowed_name_by_the_answer_it_was_given(tmp_path):
    class Origin(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Host"].encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            target = f"allowed.test=127.0.0.1:{server.server_port}"
            ran = run(tmp_path, FETCH, AESP_UPSTREAM_RESOLVE=target)
        finally:
            server.shutdown()
            serving.join()
    assert ran.stdout.strip() == "allowed.test", ran.stderr
