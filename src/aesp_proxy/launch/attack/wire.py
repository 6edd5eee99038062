"""An HTTP client by hand, which says what no library would say."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from aesp_proxy.launch.attack.plan import Plan

_WAIT_S: Final = 5.0
_START_S_MAX: Final = 60.0
_HEAD_BYTES_MAX: Final = 65536


def connect(plan: Plan) -> socket.socket:
    """Connect to the proxy."""
    return socket.create_connection((plan.proxy[0], plan.proxy[1]), _WAIT_S)


def await_proxy(plan: Plan) -> None:
    """Wait until the proxy answers anything: while it compiles its rules it is silent.

    What is tried meanwhile would end without an answer, and read as stopped.
    """
    try:
        with connect(plan) as sock:
            sock.settimeout(_START_S_MAX)
            ask(sock, b"GET / HTTP/1.1\r\n\r\n")
    except OSError:
        return  # the control says that nothing passes


def answer(sock: socket.socket) -> str:
    """Read the head of an answer; return its status and the proxy's reason."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _HEAD_BYTES_MAX:
        try:
            more = sock.recv(4096)
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return f"cut: {error}"
        if not more:
            break
        data += more
    lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    reasons = [
        line.partition(":")[2].strip() for line in lines if line[:12].lower() == "aesp-reason:"
    ]
    return " ".join([*lines[0].split(" ")[1:2], *reasons]) or "cut"


class RefusedError(Exception):
    """The proxy did not open a tunnel."""


def tunnel(plan: Plan, authority: str, sock: socket.socket | None = None) -> socket.socket:
    """Open a tunnel to an authority; RefusedError with what was answered."""
    sock = sock or connect(plan)
    sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("latin-1"))
    said = answer(sock)
    if not said.startswith("200"):
        sock.close()
        raise RefusedError(f"CONNECT {authority}: {said}")
    return sock


def encrypted(sock: socket.socket, name: str) -> ssl.SSLSocket:
    """Begin TLS with a server name, or none; whose certificate it is does not matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=name or None)


def ask(sock: socket.socket, *pieces: bytes) -> str:
    """Send pieces, each in a write of its own, and read one answer."""
    try:
        for piece in pieces:
            sock.sendall(piece)
    except OSError as error:
        return answer(sock) or f"cut: {error}"
    return answer(sock)


def head(method: str, target: str, host: str, *fields: str) -> bytes:
    """Return a request head."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def inside(plan: Plan, *pieces: bytes) -> str:
    """Send pieces to the allowed host by a tunnel and TLS, as an honest client would."""
    with encrypted(tunnel(plan, f"{plan.allowed}:443"), plan.allowed) as sock:
        return ask(sock, *pieces)


def absolute(plan: Plan, target: str, host: str) -> str:
    """Send a request in absolute form."""
    with connect(plan) as sock:
        return ask(sock, head("GET", target, host))
