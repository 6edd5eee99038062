"""Which protocol a client speaks, by the first bytes it sends.

Everything that can be HTTP is taken for it, so that it is read or refused as HTTP; what is
left is other TCP, which only passes unread where a rule says its port. Undecided bytes are
never relayed: they are waited for.
"""

from __future__ import annotations

from enum import Enum, auto

from aesp_proxy.normalize.tls_hello import HANDSHAKE


class Protocol(Enum):
    """What the first bytes are."""

    TLS = auto()
    HTTP1 = auto()
    HTTP2 = auto()
    OTHER = auto()


_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
# The IANA registry of HTTP methods, PRI excepted.
_METHODS = frozenset(
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE"
    b" MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST"
    b" PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK"
    b" UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_LINE_BYTES_MAX = 2_048
_TEXT = bytes([9, 13, *range(0x20, 0x7F)])


def recognise(data: bytes) -> Protocol | None:
    """Tell the protocol of a client's first bytes; None while more are needed.

    HTTP/1 is a method of the registry and white space, or a whole first line that ends with
    a version of HTTP. Text that may still become that is undecided, up to 2,048 bytes.
    """
    if not data:
        return None
    if data[0] == HANDSHAKE:
        return Protocol.TLS
    if _HTTP2_PREFACE.startswith(data[: len(_HTTP2_PREFACE)]):
        return Protocol.HTTP2 if len(data) >= len(_HTTP2_PREFACE) else None
    line, newline, _ = data.removeprefix(b"\r\n").partition(b"\n")
    words = line.split()
    if words and words[0] in _METHODS and line.startswith(words[0]) and len(line) > len(words[0]):
        return Protocol.HTTP1
    if len(line) > _LINE_BYTES_MAX or line.translate(None, _TEXT):
        return Protocol.OTHER
    if not newline:
        return None
    says_http = bool(words) and words[-1].upper().startswith(b"HTTP/")
    return Protocol.HTTP1 if says_http else Protocol.OTHER
