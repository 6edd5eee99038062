"""Names under ``run``: the command's C library asks our resolver, whatever it is configured for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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


def test_the_command_resolves_what_the_policy_allows_and_nothing_else_leaves(dns_lab, tmp_path):
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user and network namespaces here")
    lab: DnsLab = dns_lab()
    lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
    lab.upstream.say("bad.sub.test", "A", ["bad.sub.test. 60 IN A 10.0.0.1"])
    policy, state = tmp_path / "policy.yaml", tmp_path / "state"
    policy.write_text(POLICY, "utf-8")
    words = ["run", "--state", str(state), "--policy", str(policy), "--"]
    ran = subprocess.run(
        [str(PROGRAM), *words, sys.executable, "-I", "-c", COMMAND],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"AESP_RESOLVER_UPSTREAMS": "{}:{}".format(*lab.server)},
    )
    assert ran.stdout.splitlines() == [PUBLIC, "True", "True"], ran.stderr
    assert lab.upstream.names() == {"allowed.test", "bad.sub.test"}
    tail = [str(PROGRAM), "audit", "tail", "--state", str(state), "--json", "-n", "100"]
    told = subprocess.run(tail, capture_output=True, text=True, check=True, timeout=60).stdout
    records = [json.loads(line) for line in told.splitlines()]
    found = {(r.get("action"), r.get("target_host"), r.get("reason")) for r in records}
    for wanted in (
        ("dns.query", "allowed.test", "allowed"),
        ("dns.query", "bad.sub.test", "address_forbidden"),
        ("dns.query", "evil.example", "host_not_allowed"),
    ):
        assert wanted in found, records
