"""A small internet on loopback for the demo: four hosts behind one TLS listener.

``api.example-llm.test`` answers like a language model (JSON, or a stream of
events), ``files.example.test`` takes uploads, ``git.example.test`` serves a
repository, ``evil.example.test`` collects what it can get. It remembers all that
arrived, so that the demo can show what did not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import override

from aesp_proxy.keys import KeyPair, Purpose, issue_leaf, make_ca

LLM = "api.example-llm.test"
FILES = "files.example.test"
GIT = "git.example.test"
EVIL = "evil.example.test"
HOSTS = (LLM, FILES, GIT, EVIL)
EVENT_EVERY_S = 0.15
WORDS = ("The", "tests", "pass", "and", "the", "record", "holds", ".")
DAYS = 2

type Address = tuple[str, int]


@dataclass(slots=True)
class Arrival:
    """What reached one of the hosts: the head as text, the bytes of the body that came."""

    host: str
    line: str
    head: str
    body: bytearray = field(default_factory=bytearray)

    def holds(self, secret: str) -> bool:
        """Whether the secret is anywhere in what arrived."""
        return secret in self.line or secret in self.head or secret.encode() in self.body


class Internet:
    """The listener, its authority and its memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrivals: list[Arrival] = []
        now = datetime.now(UTC)
        cert_pem, key_pem = make_ca("Demo internet CA", now=now, days=DAYS)
        authority = KeyPair(cert_pem=cert_pem, key_pem=key_pem)
        leaf = issue_leaf(authority, HOSTS, purpose=Purpose.SERVER, now=now, days=DAYS)
        self.ca_file = folder / "internet-ca.pem"
        self.ca_file.write_bytes(authority.cert_pem)
        leaf_file = folder / "internet-leaf.pem"
        leaf_file.touch(mode=0o600)
        leaf_file.write_bytes(b"".join(leaf))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf_file)
        self.server = _Server(("127.0.0.1", 0), _Handler, internet=self, context=context)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.server_address[1]}"

    def start(self) -> None:
        """Serve in the background."""
        self.thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def reached(self, host: str, path: str = "") -> list[Arrival]:
        """Return what reached a host, below a path."""
        return [
            arrival
            for arrival in self.arrivals
            if arrival.host == host and arrival.line.split(" ")[1].startswith(path)
        ]

    def make_repository(self) -> bool:
        """Make a bare repository to clone; False where git is not installed."""
        git = shutil.which("git")
        if git is None:
            return False
        work, bare = self.folder / "work", self.folder / "www" / "demo.git"
        work.mkdir()
        (work / "README").write_text("A repository for the demo.\n")
        who = ("-c", "user.name=Demo", "-c", "user.email=demo@example.test")
        for command in (
            ("init", "-q", "-b", "main", str(work)),
            ("-C", str(work), "add", "README"),
            ("-C", str(work), *who, "commit", "-q", "-m", "Say what this is"),
            ("clone", "-q", "--bare", str(work), str(bare)),
            ("-C", str(bare), "update-server-info"),
        ):
            subprocess.run([git, *command], check=True, env=quiet_git(), capture_output=True)
        return True


def quiet_git() -> dict[str, str]:
    """Return an environment in which nobody's git configuration counts."""
    path = os.environ.get("PATH", "")
    return {"PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


class _Server(ThreadingHTTPServer):
    """TLS on each connection, in the connection's own thread."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        *,
        internet: Internet,
        context: ssl.SSLContext,
    ) -> None:
        self.internet = internet
        self.context = context
        super().__init__(address, handler)

    @override
    def finish_request(self, request: socket.socket, client_address: Address) -> None:
        wrapped = self.context.wrap_socket(request, server_side=True)
        super().finish_request(wrapped, client_address)

    @override
    def handle_error(self, request: socket.socket, client_address: Address) -> None:
        """A connection that ends early is what the demo is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    @override
    def log_message(self, *_: object) -> None:
        """Say nothing: the demo tells what arrived."""

    def do_GET(self) -> None:
        arrival = self._arrival()
        match arrival.host:
            case host if host == GIT:
                self._file()
            case _:
                self._json({"host": arrival.host, "path": self.path})

    def do_POST(self) -> None:
        arrival = self._arrival()
        self._read_body(arrival)
        if arrival.host != LLM:
            self._json({"received_bytes": len(arrival.body)})
        elif json.loads(arrival.body).get("stream"):
            self._events()
        else:
            self._json({"content": " ".join(WORDS), "model": "demo"})

    do_PUT = do_POST  # noqa: N815 -- the name that http.server calls

    def _arrival(self) -> Arrival:
        host = self.headers.get("Host", "").partition(":")[0]
        arrival = Arrival(host, self.requestline, str(self.headers))
        self.server.internet.arrivals.append(arrival)
        return arrival

    def _read_body(self, arrival: Arrival) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                self._read_some(arrival, size)
                self.rfile.readline()
            self.rfile.readline()
            return
        self._read_some(arrival, int(self.headers.get("Content-Length", "0")))

    def _read_some(self, arrival: Arrival, count: int) -> None:
        while count > 0:
            data = self.rfile.read1(min(count, 1 << 16))
            if not data:
                self.close_connection = True
                raise ConnectionAbortedError
            arrival.body += data
            count -= len(data)

    def _json(self, value: object) -> None:
        self._send("application/json", json.dumps(value).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self) -> None:
        root = (self.server.internet.folder / "www").resolve()
        path = (root / self.path.partition("?")[0].lstrip("/")).resolve()
        if path.is_relative_to(root) and path.is_file():
            self._send("text/plain", path.read_bytes())
        else:
            self.send_error(404)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in WORDS:
            self.wfile.write(b"data: " + json.dumps({"word": word}).encode() + b"\n\n")
            self.wfile.flush()
            time.sleep(EVENT_EVERY_S)
        self.close_connection = True
