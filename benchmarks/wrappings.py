"""Every way of wrapping a secret that is measured, written anew for the benchmark.

A wrapping takes the bytes of a sample and gives the bytes of a whole body, with honest
text around it. The product's own decoders are not used, so that they are not measured
against themselves.
"""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import html
import io
import json
import lzma
import quopri
import random
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

BEFORE = b"The deployment of the service failed again, here is what I have so far: "
AFTER = b" and that is all that the log says about it. Please have a look at it.\n"

Wrap = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """``single`` ones are one step that a program or a model does with one call.

    ``encoding`` is the Content-Encoding under which the body is sent.
    """

    name: str
    wrap: Wrap
    single: bool = True
    encoding: str = ""


def _around(inner: bytes) -> bytes:
    return BEFORE + inner + AFTER


def _text(sample: bytes) -> str:
    return sample.decode("latin-1")


def _in_text(make: Callable[[bytes], bytes | str]) -> Wrap:
    def wrap(sample: bytes, _: random.Random) -> bytes:
        made = make(sample)
        return _around(made.encode("latin-1") if isinstance(made, str) else made)

    return wrap


def _whole(make: Callable[[bytes], bytes]) -> Wrap:
    """Wrap the text around the sample as well."""
    return lambda sample, _: make(_around(sample))


def _json(sample: bytes) -> bytes:
    message = {"role": "user", "content": _text(_around(sample))}
    return json.dumps({"model": "example", "messages": [message]}).encode()


def _json_nested(sample: bytes) -> bytes:
    arguments = json.dumps({"path": ".env", "content": _text(_around(sample))})
    call = {"id": "call_1", "function": {"name": "write_file", "arguments": arguments}}
    return json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}]}).encode()


def _json_thrice(sample: bytes) -> bytes:
    return json.dumps({"payload": _json_nested(sample).decode()}).encode()


def _base64_at(offset: int) -> Wrap:
    return _in_text(lambda sample: base64.b64encode(b"x" * offset + b" " * 3 + sample))


def _mime(sample: bytes) -> bytes:
    return b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(
        _around(sample)
    ).replace(b"\n", b"\r\n")


def _escaped(sample: bytes, chance: random.Random) -> bytes:
    """Escape one character of four as a program that is not sure of them would."""
    parts = (
        f"\\u{byte:04x}" if not chance.randrange(4) else json.dumps(chr(byte))[1:-1]
        for byte in sample
    )
    return b'{"content": "' + "".join(parts).encode() + b'"}'


def _multipart(sample: bytes) -> bytes:
    return (
        b'--b1\r\nContent-Disposition: form-data; name="file"; filename="a.env"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + _around(sample) + b"\r\n--b1--\r\n"
    )


def _form(sample: bytes) -> bytes:
    return urllib.parse.urlencode({"title": "why", "text": _around(sample)}).encode()


def _percent_all(sample: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in sample)


def _zip(sample: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/a.env", _around(sample))
    return held.getvalue()


def _tar_gz(sample: bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        member = tarfile.TarInfo("notes/a.env")
        member.size = len(_around(sample))
        archive.addfile(member, io.BytesIO(_around(sample)))
    return held.getvalue()


def _protobuf(sample: bytes) -> bytes:
    """Two string fields (https://protobuf.dev/programming-guides/encoding/)."""

    def field(number: int, value: bytes) -> bytes:
        length, size = b"", len(value)
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + value

    return field(1, b"example") + field(2, sample) + field(3, AFTER)


def _quoted(sample: bytes) -> bytes:
    return b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + quopri.encodestring(
        _around(sample)
    )


def _concatenated(sample: bytes, chance: random.Random) -> bytes:
    cuts = sorted(chance.sample(range(1, len(sample)), min(3, len(sample) - 1)))
    parts = [sample[a:b] for a, b in zip([0, *cuts], [*cuts, len(sample)], strict=True)]
    joined = " + ".join(json.dumps(_text(part)) for part in parts)
    return f"const token = {joined};\n".encode()


def _zero_width(sample: bytes, _: random.Random) -> bytes:
    return _around("\u200b".join(_text(sample)).encode())


def _full_width(sample: bytes, _: random.Random) -> bytes:
    wide = "".join(chr(byte + 0xFEE0) if 0x21 <= byte <= 0x7E else chr(byte) for byte in sample)
    return _around(wide.encode())


def _labels(sample: bytes, _: random.Random) -> bytes:
    digits = sample.hex()
    labels = [digits[at : at + 60] for at in range(0, len(digits), 60)]
    return ".".join([*labels, "example.com"]).encode()


_B64 = base64.b64encode

PLAIN = Wrapping(name="as it is", wrap=_in_text(bytes))

WRAPPINGS: tuple[Wrapping, ...] = (
    PLAIN,
    Wrapping(name="JSON string", wrap=lambda sample, _: _json(sample)),
    Wrapping(name="JSON in JSON", wrap=lambda sample, _: _json_nested(sample)),
    Wrapping(name="base64, offset 0", wrap=_base64_at(0)),
    Wrapping(name="base64, offset 1", wrap=_base64_at(1)),
    Wrapping(name="base64, offset 2", wrap=_base64_at(2)),
    Wrapping(name="base64, url-safe", wrap=_in_text(base64.urlsafe_b64encode)),
    Wrapping(name="base64 without padding", wrap=_in_text(lambda s: _B64(s).rstrip(b"="))),
    Wrapping(name="base64, MIME lines", wrap=lambda sample, _: _mime(sample)),
    Wrapping(name="base64 of a whole text", wrap=_whole(_B64)),
    Wrapping(name="hex", wrap=_in_text(lambda s: s.hex())),
    Wrapping(name="hex, upper", wrap=_in_text(lambda s: s.hex().upper())),
    Wrapping(name="hex, spaced", wrap=_in_text(lambda s: s.hex(" "))),
    Wrapping(name=r"\x escapes", wrap=_in_text(lambda s: "".join(f"\\x{b:02x}" for b in s))),
    Wrapping(name="percent, all", wrap=_in_text(_percent_all)),
    Wrapping(name="percent, as needed", wrap=_in_text(lambda s: urllib.parse.quote(s, safe=""))),
    Wrapping(name="form", wrap=lambda sample, _: _form(sample)),
    Wrapping(name="entities, decimal", wrap=_in_text(lambda s: "".join(f"&#{b};" for b in s))),
    Wrapping(name="entities, hex", wrap=_in_text(lambda s: "".join(f"&#x{b:x};" for b in s))),
    Wrapping(name="entities, as needed", wrap=_whole(lambda s: html.escape(_text(s)).encode())),
    Wrapping(name=r"\u escapes, all", wrap=_in_text(lambda s: "".join(f"\\u{b:04x}" for b in s))),
    Wrapping(name=r"\u escapes, some", wrap=_escaped),
    Wrapping(name="UTF-16 LE", wrap=_whole(lambda s: _text(s).encode("utf-16-le"))),
    Wrapping(name="UTF-16 BE", wrap=_whole(lambda s: _text(s).encode("utf-16-be"))),
    Wrapping(name="base32", wrap=_in_text(base64.b32encode)),
    Wrapping(name="quoted-printable", wrap=lambda sample, _: _quoted(sample)),
    Wrapping(name="multipart", wrap=lambda sample, _: _multipart(sample)),
    Wrapping(name="protobuf", wrap=lambda sample, _: _protobuf(sample)),
    Wrapping(name="gzip file", wrap=_whole(gzip.compress)),
    Wrapping(name="zip", wrap=lambda sample, _: _zip(sample)),
    Wrapping(name="tar.gz", wrap=lambda sample, _: _tar_gz(sample)),
    Wrapping(name="gzip, sent as such", wrap=_whole(gzip.compress), encoding="gzip"),
    Wrapping(name="deflate, sent as such", wrap=_whole(zlib.compress), encoding="deflate"),
    Wrapping(name="gzip and base64", wrap=_in_text(lambda s: _B64(gzip.compress(s))), single=False),
    Wrapping(name="zlib and base64", wrap=_in_text(lambda s: _B64(zlib.compress(s))), single=False),
    Wrapping(name="base64 twice", wrap=_in_text(lambda s: _B64(_B64(s))), single=False),
    Wrapping(name="base64 in JSON", wrap=lambda s, _: _json(_B64(s)), single=False),
    Wrapping(
        name="hex in JSON in JSON", wrap=lambda s, _: _json_nested(s.hex().encode()), single=False
    ),
    Wrapping(name="JSON three deep", wrap=lambda sample, _: _json_thrice(sample), single=False),
    Wrapping(
        name="percent twice",
        wrap=_in_text(lambda s: urllib.parse.quote(_percent_all(s))),
        single=False,
    ),
    Wrapping(name="JSON in a form", wrap=lambda s, _: _form(_json(s)), single=False),
    Wrapping(name='"a" + "b"', wrap=_concatenated, single=False),
    Wrapping(name="reversed", wrap=_in_text(lambda s: s[::-1]), single=False),
    Wrapping(name="rot13", wrap=_in_text(lambda s: codecs.encode(_text(s), "rot13")), single=False),
    Wrapping(name="zero-width between", wrap=_zero_width, single=False),
    Wrapping(name="full-width letters", wrap=_full_width, single=False),
    Wrapping(name="spaced out", wrap=_in_text(lambda s: " ".join(_text(s))), single=False),
    Wrapping(name="labels of a host name", wrap=_labels, single=False),
    Wrapping(name="ascii85", wrap=_in_text(base64.a85encode), single=False),
    Wrapping(name="base85", wrap=_in_text(base64.b85encode), single=False),
    Wrapping(name="bzip2 and base64", wrap=_in_text(lambda s: _B64(bz2.compress(s))), single=False),
    Wrapping(name="xz and base64", wrap=_in_text(lambda s: _B64(lzma.compress(s))), single=False),
)
