"""The bytes of a case: placeholders filled in, bodies coded, heads and chunks put together.

``{host}``, ``{url}``   host of the entry; what stands before the path in absolute form
``{canary}``            a secret that the policy knows; ``{canary:FORM}`` one of ``FORMS``
``{fill:N}``            N letters
``{length}``            bytes of the body, after its coding
``{proxy}``             the port of the proxy that plays the case
"""

from __future__ import annotations

import base64
import binascii
import bz2
import codecs
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import brotli
import zstandard
from egress_lab import CANARY
from packed_files import docx, git_pack, pdf, png

HALF = 18


def _zip(data: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/a.env", data)
    return held.getvalue()


SAID_BYTES = 2


def _said(text: bytes, before: bytes, event: object, behind: bytes) -> bytes:
    """Return events, each of which says a little of ``text`` where ``event`` says nothing."""
    form = json.dumps(event, separators=(",", ":")).encode()
    pieces = (text[at : at + SAID_BYTES] for at in range(0, len(text), SAID_BYTES))
    return b"".join(before + form.replace(b'""', b'"%s"' % one) + behind for one in pieces)


_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base64-1": lambda s: base64.b64encode(b"x" + s),
    "base64-2": lambda s: base64.b64encode(b"xy" + s),
    "base64url": base64.urlsafe_b64encode,
    "base32": base64.b32encode,
    "hex": lambda s: s.hex().encode(),
    "percent": lambda s: b"".join(b"%%%02X" % c for c in s),
    "double-percent": lambda s: b"".join(b"%%25%02X" % c for c in s),
    "json": lambda s: b"".join(b"\\u%04x" % c for c in s),
    "rot13": lambda s: codecs.encode(s.decode(), "rot13").encode(),
    "reversed": lambda s: s[::-1],
    "spaced": lambda s: b" ".join(bytes([c]) for c in s),
    "zero-width": lambda s: "\u200b".join(s.decode()).encode(),
    "homoglyph": lambda s: s.decode().replace("CORP", "\u0421ORP").encode(),
    "full-width": lambda s: s.decode().translate(_FULL_WIDTH).encode(),
    "hex-spaced": lambda s: s.hex(" ").encode(),
    "quoted-printable": lambda s: b"".join(b"=%02X" % c for c in s),
    "entities": lambda s: b"".join(b"&#%d;" % c for c in s),
    "base85": base64.b85encode,
    "joined": lambda s: b'"' + s[:HALF] + b'" + "' + s[HALF:] + b'"',
    "utf-16": lambda s: s.decode().encode("utf-16-le"),
    "decimal": lambda s: str(list(s)).encode(),
    "octal": lambda s: " ".join(f"{c:03o}" for c in s).encode(),
    "bits": lambda s: "".join(f"{c:08b}" for c in s).encode(),
    "number": lambda s: str(int.from_bytes(s, "big")).encode(),
    "swapped-case": lambda s: s.swapcase(),
    "shifted": lambda s: bytes(c + 1 for c in s),
    "base64-turned": lambda s: base64.b64encode(s)[::-1],
    "letter-by-letter": lambda s: b" ".join(base64.b64encode(bytes((c,))) for c in s),
    "columns": lambda s: b"\n".join(b"%d,%c" % (i, c) for i, c in enumerate(s)),
    "tagged": lambda s: b"<b></b>".join(bytes((c,)) for c in s),
    "buffer": lambda s: json.dumps(
        {"type": "Buffer", "data": list(s)}, separators=(",", ":")
    ).encode(),
    "braille-json": lambda s: json.dumps("".join(chr(0x2800 + c) for c in s)).encode(),
    "tag-characters": lambda s: "".join(chr(0xE0000 + c) for c in s).encode(),
    "tag-characters-json": lambda s: json.dumps("".join(chr(0xE0000 + c) for c in s)).encode(),
    "braille": lambda s: "".join(chr(0x2800 + c) for c in s).encode(),
    "chunks": lambda s: _said(s, b"data: ", {"choices": [{"delta": {"content": ""}}]}, b"\n\n"),
    "deltas": lambda s: _said(s, b"data: ", {"delta": {"partial_json": ""}, "index": 1}, b"\n\n"),
    "lines-of-json": lambda s: _said(s, b"", {"x": ""}, b"\n"),
    "objects": lambda s: _said(s, b"", {"text": ""}, b""),
    "ebcdic": lambda s: s.decode().encode("cp037"),
    "parameters": lambda s: b"&".join(b"a%d=%c" % (n, c) for n, c in enumerate(s)),
    "first": lambda s: s[:HALF],
    "second": lambda s: s[HALF:],
}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "git-push": lambda data: b"002d" + b"0" * 40 + b" main0000" + git_pack(data),
    "git-pack-gzip": lambda data: gzip.compress(git_pack(b"honest", data)),
    "pdf": pdf,
    "pdf-base64": lambda data: base64.b64encode(pdf(data)),
    "docx": docx,
    "png-comment": png,
    "uuencode": lambda data: b"begin 644 a\n" + _uuencoded(data) + b"`\nend\n",
    "uuencode-gzip": lambda data: b"begin 644 a\n" + _uuencoded(gzip.compress(data)) + b"`\nend\n",
    "xxd": lambda data: _dump(data, lambda at, row: f"{at:08x}: {row.hex(' ', -2):39}  ..."),
    "hexdump": lambda data: _dump(data, lambda at, row: f"{at:08x}  {row.hex(' '):47}  |...|"),
    "od": lambda data: _dump(data, lambda at, row: f"{at:07o} {row.hex(' ')}"),
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw-deflate": lambda data: zlib.compress(data)[2:-4],
    "gzip-and-more": lambda data: gzip.compress(data) + b"more",
    "gzip-cut": lambda data: gzip.compress(data)[:-9],
    "gzip-twice": lambda data: gzip.compress(gzip.compress(data)),
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": _zip,
    "zip-base64": lambda data: base64.b64encode(_zip(data)),
    "gzip-base64": lambda data: base64.b64encode(gzip.compress(data)),
    "grpc-gzip": lambda data: compressed_message(gzip.compress(data)),
}


def _uuencoded(data: bytes) -> bytes:
    return b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))


def _dump(data: bytes, line: Callable[[int, bytes], str]) -> bytes:
    rows = (line(at, data[at : at + 16]) for at in range(0, len(data), 16))
    return "\n".join(rows).encode()


def compressed_message(data: bytes) -> bytes:
    """Make a gRPC message that says it is compressed."""
    return b"\1" + len(data).to_bytes(4, "big") + data


def as_bytes(text: str) -> bytes:
    """Turn text of a case into bytes: characters up to U+00FF are bytes, others UTF-8."""
    return b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode() for c in text)


@dataclass
class Filled:
    """One input's bytes; ``forms`` are those of the secret that it carries."""

    host: str
    url: str
    proxy_port: int
    plain_port: int = 0
    forms: list[bytes] = field(default_factory=list)

    def text(self, text: str, *, length: int = 0) -> bytes:
        """Fill in the placeholders."""
        plain = {
            "{host}": self.host,
            "{url}": self.url,
            "{length}": str(length),
            "{proxy}": str(self.proxy_port),
            "{plain}": str(self.plain_port),
        }
        for mark, value in plain.items():
            text = text.replace(mark, value)
        while "{fill:" in text:
            before, _, rest = text.partition("{fill:")
            count, _, after = rest.partition("}")
            text = before + "a" * int(count) + after
        data = as_bytes(text)
        for name, form in {"": lambda s: s, **FORMS}.items():
            mark = b"{canary:%b}" % name.encode() if name else b"{canary}"
            if mark in data:
                made = form(CANARY)
                self.forms.append(made)
                data = data.replace(mark, made)
        return data

    def body(self, given: dict[str, Any]) -> bytes:
        """Make a body: text, zeros behind it, coding, chunks."""
        if "chunks" in given:
            pieces = [self.text(each) for each in given["chunks"]]
            extension = self.text(given.get("extension", ""))
            chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension, p) for p in pieces)
            lines = b"".join(self.text(line) + b"\r\n" for line in given.get("trailers", ()))
            return chunks + b"0\r\n" + lines + b"\r\n"
        data = self.text(given.get("body", "")) + b"\0" * given.get("zeros", 0)
        return CODINGS[given["coding"]](data) if "coding" in given else data

    def request(self, given: dict[str, Any]) -> bytes:
        """Make a request: ``raw`` as it is, or ``head`` lines and a body."""
        if "raw" in given:
            return self.text(given["raw"])
        body = self.body(given)
        lines = [self.text(line, length=len(body)) for line in given["head"]]
        lines += [b"X-%d: y" % number for number in range(given.get("fields", 0))]
        return b"\r\n".join([*lines, b"", b""]) + body
