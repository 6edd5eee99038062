"""ClickHouse's HTTP interface, emulated: requests are checked, and ``chdb`` does what they say.

It is not the server: users, quotas, replicas and the wire of a real one are not here. What
is: parameters in their escaped form, settings that are known, basic authentication, error
codes in ``X-ClickHouse-Exception-Code``, and that no two queries of one name run at once.
``faults`` lists what happens to the next inserts: ``before`` (the connection ends and
nothing was done), ``after`` (done, and then it ends), ``busy`` (one of that name runs).
"""

from __future__ import annotations

import os
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aesp_proxy import keys

USER, PASSWORD = "aesp", "pass:wörd"
_SETTINGS = {
    "max_execution_time",
    "max_threads",
    "max_insert_threads",
    "output_format_json_quote_64bit_integers",
}
_OTHERS = {"database", "query", "query_id", "default_format", "wait_end_of_query"}


class Emulator(ThreadingHTTPServer):
    """The server; ``session`` makes a session of chdb."""

    daemon_threads = True

    def __init__(self, session: Any, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.session = session
        self.faults: list[str] = []
        self.seen: list[dict[str, str]] = []
        self.running: set[str] = set()
        self.scheme = "http"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is part of a test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Emulator

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        statement = asked.get("query") or body.decode()
        self.server.seen.append(asked | {"statement": statement})
        expected = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self._answer(403, b"Code: 516. DB::Exception: no", code=516)
            return
        unknown = {
            name
            for name in asked
            if name not in _SETTINGS | _OTHERS and not name.startswith("param_")
        }
        if unknown or asked.get("wait_end_of_query") != "1":
            self._answer(404, b"Code: 115. DB::Exception: unknown setting", code=115)
            return
        fault = self.server.faults.pop(0) if "query" in asked and self.server.faults else ""
        if fault == "before":
            self.close_connection = True
            return
        name = asked.get("query_id", "")
        if fault == "busy" or name in self.server.running:
            self._answer(500, b"Code: 216. DB::Exception: running", code=216)
            return
        self.server.running |= {name} - {""}
        try:
            data = self._run(asked, body)
        except RuntimeError as error:
            code = str(error).removeprefix("Code: ").partition(".")[0]
            self._answer(500, str(error).encode(), code=int(code))
            return
        finally:
            self.server.running.discard(name)
        if fault == "after":
            self.close_connection = True
            return
        self._answer(200, data)

    def _run(self, asked: dict[str, str], body: bytes) -> bytes:
        values = {n.removeprefix("param_"): v for n, v in asked.items() if n.startswith("param_")}
        settings = [f"{name} = {asked[name]}" for name in sorted(_SETTINGS & asked.keys())]
        ending = f" SETTINGS {', '.join(settings)}" if settings else ""
        form = asked.get("default_format", "Null")
        if "query" not in asked:
            return self._query(body.decode() + ending, form, values)
        text = asked["query"]
        assert text.endswith(" FORMAT Native")
        descriptor = os.memfd_create("body")
        try:
            os.write(descriptor, body)
            head, rest = text.removesuffix(" FORMAT Native").split("input(")
            read = f"file('/proc/self/fd/{descriptor}', 'Native', "
            return self._query(head + read + rest + ending, form, values)
        finally:
            os.close(descriptor)

    def _query(self, text: str, form: str, values: dict[str, str]) -> bytes:
        with self.server.session() as session:
            return bytes(session.query(text, form, params=values or None).bytes() or b"")

    def _answer(self, status: int, data: bytes, *, code: int = 0) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def emulated(session: Any, context: ssl.SSLContext | None = None) -> Iterator[Emulator]:
    """Run it."""
    server = Emulator(session, context)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def server_tls(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make an authority and a server's certificate; return the roots' file and the context."""
    now = datetime.now(UTC)
    certificate, key = keys.make_ca("emulated", now=now)
    authority = keys.KeyPair(cert_pem=certificate, key_pem=key)
    leaf = keys.issue_leaf(authority, ["127.0.0.1"], purpose=keys.Purpose.SERVER, now=now, days=1)
    (folder / "roots.pem").write_bytes(certificate)
    (folder / "server.pem").write_bytes(b"".join(reversed(leaf)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "roots.pem", context
