"""IPv6 is the same as IPv4: decided by its one spelling, connected to where an entry names it."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest
from asgi_origin import AsgiOrigin
from egress_lab import NOW, Proxy

from aesp_proxy.keys import Purpose, issue_leaf

CURL = shutil.which("curl")
POLICY = """
version: "1.2.0"
name: six
guards:
  egress_allowlist: {{enabled: true, allow: ["[::1]:{port}"], default_action: block}}
"""


def _curl(proxy: Proxy, url: str) -> subprocess.CompletedProcess[bytes]:
    words = [str(CURL), "-sS", "-x", proxy.url, "--cacert", str(proxy.ca_file), "-m", "20", url]
    return subprocess.run(words, capture_output=True, check=False, timeout=30)


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_connected_to_where_an_entry_names_it(start, tmp_path):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        proxy = start(POLICY.format(port=port))
        leaf = tmp_path / "leaf.pem"
        names = issue_leaf(proxy.origin.ca, ["::1"], purpose=Purpose.SERVER, now=NOW, days=2)
        leaf.write_bytes(b"".join(names))
        origin = AsgiOrigin(leaf, listening)
        try:
            for spelled in ("::1", "0:0:0:0:0:0:0:1", "0000::0001"):
                assert _curl(proxy, f"https://[{spelled}]:{port}/x").stdout == b"0 bytes"
            assert b"response 403" in _curl(proxy, f"https://[::2]:{port}/x").stderr
            assert b"response 403" in _curl(proxy, f"https://[::1]:{port + 1}/x").stderr
        finally:
            origin.stop()
    outcomes = [r for r in proxy.journal.records if r.upstream_address]
    assert {r.upstream_address for r in outcomes} == {f"[::1]:{port}"}
