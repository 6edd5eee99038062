"""HTTP/1 message heads: bytes in, one unambiguous reading out, or an ``InputError``.

Everything that two parsers are known to read differently is refused, never
repaired: bare CR or LF, obs-fold, NUL and other controls, white space around a
field name, two Host fields, Content-Length beside Transfer-Encoding, repeated
or signed lengths, any transfer coding but a single ``chunked``. Sources: RFC
9112 sections 2-6 and 11.2, RFC 9110 section 5.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from aesp_proxy.errors import InputError

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Field values may hold visible characters, space, tab and obs-text (RFC 9110 5.5).
_HEAD_BYTES = bytes([9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)])
_TARGET_BYTES = bytes(c for c in range(0x21, 0x7F) if c not in b'"<>\\^`{|}#')
_VALUE_BYTES = _HEAD_BYTES.translate(None, b"\r\n")
_DIGITS = b"0123456789"
_LENGTH_DIGITS_MAX = 18
_METHOD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_METHOD_CHARS_MAX = 24
_SPACE, _ZERO = b" 0"

Headers = tuple[tuple[bytes, bytes], ...]


class OversizeError(InputError):
    """A head is over a limit; it may otherwise have been in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large a head may be: bytes in all, bytes of the target, fields."""

    head_bytes_max: int = 65_536
    target_bytes_max: int = 16_384
    header_count_max: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request head. Names in ``headers`` are lower case; values are stripped.

    ``fields`` is the validated block of field lines as received, each ended by
    CRLF, so that what need not change is forwarded without being rebuilt.
    ``body_bytes`` is the Content-Length, 0 without a body, None when chunked;
    ``rewrite`` says that hop-by-hop fields stand in the way of that, or an odd spelling:
    white space around a value that is not one space before it, a length with zeros.
    """

    method: str
    target: str
    minor_version: int
    headers: Headers
    fields: bytes
    host: str
    body_bytes: int | None
    keep_alive: bool
    expect_continue: bool
    upgrade: str
    rewrite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """A response head. ``body_bytes`` is None when chunked, -1 when until close.

    ``rewrite`` says that fields are spelled oddly, as in a request head.
    """

    status: int
    minor_version: int
    headers: Headers
    fields: bytes
    start_line: bytes
    body_bytes: int | None
    keep_alive: bool
    rewrite: bool


class HeadQueue:
    """Bytes of a client in which one head after another begins."""

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self.data = b""

    def take(self, *, finished: bool = False) -> bytes | None:
        """Take out the next whole head, with its empty line; None while it is not there.

        Raises ``InputError`` once it never will be: over the limit, lines that do not
        end with CR LF, a NUL, or the client has ``finished`` in the middle.
        """
        if self.data[:2] == b"\r\n":  # one empty line may precede (RFC 9112 section 2.2)
            self.data = self.data[2:]
        end = self.data.find(b"\r\n\r\n")
        if end >= 0:
            block, self.data = self.data[: end + 4], self.data[end + 4 :]
            return block
        if len(self.data) > self._limits.head_bytes_max:
            raise OversizeError(f"the head is over {self._limits.head_bytes_max} bytes")
        if b"\n\n" in self.data or b"\0" in self.data:
            raise InputError("the lines of the head do not end with CR LF")
        if finished and self.data:
            raise InputError("the head is cut short")
        return None


def parse_request_head(block: bytes, limits: HeadLimits) -> RequestHead:
    """Parse a request head that ends with an empty line.

    Raises ``InputError`` with the exact objection; see RFC 9112 section 3.
    """
    start, fields, headers, is_plain = _split_head(block, limits)
    parts = start.split(b" ")
    if len(parts) != 3:
        msg = "the request line is not METHOD TARGET VERSION"
        raise InputError(msg)
    method, target, version = parts
    check_method(method)
    check_target(target, limits)
    minor = _minor_version(version)
    framing = _Framing.read(headers, minor)
    if framing.coding and minor == 0:
        msg = "Transfer-Encoding in an HTTP/1.0 request"
        raise InputError(msg)
    return RequestHead(
        method=method.decode("ascii"),
        target=target.decode("ascii"),
        minor_version=minor,
        headers=headers,
        fields=fields,
        host=framing.host,
        body_bytes=None if framing.coding else (framing.length or 0),
        keep_alive=framing.keep_alive,
        expect_continue=framing.expect_continue,
        upgrade=framing.upgrade,
        rewrite=framing.rewrite or framing.odd_length or not is_plain,
    )


def check_target(target: bytes, limits: HeadLimits) -> None:
    """Refuse a target that is too long, or that a request line could not hold as one word."""
    if len(target) > limits.target_bytes_max:
        raise OversizeError(f"the request target is over {limits.target_bytes_max} bytes")
    if not target or target.translate(None, _TARGET_BYTES):
        msg = "the request target holds a character that must be percent-encoded"
        raise InputError(msg)


def check_fields(fields: Collection[tuple[bytes, bytes]], limits: HeadLimits) -> None:
    """Hold the fields of an HTTP/2 head to what a head of HTTP/1 may hold: it may become one."""
    if len(fields) > limits.header_count_max:
        raise OversizeError(f"more than {limits.header_count_max} header fields")
    if sum(len(name) + len(value) for name, value in fields) > limits.head_bytes_max:
        raise OversizeError(f"the head is over {limits.head_bytes_max} bytes")
    if b"".join(value for _, value in fields).translate(None, _VALUE_BYTES):
        msg = "the head holds NUL or another control character"
        raise InputError(msg)


def check_method(method: bytes) -> None:
    """Refuse what is no method that anyone has registered the like of.

    RFC 9110 allows any token; a token can be a secret, and the method is recorded.
    Every registered method is a short word of capital letters and hyphens. PRI begins
    HTTP/2 and nothing else (RFC 9113 section 11.6).
    """
    if method == b"PRI":
        msg = "the method PRI is no request's"
        raise InputError(msg)
    if not 0 < len(method) <= _METHOD_CHARS_MAX or method.translate(None, _METHOD):
        raise InputError(f"the method is not 1 to {_METHOD_CHARS_MAX} capital letters")


def opens_websocket(head: RequestHead) -> bool:
    """Whether it is the opening handshake of RFC 6455 section 4.1; else Upgrade is dropped."""
    return (
        head.upgrade == "websocket"
        and head.method == "GET"
        and head.minor_version == 1
        and head.body_bytes == 0
        and any(name == b"sec-websocket-key" for name, _ in head.headers)
    )


def parse_response_head(block: bytes, limits: HeadLimits, *, request_method: str) -> ResponseHead:
    """Parse a response head that ends with an empty line (RFC 9112 section 4)."""
    start, fields, headers, is_plain = _split_head(block, limits)
    if len(start) < 12 or start[8:9] != b" " or start[12:13] not in (b"", b" "):
        msg = "the status line is not VERSION STATUS REASON"
        raise InputError(msg)
    minor = _minor_version(start[:8])
    digits = start[9:12]
    if digits.translate(None, _DIGITS) or not b"100" <= digits <= b"599":
        msg = "the status code is not between 100 and 599"
        raise InputError(msg)
    status = int(digits)
    framing = _Framing.read(headers, minor)
    body: int | None
    if request_method == "HEAD" or status < 200 or status in (204, 304):
        body = 0
    elif framing.coding:
        body = None
    elif framing.length is not None:
        body = framing.length
    else:
        body = -1
    return ResponseHead(
        status=status,
        minor_version=minor,
        headers=headers,
        fields=fields,
        start_line=start,
        body_bytes=body,
        keep_alive=framing.keep_alive and body != -1 and not (framing.coding and minor == 0),
        rewrite=framing.odd_length or not is_plain,
    )


def _split_head(block: bytes, limits: HeadLimits) -> tuple[bytes, bytes, Headers, bool]:
    if len(block) > limits.head_bytes_max:
        raise OversizeError(f"the head is over {limits.head_bytes_max} bytes")
    lines_count = require_crlf_lines(block)
    start_end = block.find(b"\r\n")
    start = block[:start_end]
    fields = block[start_end + 2 : -2]
    if lines_count - 2 > limits.header_count_max:
        raise OversizeError(f"more than {limits.header_count_max} header fields")
    headers, is_plain = _field_lines(fields)
    return start, fields, headers, is_plain


def require_crlf_lines(block: bytes) -> int:
    """Count the lines of a head or trailer block; refuse controls and bare CR or LF."""
    if block.translate(None, _HEAD_BYTES):
        msg = "the head holds NUL or another control character"
        raise InputError(msg)
    lines_count = block.count(b"\r\n")
    if block.count(b"\n") != lines_count or block.count(b"\r") != lines_count:
        msg = "a line of the head does not end with CR LF"
        raise InputError(msg)
    return lines_count


def parse_fields(fields: bytes) -> Headers:
    """Parse field lines, each ended by CRLF (RFC 9112 section 5); also for trailers."""
    return _field_lines(fields)[0]


def _field_lines(fields: bytes) -> tuple[Headers, bool]:
    """Parse field lines; tell also whether all are written ``name: value`` to the letter."""
    headers, is_plain = [], True
    for line in fields.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, _TOKEN):
            msg = "a header field's name is not a token (a folded line? space before the colon?)"
            raise InputError(msg)
        stripped = value.strip(b" \t")
        is_plain = is_plain and len(value) - len(stripped) == 1 and value[0] == _SPACE
        headers.append((name.lower(), stripped))
    return tuple(headers), is_plain


def _minor_version(version: bytes) -> int:
    if version == b"HTTP/1.1":
        return 1
    if version == b"HTTP/1.0":
        return 0
    msg = "the version is neither HTTP/1.1 nor HTTP/1.0"
    raise InputError(msg)


@dataclass(slots=True)
class _Framing:
    """What the fields say of framing and of the connection, gathered in one pass."""

    host: str = ""
    has_host: bool = False
    length: int | None = None
    odd_length: bool = False
    coding: bytes = b""
    keep_alive: bool = True
    expect_continue: bool = False
    upgrade: str = ""
    connection_tokens: tuple[bytes, ...] = ()
    rewrite: bool = False

    @classmethod
    def read(cls, headers: Headers, minor: int) -> _Framing:
        framing = cls()
        for name, value in headers:
            if name not in _FRAMING_NAMES:
                continue
            if name == b"host":
                framing._host(value)
            elif name == b"content-length":
                framing._length(value)
            elif name == b"transfer-encoding":
                if framing.coding or value.lower() != b"chunked":
                    msg = "a transfer coding that is not a single 'chunked'"
                    raise InputError(msg)
                framing.coding = b"chunked"
            elif name == b"connection":
                tokens = tuple(t.strip(b" \t").lower() for t in value.split(b","))
                framing.connection_tokens += tokens
                framing.rewrite |= not set(tokens) <= {b"keep-alive", b"close"}
            elif name == b"expect":
                framing._expect(value)
            else:
                framing.rewrite = True
                if name == b"upgrade":
                    framing.upgrade = value.decode("latin-1").lower()
        framing._settle(minor)
        return framing

    def _settle(self, minor: int) -> None:
        """Draw what follows from several fields together."""
        if self.coding and self.length is not None:
            msg = "both Content-Length and Transfer-Encoding"
            raise InputError(msg)
        tokens = self.connection_tokens
        self.keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)
        if b"upgrade" not in tokens:  # then there is none (RFC 9110 section 7.8)
            self.upgrade = ""

    def _host(self, value: bytes) -> None:
        if self.has_host:
            msg = "more than one Host field"
            raise InputError(msg)
        self.has_host = True
        self.host = value.decode("latin-1")

    def _length(self, value: bytes) -> None:
        if not value or len(value) > _LENGTH_DIGITS_MAX or value.translate(None, _DIGITS):
            msg = "Content-Length is not a decimal number"
            raise InputError(msg)
        if self.length is not None:
            msg = "more than one Content-Length"
            raise InputError(msg)
        self.length = int(value)
        self.odd_length = value[0] == _ZERO and len(value) > 1

    def _expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            msg = "an expectation that is not 100-continue"
            raise InputError(msg)
        self.expect_continue = True


# Fields that concern one hop only (RFC 9110 section 7.6.1): never forwarded.
HOP_NAMES = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"te",
        b"upgrade",
        b"http2-settings",
    )
)
_FRAMING_NAMES = HOP_NAMES | {b"host", b"content-length", b"transfer-encoding", b"expect"}
