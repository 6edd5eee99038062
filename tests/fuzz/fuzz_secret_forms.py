"""Fuzz target: a token in any form that a body takes is found, whatever stands around it.

The first bytes choose the form, where it is cut and which token it holds; the rest is what
stands around. The rest alone, damaged or not, is read as names, targets and fields too.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

import brotli
import zstandard

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.pieces import PieceMemory
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.units import Familiar, head_units, name_units, text_units
from aesp_proxy.model.decision import Severity

LETTERS = b"abcdefghijklmnopqrstuvwxyz234567"
TOKEN_CHARS = 24
AROUND_BYTES_MAX = 2_000
_TEXT = bytes(byte if 32 <= byte < 127 or byte == 10 else 46 for byte in range(256))


class FindingError(AssertionError):
    """A promise that did not hold."""


@cache
def _scanner() -> SecretScanner:
    rule = rule_from_policy("token", r"\btokn[_-][a-z0-9]{24}\b", Severity.CRITICAL)
    return SecretScanner([rule], b"a key that is used by no one")


def _tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", data)
    return file.getvalue()


def _multipart(data: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="f"; filename="a.txt"'
    return b"--x\r\n" + head + b"\r\n\r\n" + data + b"\r\n--x--\r\n"


def _protobuf(data: bytes) -> bytes:
    length = len(data)
    digits = bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    digits.append(length)
    return b"\x0a" + bytes(digits) + data + b"\x10\x01"


def _form(data: bytes) -> bytes:
    return urllib.parse.urlencode({"a": "b c", "k": data}).encode()


def _json(data: bytes) -> bytes:
    return json.dumps({"content": data.decode("utf-8", "replace")}).encode()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "form field": _form,
    "JSON": _json,
    "JSON in JSON": lambda data: _json(_json(data)),
    "multipart": _multipart,
    "protobuf": _protobuf,
    "tar": _tar,
    "zip": _zip,
    "gzip file": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd file": zstandard.ZstdCompressor().compress,
    "tar.gz": lambda data: gzip.compress(_tar(data)),
}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def _is_refused(body: bytes, coding: str, size: int) -> bool:
    """Send a body in pieces; tell whether it was stopped."""
    with _scanner().stream("body", encoding=coding, policy=StreamPolicy()) as scan:
        for at in range(0, len(body), size):
            if scan.feed(body[at : at + size]).findings or scan.stopped:
                return True
        return bool(scan.finish().findings or scan.unscannable)


def _is_refused_in_messages(body: bytes, at: int) -> bool:
    """Send two messages (WebSocket, gRPC); tell whether one was stopped."""
    with _scanner().stream("frame", policy=StreamPolicy(window_bytes=0)) as scan:
        found = scan.feed(body[:at]).findings or scan.feed(body[at:]).findings
        return bool(found or scan.finish().findings)


def _found(token: bytes, head: bytes, around: bytes) -> None:
    at = head[0] * len(around) // 256
    text = around[:at] + b"\n" + token + b"\n" + around[at:]
    size = 1 + head[1] * 8
    form = list(FORMS)[head[2] % len(FORMS)]
    if not _is_refused(FORMS[form](text), "", size):
        raise FindingError(f"not found in: {form}")
    coding = list(CODINGS)[head[3] % len(CODINGS)]
    if not _is_refused(CODINGS[coding](text), coding, size):
        raise FindingError(f"not found in the coding {coding}")
    cut = head[4] * len(text) // 256
    if not _is_refused_in_messages(text, cut):
        raise FindingError("not found over two messages")
    name = token.replace(b"_", b"-")
    for label in (name, name.hex().encode()):
        if not _scanner().scan(b"a." + label + b".example", "name"):
            raise FindingError("not found in a label of a name")


def _read(head: bytes, data: bytes) -> None:
    """Read bytes as what they could be pieces of; anything but an answer is a finding."""
    half = head[0] * len(data) // 256
    fields = [(b"x-a", data[:half]), (b"cookie", data[half:])]
    name = data.decode("latin-1")
    familiar, memory = Familiar(), PieceMemory()
    familiar.is_new(name)
    changed = familiar.changed(fields)
    units = (*name_units(name), *head_units("a.test", data, changed), *text_units("b", "a", data))
    for unit in units:
        for _ in range(2):
            step = memory.step(unit)
            _scanner().scan_joined(step.joined(), data)
            memory.keep(step)
        familiar.hear(unit)
    familiar.keep(name, fields)


def fuzz_one(data: bytes) -> None:
    """Run one input."""
    head, rest = data[:8].ljust(8, b"\0"), data[8 : 8 + AROUND_BYTES_MAX]
    drawn = hashlib.sha256(head[5:]).digest()[:TOKEN_CHARS]
    token = b"tokn_" + bytes(LETTERS[byte % len(LETTERS)] for byte in drawn)
    _found(token, head, rest.translate(_TEXT))
    _read(head, rest)
    packed = [pack(rest) for pack in (*FORMS.values(), *CODINGS.values())]
    body = bytearray(packed[head[6] % len(packed)])
    if body:
        body[head[7] % len(body)] ^= head[0] | 1
    _is_refused(bytes(body), list(CODINGS)[head[1] % len(CODINGS)], 1 + head[2])
