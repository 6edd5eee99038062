"""HTTP/2 by independent programs: Node (nghttp2) as client, nginx and Node as servers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from egress_lab import CANARY, Proxy

from aesp_proxy.intercept.egress.dialler import StaticAddress

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
NGINX, NODE = (shutil.which(name, path=PATH) for name in ("nginx", "node"))
with_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
PROGRAMS = Path(__file__).parents[1] / "clients"
CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format told '$server_protocol $request_method $status $request_uri';
    access_log {folder}/told told;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {leaf};
        ssl_certificate_key {leaf};
        add_header Alt-Svc 'h3=":443"';
        root {folder};
        location = /two {{ return 200 "taken"; }}
    }}
}}
"""


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    running = Proxy(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def _lead(proxy: Proxy, port: int) -> None:
    place = StaticAddress(address="127.0.0.1", port=port)
    proxy.interceptor._settings.static["allowed.test", None] = place


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline, pause = time.monotonic() + 20, threading.Event()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it never listened"
        pause.wait(0.02)


@pytest.fixture
def nginx(proxy: Proxy, tmp_path: Path) -> Iterator[Path]:
    """An nginx that speaks HTTP/2 behind allowed.test; its folder."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path / "nginx"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(65_536) * 800)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    leaf = proxy.directory / "leaf.pem"
    text = CONFIGURATION.format(folder=folder, port=port, leaf=leaf)
    (folder / "nginx.conf").write_text(text)
    words = [NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(words)
    try:
        _await(process, port)
        _lead(proxy, port)
        yield folder
    finally:
        process.terminate()
        process.wait(20)


def _node(proxy: Proxy, url: str) -> subprocess.CompletedProcess[bytes]:
    words = [str(NODE), str(PROGRAMS / "http2.mjs"), str(proxy.port), str(proxy.ca_file), url]
    return subprocess.run(words, capture_output=True, check=False, timeout=60)


@with_node
def test_a_large_download_passes_from_nginx_to_node_over_http_2(proxy: Proxy, nginx: Path) -> None:
    said = _node(proxy, "https://allowed.test/big")
    whole = hashlib.sha256((nginx / "big").read_bytes()).hexdigest()
    assert said.stdout.decode() == f"200 {whole}\n", said.stderr
    assert (nginx / "told").read_text().startswith("HTTP/2.0 GET 200")


@with_node
def test_a_refused_call_leaves_the_connection_to_the_others(proxy: Proxy, nginx: Path) -> None:
    said = _node(proxy, "https://allowed.test/one?key=" + CANARY.decode())
    assert said.stdout.decode() == "403 secret_found\n200 taken\n", said.stderr
    assert "CORP" not in (nginx / "told").read_text()
    refused = _node(proxy, "https://evil.test/x")
    assert b"HTTP/1.1 403 Forbidden (AESP Proxy: host_blocked)" in refused.stderr


@pytest.fixture
def node_origin(proxy: Proxy) -> Iterator[None]:
    words = [NODE, str(PROGRAMS / "http2_origin.mjs"), str(proxy.directory / "leaf.pem")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            _lead(proxy, int(process.stdout.readline()))
            yield
        finally:
            process.terminate()


@with_node
@pytest.mark.usefixtures("node_origin")
def test_ten_calls_at_once_pass_from_node_to_node_over_http_2_with_their_trailers(
    proxy: Proxy,
) -> None:
    said = _node(proxy, "https://allowed.test/x")
    counts = [number * 100_000 for number in range(10)]
    lines = [f"200 {count} {count}" for count in counts]
    assert said.stdout.decode().splitlines() == lines, said.stderr
    proxy.wait_for(
        lambda: sum(r.kind == "outcome" for r in proxy.journal.records) >= 10, "ten outcomes"
    )
