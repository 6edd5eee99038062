"""A real nginx as a reader of HTTP/1: it says in its log what it found in a stream."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from http_readers import End, Reading, Request

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
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
    log_format reading escape=json '{{"status":"$status","method":"$request_method",'
        '"target":"$request_uri","host":"$http_host","body":"$request_body"}}';
    access_log off;
    lingering_close off;
    client_body_buffer_size 128k;
    client_body_in_single_buffer on;
    large_client_header_buffers 4 64k;
    upstream sink {{ server unix:{folder}/sink; keepalive 4; }}
    server {{
        listen unix:{folder}/sink;
        return 204;
    }}
    server {{
        listen 127.0.0.1:{port};
        access_log {folder}/access.log reading;
        location / {{
            proxy_pass http://sink/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ignore_client_abort on;
        }}
    }}
}}
"""
_REFUSALS = frozenset(("400", "405", "408", "411", "413", "414", "417", "494", "501", "505"))


class Nginx:
    """Reads streams, one after another."""

    def __init__(self, folder: Path, port: int) -> None:
        self._port = port
        self._told = (folder / "access.log").open("rb")
        self._errors = (folder / "error.log").open("rb")
        self._reading()

    def close(self) -> None:
        """Close its logs."""
        self._told.close()
        self._errors.close()

    def read(self, data: bytes) -> Reading:
        """Send a stream, half-close, and read what nginx says of it."""
        with socket.create_connection(("127.0.0.1", self._port), 10) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while sock.recv(65_536):
                    pass
        return self._reading()

    def _reading(self) -> Reading:
        errors = self._errors.read()
        found, end = [], End.CLEAN
        for line in self._told.read().splitlines():
            told = json.loads(line.decode("latin-1"))
            if told["status"] in _REFUSALS:
                end = End.CUT if b"prematurely closed" in errors else End.REFUSED
                break
            words = (told[name].encode("latin-1") for name in ("method", "target", "host", "body"))
            found.append(Request(*words))
        if end is End.CLEAN and b"prematurely closed" in errors:
            end = End.CUT
        if end is End.CLEAN and found and b"closed keepalive connection" not in errors:
            end = End.CLOSED
        return Reading(tuple(found), end, errors.decode("latin-1"))


@contextlib.contextmanager
def nginx() -> Iterator[Nginx]:
    """Run one on loopback, without privileges."""
    assert NGINX is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port))
        drop = {"user": 65_534, "group": 65_534, "extra_groups": ()} if not os.getuid() else {}
        if drop:
            os.chown(folder, 65_534, 65_534)
        words = [NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        process = subprocess.Popen(words, **drop)  # type: ignore[call-overload]
        try:
            _await(process, port)
            reader = Nginx(folder, port)
            try:
                yield reader
            finally:
                reader.close()
        finally:
            process.terminate()
            process.wait(20)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline, pause = time.monotonic() + 20, threading.Event()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "nginx ended"
        assert time.monotonic() < deadline, "nginx never listened"
        pause.wait(0.02)
