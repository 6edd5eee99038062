"""The servers that the tool chains talk to: pages, a git host, registries, WebSocket, gRPC.

All on loopback, behind one certificate for ``*.open.example`` whose root only the
proxy is told of. A real ``git http-backend``, a real wheel, a real npm tarball: what a
client does with them is what it does on the internet.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import ssl
import subprocess
import tarfile
import threading
import zipfile
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from aesp_proxy import keys

if TYPE_CHECKING:
    import grpc
    from websockets.sync.server import ServerConnection

ANSWER = "the origin's own words"
DOMAIN = "open.example"
CALLER = f"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<GetCallerIdentityResult><Arn>{ANSWER}</Arn><UserId>1</UserId><Account>1</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""
_CHUNK_END = b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the servers listen on 127.0.0.1, by what they speak.

    ``roots`` is the file of the root that they answer for; ``paths`` what HTTP was asked for.
    """

    ports: dict[str, int]
    roots: Path
    paths: list[str]


@contextmanager
def origin(folder: Path, servers: Collection[str]) -> Iterator[Origin]:
    """Run those of ``http``, ``plain``, ``websocket`` and ``grpc`` while the block runs."""
    leaf, roots = _certificates(folder)
    _repository(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf)
    paths: list[str] = []
    begin = {
        "http": lambda: _pages(folder, paths, context),
        "plain": lambda: _pages(folder, paths, None),
        "websocket": lambda: _websocket(context),
        "grpc": lambda: _grpc(leaf),
    }
    with ExitStack() as stack:
        ports = {name: stack.enter_context(begin[name]()) for name in sorted(servers)}
        yield Origin(ports=ports, roots=roots, paths=paths)


def _certificates(folder: Path) -> tuple[Path, Path]:
    now = datetime.now(UTC)
    root_cert, root_key = keys.make_ca("the internet's roots", now=now)
    pair = keys.KeyPair(cert_pem=root_cert, key_pem=root_key)
    names = [f"*.{DOMAIN}"]
    cert, key = keys.issue_leaf(pair, names, purpose=keys.Purpose.SERVER, now=now, days=1)
    leaf, roots = folder / "leaf.pem", folder / "roots.pem"
    leaf.write_bytes(key + cert)
    roots.write_bytes(root_cert)
    return leaf, roots


# pages, git, registries -------------------------------------------------------------


@contextmanager
def _pages(folder: Path, paths: list[str], context: ssl.SSLContext | None) -> Iterator[int]:
    class Pages(_Pages):
        projects = folder
        asked = paths

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request, client_address):
            if context is None:
                super().finish_request(request, client_address)
                return
            # In the connection's own thread: one that is slow to shake hands stops no other.
            with context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)

        def handle_error(self, *_: object) -> None:
            pass  # a client that goes away half way is not the origin's failure

    server = Server(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    projects: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if ".git/" in self.path:
            self._git(b"")
            return
        self._send(*self._page(self.path.partition("?")[0]))

    def _send(self, content_type: str, body: bytes) -> None:
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Tue, 14 Jan 2025 10:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        self.asked.append(self.path)
        body = self._body()
        if self.path.startswith("/aws"):
            self._send("text/xml", CALLER.encode())
        else:
            self._git(body)

    def _page(self, path: str) -> tuple[str, bytes]:
        host = self.headers["Host"]
        match path:
            case "/answer":
                return "text/plain", ANSWER.encode()
            case "/simple/tinypack/":
                link = f'<a href="/files/{WHEEL_NAME}">{WHEEL_NAME}</a>'
                return "text/html", f"<!doctype html><html><body>{link}</body></html>".encode()
            case _ if path == f"/files/{WHEEL_NAME}":
                return "application/octet-stream", wheel()
            case "/npm/tinypack":
                return "application/json", json.dumps(packument(f"https://{host}/npm")).encode()
            case "/npm/tinypack/-/tinypack-1.0.0.tgz":
                return "application/octet-stream", npm_tarball()
            case "/cargo/config.json":
                places = {"dl": f"https://{host}/cargo/dl", "api": f"https://{host}/cargo"}
                return "application/json", json.dumps(places).encode()
            case "/cargo/api/v1/crates":
                found = {"name": "tinypack", "max_version": "1.0.0", "description": ANSWER}
                answer = {"crates": [found], "meta": {"total": 1}}
                return "application/json", json.dumps(answer).encode()
        return "text/plain", b""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() != _CHUNK_END:
            pass
        return body

    def _git(self, body: bytes) -> None:
        """Answer by git-http-backend(1), as a web server would."""
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.projects),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(self.projects),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "agent",
        }
        ran = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
        )
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _repository(folder: Path) -> None:
    """Make a bare repository with one commit, which anybody may push to."""
    bare = folder / "repository.git"
    git = ["git", "-c", "init.defaultBranch=main", "-c", "user.name=lab", "-c", "user.email=l@b"]
    work = folder / "seed"
    for words in (
        ["init", "-q", "--bare", str(bare)],
        ["-C", str(bare), "config", "http.receivepack", "true"],
        ["init", "-q", str(work)],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (work / "README").write_text(f"{ANSWER}\n")
    for words in (["add", "README"], ["commit", "-q", "-m", "First"], ["push", "-q", bare, "main"]):
        subprocess.run([*git, "-C", str(work), *words], check=True, capture_output=True)


WHEEL_NAME = "tinypack-1.0-py3-none-any.whl"


def wheel() -> bytes:
    """Make a wheel with one module (the binary distribution format, PyPA)."""
    files = {
        "tinypack.py": f"WORDS = {ANSWER!r}\n".encode(),
        "tinypack-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\n",
        "tinypack-1.0.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(
        f"{name},sha256={urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},"
        f"{len(data)}\n"
        for name, data in files.items()
    )
    files["tinypack-1.0.dist-info/RECORD"] = (record + "tinypack-1.0.dist-info/RECORD,,\n").encode()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), data)
    return held.getvalue()


def npm_tarball() -> bytes:
    """Make a package of npm with one module; the same bytes each time."""
    manifest = json.dumps({"name": "tinypack", "version": "1.0.0", "main": "index.js"}).encode()
    files = {
        "package/package.json": manifest,
        "package/index.js": f"module.exports = {json.dumps(ANSWER)}\n".encode(),
    }
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return held.getvalue()


def packument(registry: str) -> dict[str, object]:
    """Describe the package as npm's registry does."""
    integrity = "sha512-" + b64encode(hashlib.sha512(npm_tarball()).digest()).decode()
    dist = {"tarball": f"{registry}/tinypack/-/tinypack-1.0.0.tgz", "integrity": integrity}
    version = {"name": "tinypack", "version": "1.0.0", "main": "index.js", "dist": dist}
    return {
        "name": "tinypack",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": version},
    }


# WebSocket and gRPC -----------------------------------------------------------------


@contextmanager
def _websocket(context: ssl.SSLContext) -> Iterator[int]:
    from websockets.sync.server import serve

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def _unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("lab-sum", "42"),))
    return ANSWER.encode() + b" " + request


def _stream(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from [request] * 3


def _echo(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from requests


@contextmanager
def _grpc(leaf: Path) -> Iterator[int]:
    import grpc

    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Stream": grpc.unary_stream_rpc_method_handler(_stream),
        "Echo": grpc.stream_stream_rpc_method_handler(_echo),
    }
    pem = leaf.read_bytes()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("lab.Open", methods),)
        )
        credentials = grpc.ssl_server_credentials([(pem, pem)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()
