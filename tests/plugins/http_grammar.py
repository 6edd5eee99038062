"""HTTP/1 byte streams by a grammar: mostly right, wrong in up to three places, then bent.

Every part of a request has right forms, and wrong ones that parsers are known to read in more
than one way (RFC 9112 section 11, and the advisories of the field). A stream is up to three
requests one after another, so that what one of them hides is read as the next.

All chance comes in as ``Choose``: from Hypothesis, which finds the smallest failure, or from
``random``, which is a hundred times faster.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Choose = Callable[[Sequence[Any]], Any]
ENTRIES = ("tunnel", "absolute", "captured")

HOST = b"plain.test"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: plain.test\r\n\r\n"

_RIGHT: dict[str, list[bytes]] = {
    "before": [b""],
    "method": [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"PROPFIND"],
    "space": [b" "],
    "path": [b"/", b"/a?b=c", b"/a/b;c=d", b"/%41%2e", b"//x/y", b"/?", b"/a?http://b/"],
    "version": [b"HTTP/1.1"],
    "line": [b"\r\n"],
    "host": [b"Host: " + HOST],
    "colon": [b": "],
    "end": [b"\r\n\r\n"],
    "size": [b"%x"],
    "chunk_line": [b"\r\n"],
    "chunk_end": [b"\r\n"],
    "last": [b"0\r\n"],
    "trailer": [b""],
}
_WRONG: dict[str, list[bytes]] = {
    "before": [b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\r", b"\0", b"x\r\n", b"\r\n\n"],
    "method": [b"get", b"GE T", b"", b"FOO", b"G\0T", b"POST\t", b"PRI", b"CONNECT", b"M-SEARCH",
               b"TRACE", b"(GET", b"GET:", b"P\xd6ST"],
    "space": [b"  ", b"\t", b"\x0b", b"\x0c", b"\r", b"", b"\xa0"],
    "path": [b"*", b"/%00", b"http://plain.test/x", b"http://evil.test/x", b"/a b", b"/a\tb",
             b"/a#b", b"/\\evil.test", b"", b"?q", b"a", b"/\0", b"/\x7f", b"/\xc3\xa9",
             b"/a|b", b"/<x>", b"/a HTTP/1.1\r\nX: y", b"plain.test:80",
             b"HTTP://plain.test", b"/^`{}"],
    "version": [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1",
                b"HTTP/1.10", b"", b"HTTP/0.9", b"HTTP/1,1", b"HTTP/1.1\t", b"XTTP/1.1", b"HTTP/1"],
    "line": [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n", b" \r\n", b"\x0b\r\n", b"\x85"],
    "host": [b"", b"Host:", b"Host: PLAIN.TEST", b"Host: plain.test.", b"Host: plain.test:80",
             b"Host: plain.test:080", b"Host: evil.test", b"Host:\tplain.test\t",
             b"Host: plain.test\r\nHost: plain.test", b"Host: plain.test\r\nhost: evil.test",
             b"Host: plain.test, evil.test", b"Host: plain.test evil.test", b"Host: a@plain.test",
             b"Host: plain.test/", b"Host: plain.test\0", b"Host : plain.test",
             b"Host: \xef\xbd\x90lain.test", b"Host: pla\xefn.test", b"Host: plain.test#x",
             b"Host: plain\r\n .test", b" Host: plain.test", b"Host: [plain.test]",
             b"Host: plain.test:", b"Host: evil.test\\@plain.test", b"X-Host: plain.test",
             b"Host:plain.test", b"Host: \xb5plain.test", b"Host: pl\xaalain.test"],
    "colon": [b":", b" : ", b":\t", b"\t: ", b": \r\n ", b"", b"\0: ", b"\x0b: ", b":: ", b":\x0b"],
    "end": [b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\n", b"\r\r", b"\r\n\r\r\n", b"\r\n \r\n",
            b"\r\n\r"],
    "size": [b"0%x", b"0x%x", b" %x", b"%x ", b"+%x", b"-%x", b"%xg", b"%x;x=y", b"%x ;x", b"%x;",
             b"1000000000000000%x", b"%x\t", b"%x\0", b'%x;x="\n"', b"%x\r", b"0000000000000000%x",
             b"%x;\xff", b"%x,%x", b"%x.0", b"%x;a\rb"],
    "chunk_line": [b"\n", b"\r", b"\r\r\n", b"\r\n\r\n", b" \r\n", b"\0\r\n"],
    "chunk_end": [b"\n", b"", b"\r", b"x\r\n", b"\r\n\r\n", b"\r\r\n", b"\0\0"],
    "last": [b"0\n", b"00\r\n", b"0;x\r\n", b"0 \r\n", b"", b"0", b"0x0\r\n", b"-0\r\n", b"0\r"],
    "trailer": [b"X-T: 1\r\n", b"Host: evil.test\r\n", b"Content-Length: 5\r\n", b" folded\r\n",
                b"Transfer-Encoding: chunked\r\n", b"X-T : 1\r\n", b"nonsense\r\n", b"X-T: a\0\r\n",
                b"X-T: 1\n", b"X-T: 1\r", SMUGGLED, b": x\r\n", b"X-T: \xff\r\n"],
}  # fmt: skip
_LENGTHS = [b"%d", b"+%d", b"0%d", b"%d ", b"-%d", b"0x%d", b"%d,%d", b"%d, %d", b"", b"%d\x0b",
            b"%d.0", b"%de0", b"\t%d\t", b"%d\0", b"1%d", b"99999999999999999999%d", b"%d;x",
            b"\xd9\xa5%d", b'"%d"', b"%d\r\n %d", b"_%d", b"%d\r\nContent-Length: %d",
            b"%d\r\nContent-Length: 0", b"\xa0%d"]  # fmt: skip
_CODINGS = [b"chunked", b"Chunked", b"chunked, identity", b"identity", b"gzip, chunked", b"gzip",
            b"chunked, chunked", b"\tchunked", b"x\x0bchunked", b"chunked;q=1", b",chunked",
            b"chunked,", b'"chunked"', b"chunked\0", b"\x0bchunked", b"chunk", b"xchunked", b"",
            b"identity\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity",
            b"\r\n chunked", b"chunked\r\nTransfer-Encoding: chunked", b"chunked \t",
            b"\xa0chunked", b"chunked\r\n , identity", b"chunked\x0c"]  # fmt: skip
_LENGTH_NAMES = [b"Content-Length", b"content-length", b"Content_Length", b" Content-Length",
                 b"Content-Length\0", b"Content-Length\xa0", b"\x0bContent-Length"]  # fmt: skip
_CODING_NAMES = [b"Transfer-Encoding", b"transfer-encoding", b"Transfer_Encoding", b"TE",
                 b"\tTransfer-Encoding", b"Transfer-Encoding\x01", b"X\nTransfer-Encoding",
                 b"X: y\rTransfer-Encoding", b"Tran\xdffer-Encoding"]  # fmt: skip
_WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)
_OTHER = [
    b"X-A: b", b"Accept: */*", b"Connection: keep-alive", b"Connection: close", b"X:",
    b"Connection: content-length", b"Connection: host, close", b"Connection: transfer-encoding",
    b"Connection: keep-alive, X-A", b"Connection: x-a,, keep-alive", b"Connection: Close",
    b"Connection: expect, content-type", b"Proxy-Connection: close", b"Keep-Alive: timeout=5",
    b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    _WEBSOCKET,
    b"Upgrade: websocket", b"Connection: Upgrade\r\nUpgrade: WebSocket, h2c", b"Upgrade: foo",
    b"Expect: 100-continue", b"Expect: 100-Continue", b"Expect: magic", b"TE: trailers",
    b"TE: chunked", b"Trailer: X-T", b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\0b", b"X: a\rb",
    b"X: a\x0bb", b"X: \xff\x80", b"nonsense", b": y", b"(x): y", b"X\xd6: y", b"X Y: z", b"X",
    b"X: \x7f", b"Max-Forwards: 0", b"X-HTTP-Method-Override: DELETE", b"Content-Type: a/b; c=d",
    b"Content-Encoding: identity", b"X: " + b"y" * 300, b"X_Y: z", b"Forwarded: host=evil.test",
    b"X: \t a \t ", b"X:\r\n", b"Host2: evil.test", b"Connection: \x0bclose",
]  # fmt: skip
_BODIES = [b"", b"abc", b"abc", SMUGGLED, b"0\r\n\r\n", b"0\r\n\r\n" + SMUGGLED, b"\r\n", b"\n"]
_PIECES = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"\x0b", b"\xff", b";",
           b"\r\n\r\n", b"\r\n "]  # fmt: skip
_FRAMINGS = ("none", "none", "length", "length", "chunked", "chunked", "both")
_PLACES = (*_WRONG, "length", "coding", "fields")


def request(choose: Choose, entry: str = "tunnel") -> bytes:
    """Make one request, wrong in up to three places."""
    wrong = {choose(_PLACES) for _ in range(choose((0, 0, 0, 1, 1, 2)))}

    def part(name: str) -> bytes:
        options = _WRONG[name] if name in wrong else _RIGHT[name]
        return options[0] if len(options) == 1 else choose(options)

    framing = choose(_FRAMINGS)
    body = choose(_BODIES) if framing != "none" else b""
    others = [choose(_OTHER) for _ in range(choose((0, 0, 0, 1, 2)))]
    fields = [each for each in (part("host"), *others) if each]
    if framing in ("length", "both"):
        name = choose(_LENGTH_NAMES) if "fields" in wrong else _LENGTH_NAMES[0]
        value = choose(_LENGTHS) if "length" in wrong else _LENGTHS[0]
        fields.append(name + part("colon") + value.replace(b"%d", b"%d" % len(body)))
    if framing in ("chunked", "both"):
        name = choose(_CODING_NAMES) if "fields" in wrong else _CODING_NAMES[0]
        value = choose(_CODINGS) if "coding" in wrong else _CODINGS[0]
        fields.append(name + part("colon") + value)
        body = _chunks(choose, part, body)
    if len(fields) > 1 and choose((True, False)):
        fields.reverse()
    path = part("path")
    if entry == "absolute" and path.startswith(b"/"):
        path = b"http://" + HOST + path
    start = part("method") + part("space") + path + part("space") + part("version")
    return part("before") + part("line").join([start, *fields]) + part("end") + body


def _chunks(choose: Choose, part: Callable[[str], bytes], body: bytes) -> bytes:
    """Frame a body as one or two chunks."""
    cut = choose((0, 1, len(body) // 2)) if body else 0
    framed = b""
    for data in filter(None, (body[:cut], body[cut:])):
        framed += part("size").replace(b"%x", b"%x" % len(data)) + part("chunk_line") + data
        framed += part("chunk_end")
    return framed + part("last") + part("trailer") + b"\r\n"


def stream(choose: Choose) -> tuple[str, bytes]:
    """Make an entry and what is sent through it: one to three requests, at times bent."""
    entry = choose(ENTRIES)
    data = b"".join(request(choose, entry) for _ in range(choose((1, 2, 3))))
    if choose((False, False, False, True)):
        at, taken = choose(range(len(data) + 1)), choose((0, 1, 2))
        data = data[:at] + choose((b"", *_PIECES)) + data[at + taken :]
    return entry, data


@st.composite
def streams(draw: Any) -> tuple[str, bytes]:
    """Give Hypothesis the same."""
    return stream(lambda options: draw(st.sampled_from(options)))


def random_streams(seed: int, count: int) -> list[tuple[str, bytes]]:
    """Give ``count`` streams of one seed."""
    chance = random.Random(seed)
    return [stream(chance.choice) for _ in range(count)]
