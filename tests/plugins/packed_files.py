"""Files in which something is packed, made from bytes: git packs, documents, pictures."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib

_BLOB, _BY_OFFSET, _BY_NAME = 3, 6, 7


def _object_head(kind: int, size: int) -> bytes:
    head, size = bytearray(((kind << 4) | (size & 15),)), size >> 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head)


def _offset(back: int) -> bytes:
    out = [back & 0x7F]
    while back := back >> 7:
        back -= 1
        out.insert(0, 0x80 | (back & 0x7F))
    return bytes(out)


def _size(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes((*out, value))


def _copy(start: int, size: int) -> bytes:
    return b"\xff" + start.to_bytes(4, "little") + size.to_bytes(3, "little")


def _insert(data: bytes) -> bytes:
    return b"".join(
        bytes((len(data[at : at + 127]),)) + data[at : at + 127] for at in range(0, len(data), 127)
    )


def change(base: bytes, at: int, until: int, text: bytes) -> bytes:
    """Return the delta that puts ``text`` for ``base[at:until]`` (gitformat-pack(5))."""
    size = len(base) - (until - at) + len(text)
    behind = _copy(until, len(base) - until) if until < len(base) else b""
    return _size(len(base)) + _size(size) + _copy(0, at) + _insert(text) + behind


def git_pack(*blobs: bytes, changes: tuple[bytes, ...] = (), thin: bytes = b"") -> bytes:
    """Return a pack of ``blobs``, and of ``changes`` to the last of them.

    ``thin`` is a change of an object that the pack does not hold.
    """
    count = len(blobs) + len(changes) + bool(thin)
    pack = bytearray(b"PACK" + (2).to_bytes(4, "big") + count.to_bytes(4, "big"))
    last = 0
    for blob in blobs:
        last = len(pack)
        pack += _object_head(_BLOB, len(blob)) + zlib.compress(blob)
    for delta in changes:
        back = len(pack) - last
        pack += _object_head(_BY_OFFSET, len(delta)) + _offset(back) + zlib.compress(delta)
    if thin:
        pack += _object_head(_BY_NAME, len(thin)) + bytes(range(20)) + zlib.compress(thin)
    return bytes(pack) + hashlib.sha1(pack, usedforsecurity=False).digest()


def pdf(text: bytes) -> bytes:
    """Return a document whose one page says ``text``, its stream deflated."""
    return _page(b"(" + text + b") Tj")


def drawn_pdf(*pieces: bytes) -> bytes:
    """Return a document whose page draws a word in ``pieces``, as typesetters do."""
    return _page(b"[" + b" -12 ".join(b"(%b)" % piece for piece in pieces) + b"] TJ")


def _page(drawn: bytes) -> bytes:
    page = zlib.compress(b"BT /F1 12 Tf 72 720 Td " + drawn + b" ET")
    return (
        b"%%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"4 0 obj<</Length %d/Filter/FlateDecode>>\nstream\n%b\nendstream endobj\n"
        b"trailer<</Root 1 0 R>>\n%%%%EOF\n"
    ) % (len(page), page)


def docx(*runs: bytes) -> bytes:
    """Return a document whose one paragraph is cut into ``runs``, as editors cut it."""
    said = b"".join(b"<w:r><w:rPr><w:b/></w:rPr><w:t>%b</w:t></w:r>" % run for run in runs)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<w:document><w:p>" + said + b"</w:p></w:document>")
    return held.getvalue()


def png(text: bytes) -> bytes:
    """Return a picture of one point with a deflated comment (zTXt)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + check

    head = (1).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text))
        + chunk(b"IDAT", zlib.compress(bytes(2)))
        + chunk(b"IEND", b"")
    )
