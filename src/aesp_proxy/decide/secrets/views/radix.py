"""Read bytes written in another base: base64, base32, hex, base85, at every alignment.

Rules:

- What does not belong to the alphabet is passed over (spaces, line ends, quotes), and
  every alignment is tried, so it does not matter where in the text the value begins.
- The texts of the alignments are joined with ``SEAM``; nothing here fails on any input.
- Time is linear in the region.
"""

from __future__ import annotations

import binascii

SEAM = b"\n\n"

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_NOT_BASE64 = bytes(byte for byte in range(256) if byte not in _BASE64 + b"-_")
_HEX = b"0123456789abcdefABCDEF"
_NOT_HEX = bytes(byte for byte in range(256) if byte not in _HEX)
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567abcdefghijklmnopqrstuvwxyz"
_NOT_BASE32 = bytes(byte for byte in range(256) if byte not in _BASE32)
_TO_PYTHON_32 = bytes.maketrans(
    _BASE32, b"0123456789abcdefghijklmnopqrstuv0123456789abcdefghijklmnop"
)
_NO_DIGIT = 255


def _table(alphabet: bytes) -> bytes:
    return bytes(alphabet.find(byte) if byte in alphabet else _NO_DIGIT for byte in range(256))


_ASCII85 = _table(bytes(range(33, 118)))
_BASE85 = _table(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
)
_Z85 = _table(
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)


def base64_texts(region: bytes) -> bytes:
    """Return what ``region`` says in base64, standard or URL-safe, at its four alignments."""
    for escape, letter in _MARKS if b"\\" in region or b"%" in region else ():
        region = region.replace(escape, letter)
    digits = region.translate(_URL_SAFE, _NOT_BASE64)
    return SEAM.join(_from_base64(digits[skip:]) for skip in range(4))


_MARKS = (
    (b"\\n", b""),
    (b"\\r", b""),
    (b"\\t", b""),
    (b"\\u002b", b"+"),
    (b"\\u002B", b"+"),
    (b"\\u002f", b"/"),
    (b"\\u002F", b"/"),
    (b"\\u003d", b""),
    (b"\\u003D", b""),
    (b"%2b", b"+"),
    (b"%2B", b"+"),
    (b"%2f", b"/"),
    (b"%2F", b"/"),
    (b"%3d", b""),
    (b"%3D", b""),
    (b"%0d", b""),
    (b"%0D", b""),
    (b"%0a", b""),
    (b"%0A", b""),
)


def base64_text(digits: bytes) -> bytes:
    """Return what ``digits`` say in base64, standard or URL-safe, from the first on."""
    return _from_base64(digits.translate(_URL_SAFE))


def _from_base64(digits: bytes) -> bytes:
    rest = len(digits) % 4
    if rest == 1:
        digits = digits[:-1]
    elif rest:
        digits += b"=" * (4 - rest)
    return binascii.a2b_base64(digits)


def base32_texts(region: bytes) -> bytes:
    """Return what ``region`` says in base32 (RFC 4648 section 6), at its eight alignments."""
    digits = region.translate(_TO_PYTHON_32, _NOT_BASE32)
    if not digits:
        return b""
    number = int(digits, 32)  # linear: the base is a power of two
    size = (5 * len(digits) + 7) // 8
    return SEAM.join((number >> shift).to_bytes(size, "big") for shift in range(8))


def base32_text(digits: bytes) -> bytes:
    """Return what ``digits`` say in base32 from the first on."""
    number = int(digits.translate(_TO_PYTHON_32), 32)
    spare = 5 * len(digits) % 8
    return (number >> spare).to_bytes(5 * len(digits) // 8, "big")


def hex_texts(region: bytes) -> bytes:
    """Return what ``region`` says in hexadecimal, plain or with marks between, both ways."""
    region = region.replace(b"0x", b"").replace(b"0X", b"").replace(b"\\n", b"")
    digits = region.translate(None, _NOT_HEX)
    ways = (digits, digits[1:])
    return SEAM.join(binascii.a2b_hex(way[: len(way) & ~1]) for way in ways)


def ascii85_texts(region: bytes) -> bytes:
    """Return what ``region`` says in Ascii85, as Adobe has it, at its five alignments."""
    return _base85_texts(region, _ASCII85)


def base85_texts(region: bytes) -> bytes:
    """Return what ``region`` says in the base 85 of RFC 1924 and git, at its five alignments."""
    return _base85_texts(region, _BASE85)


def z85_texts(region: bytes) -> bytes:
    """Return what ``region`` says in Z85 (ZeroMQ RFC 32), at its five alignments."""
    return _base85_texts(region, _Z85)


def ascii85_text(region: bytes, at: int) -> bytes:
    """Return what ``region`` says in Ascii85, of which a group ends at ``at``."""
    return _base85_text(region, at, _ASCII85)


def base85_text(region: bytes, at: int) -> bytes:
    """Return what ``region`` says in the base 85 of RFC 1924, of which a group ends at ``at``."""
    return _base85_text(region, at, _BASE85)


def z85_text(region: bytes, at: int) -> bytes:
    """Return what ``region`` says in Z85, of which a group ends at ``at``."""
    return _base85_text(region, at, _Z85)


def _base85_digits(region: bytes, table: bytes) -> bytes:
    region = region.replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    return region.translate(table, b" \t\r\n")


def _base85_text(region: bytes, at: int, table: bytes) -> bytes:
    before = _base85_digits(region[:at], table)
    digits = before + _base85_digits(region[at:], table)
    return _from_base85(digits[len(before) % 5 :])


def _base85_texts(region: bytes, table: bytes) -> bytes:
    digits = _base85_digits(region, table)
    return SEAM.join(_from_base85(digits[skip:]) for skip in range(5))


def _from_base85(digits: bytes) -> bytes:
    """Return whole groups as bytes; a group that is none becomes four newlines."""
    padded = digits + b"\x54" * (-len(digits) % 5)
    out = []
    for at in range(0, len(padded), 5):
        a, b, c, d, e = padded[at : at + 5]
        value = (((a * 85 + b) * 85 + c) * 85 + d) * 85 + e
        good = value < 1 << 32 and _NO_DIGIT not in (a, b, c, d, e)
        out.append(value.to_bytes(4, "big") if good else b"\n\n\n\n")
    return b"".join(out)
