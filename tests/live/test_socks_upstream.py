"""A real SOCKS5 server as the corporate proxy: stock mitmdump, which passes TLS through."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from egress_lab import POLICY, Proxy, read_answer, start

from aesp_proxy.daemon.config_upstream import Upstream
from aesp_proxy.daemon.reaching import way_out
from aesp_proxy.intercept.egress.corporate import CorporateProxy

__all__ = ["start"]

MITMDUMP = Path(sys.executable).with_name("mitmdump")
ANY_PORT = POLICY.replace('"allowed.test"', '"allowed.test:*", "localhost:*", "127.0.0.0/8:*"')


@pytest.fixture
def socks(tmp_path: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    words = [str(MITMDUMP), "-q", "--mode", f"socks5@{port}", "--listen-host", "127.0.0.1"]
    words += ["--ignore-hosts", ".*", "--set", "proxyauth=alice:hunter2"]
    words += ["--set", f"confdir={tmp_path}"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=dict(os.environ))
    try:
        deadline, pause = time.monotonic() + 60, threading.Event()
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (tmp_path / "out").read_text()
            assert time.monotonic() < deadline, "mitmdump never listened"
            pause.wait(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def led(
    start: Callable[..., Proxy], socks: int, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Proxy]:
    # Loopback is the internet here.
    monkeypatch.setattr(CorporateProxy, "leads_to", lambda *_: True)

    def begin(scheme: str, login: str) -> Proxy:
        async def lookup(name: str) -> tuple[IPv4Address, ...]:
            del name
            return (ip_address("127.0.0.1"),)  # type: ignore[return-value]

        way = way_out(Upstream(proxy=f"{scheme}://{login}127.0.0.1:{socks}"))
        proxy = start(ANY_PORT, corporate=way, lookup=lookup)
        proxy.interceptor._settings.static.clear()
        return proxy

    return begin


def ask(proxy: Proxy, host: str) -> bytes:
    port = proxy.origin.tls_port
    sock, answer = proxy.connect(f"{host}:{port}")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with context.wrap_socket(sock, server_hostname=host) as tls:
        tls.sendall(f"GET /x HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return read_answer(tls)


@pytest.mark.parametrize(("scheme", "host"), [("socks5", "allowed.test"), ("socks5h", "localhost")])
def test_hosts_are_reached_through_it_with_a_login(led, scheme, host):
    assert ask(led(scheme, "alice:hunter2@"), host).endswith(b"0 bytes")


@pytest.mark.parametrize(
    ("login", "says"), [("", "wants credentials"), ("alice:wrong@", "does not take")]
)
def test_without_the_right_login_it_is_a_failed_upstream(led, login, says):
    answer = ask(led("socks5", login), "allowed.test")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert f"the corporate proxy {says}".encode() in answer
