"""HTTP/1 heads as they are sent on, from what was parsed: in the one spelling that all read alike.

A head that is spelled so already goes on as it came. Rows 18 and 20 of the threat list: what is
forwarded must not be read by the next parser as anything but what was decided, and the answer
of one host never as that of another on the same connection.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from aesp_proxy.normalize.http_head import HOP_NAMES, Headers, RequestHead, ResponseHead

_NO_CONTENT, _NOT_MODIFIED = 204, 304
_LENGTHS = frozenset((b"content-length", b"transfer-encoding"))
_CODED = _LENGTHS | {b"content-encoding"}
_ALT_SVC = b"alt-svc"


def upstream_head(
    head: RequestHead, origin_form: str, host: str, *, unpacks: bool = False
) -> bytes:
    """Write the head that goes upstream: re-serialised from what was parsed and decided.

    ``host`` is the Host to send. The block of field lines is reused as it came when it
    says so, nothing in it concerns this hop only, and all is spelled as we would. With
    ``unpacks`` the body is sent in chunks and without its content codings.
    """
    start = f"{head.method} {origin_form} HTTP/1.{head.minor_version}\r\n".encode("ascii")
    if head.host == host and not head.rewrite and not unpacks:
        return start + head.fields + b"\r\n"
    dropped = HOP_NAMES | _named_by_connection(head.headers) | (_CODED if unpacks else frozenset())
    lines = _request_lines(head, host, dropped)
    if unpacks:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if any(n == b"te" and v.lower() == b"trailers" for n, v in head.headers):
        lines.append(b"TE: trailers\r\nConnection: TE\r\n")
    return start + b"".join(lines) + b"\r\n"


def plain_head(head: RequestHead, host: str) -> bytes:
    """Write a head anew for another parser of ours, with every field that came."""
    start = f"{head.method} {head.target} HTTP/1.{head.minor_version}\r\n".encode("ascii")
    return start + b"".join(_request_lines(head, host, frozenset())) + b"\r\n"


def response_head(head: ResponseHead) -> bytes:
    """Write a response head for the client.

    Chunks are HTTP/1.1's: a response of HTTP/1.0 with chunks becomes one, of a connection
    that ends (RFC 9112 section 6.1).
    """
    dropped, is_old = _unfit(head), head.body_bytes is None and head.minor_version == 0
    if not (dropped or is_old or head.rewrite):
        return head.start_line + b"\r\n" + head.fields + b"\r\n"
    if not is_old:
        return head.start_line + b"\r\n" + b"".join(_lines(head, dropped)) + b"\r\n"
    lines = _lines(head, dropped | {b"connection"})
    return b"HTTP/1.1%b\r\n%bconnection: close\r\n\r\n" % (head.start_line[8:], b"".join(lines))


def _unfit(head: ResponseHead) -> AbstractSet[bytes]:
    """Name the fields that are not passed on to the client, among those that came.

    ``Alt-Svc`` would lead it to QUIC. Lengths and codings where there is never a body
    (RFC 9112 section 6.1) make some clients wait for one.
    """
    unfit = {name for name, _ in head.headers if name == _ALT_SVC or name in _LENGTHS}
    if not unfit or head.status < 200 or head.status == _NO_CONTENT:
        return unfit
    if head.status == _NOT_MODIFIED:
        return unfit - {b"content-length"}
    return unfit & {_ALT_SVC}


def _request_lines(head: RequestHead, host: str, dropped: AbstractSet[bytes]) -> list[bytes]:
    return [b"Host: %b\r\n" % host.encode("ascii"), *_lines(head, dropped | {b"host"})]


def _lines(head: RequestHead | ResponseHead, dropped: AbstractSet[bytes]) -> list[bytes]:
    """Write field lines anew, names in the letters they came in, without those ``dropped``."""
    lines = []
    for line, (name, value) in zip(head.fields.split(b"\r\n"), head.headers, strict=False):
        if name in dropped:
            continue
        plain = b"%d" % int(value) if name == b"content-length" else value
        lines.append(b"%b: %b\r\n" % (line[: len(name)], plain))
    return lines


def _named_by_connection(headers: Headers) -> set[bytes]:
    """Fields that Connection declares to concern one hop; framing is never among them."""
    named = {
        token.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    return named - {b"host", b"content-length", b"transfer-encoding", b"authorization"}
