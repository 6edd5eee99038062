r"""Read bytes that are listed line by line: uuencode, and dumps of xxd, hexdump and od.

Rules:

- A listing ends with the first line that is none of it; what a line says is given with it.
- Lines end with a newline, or with ``\n`` as a JSON string has it.

Sources: POSIX uuencode and od, the manuals of xxd and hexdump.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator

_LINE_BYTES_MAX = 512
_OFFSET_DIGITS = range(6, 17)
_HEX = b"0123456789abcdefABCDEF"
_OCTAL = b"01234567"
_BYTE, _OCTAL_BYTE, _WORD, _OCTAL_WORD = 2, 3, 4, 6
_DUMPED_BYTES_MIN = 2
_ESCAPED = {b"\\0": 0, b"\\a": 7, b"\\b": 8, b"\\t": 9, b"\\n": 10, b"\\v": 11, b"\\f": 12,
            b"\\r": 13}  # fmt: skip


class _Listing:
    """Lines that each say some bytes; ``read`` returns None for a line that is no such one."""

    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        self._read = read
        self._rest = b""
        self._escaped: bool | None = None
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take ``data`` and yield what its whole lines say."""
        text = self._rest + data
        if self._escaped is None:
            plain, escaped = text.find(b"\n"), text.find(b"\\n")
            if plain < 0 and escaped < 0:
                self._rest = text
                self._end_if_long()
                return
            self._escaped = escaped >= 0 and (plain < 0 or escaped < plain)
        *lines, self._rest = _split(text) if self._escaped else text.split(b"\n")
        out = []
        for line in lines:
            said = self._read(line.rstrip(b"\r"))
            if said is None:
                self.ended, self.unused = True, b" "
                break
            out.append(said)
        self._end_if_long()
        if out:
            yield b"".join(out)

    def _end_if_long(self) -> None:
        if len(self._rest) > _LINE_BYTES_MAX:
            self.ended, self.unused = True, self._rest


def _split(text: bytes) -> list[bytes]:
    """Return lines of a JSON string; the last one as it is written, as it may go on."""
    lines = text.replace(b"\\\\", b"\0").split(b"\\n")
    whole = [line.replace(b'\\"', b'"').replace(b"\\r", b"") for line in lines[:-1]]
    last = lines[-1].replace(b"\0", b"\\\\")
    return [*(line.replace(b"\0", b"\\") for line in whole), last]


def uuencoded() -> _Listing:
    """Return the decoder of uuencode, from its ``begin`` line on."""
    return _Listing(_uu_line)


def _uu_line(line: bytes) -> bytes | None:
    if line.startswith(b"begin "):
        return b""
    try:
        return binascii.a2b_uu(line) or None
    except binascii.Error:
        return None


def dumped() -> _Listing:
    """Return the decoder of a dump, from its first offset on."""
    return _Listing(_dump_line)


def _dump_line(line: bytes) -> bytes | None:
    """Return the bytes of a line of a dump; a ``*`` stands for lines like the last one."""
    if line == b"*":
        return b""
    offset, _, rest = line.partition(b" ")
    big_endian = offset.endswith(b":")
    offset = offset.removesuffix(b":")
    if len(offset) not in _OFFSET_DIGITS or offset.strip(_HEX):
        return None
    groups = _groups(rest.partition(b"|")[0], big_endian=big_endian)
    if not groups:
        return b""
    said = [_said(group, big_endian=big_endian) for group in groups]
    return None if None in said else b"".join(one for one in said if one is not None)


def _groups(rest: bytes, *, big_endian: bool) -> list[bytes]:
    """Return the groups of digits of a line without the text that stands behind them."""
    if big_endian:
        rest = rest.lstrip(b" ").partition(b"  ")[0]
    return rest.partition(b"  >")[0].split()


def _said(group: bytes, *, big_endian: bool) -> bytes | None:
    """Return the bytes of one group: hexadecimal, octal, or a character as ``od -c`` has it."""
    size = len(group)
    if big_endian or size == _BYTE:
        escaped = _ESCAPED.get(group)
        if escaped is not None and not big_endian:
            return bytes((escaped,))
        return None if size & 1 or group.strip(_HEX) else binascii.a2b_hex(group)
    if size == 1:
        return group
    if size == _WORD and not group.strip(_HEX):
        return binascii.a2b_hex(group)[::-1]
    if size in (_OCTAL_BYTE, _OCTAL_WORD) and not group.strip(_OCTAL):
        value = int(group, 8)
        return (
            (value & 0xFFFF).to_bytes(2, "little") if size == _OCTAL_WORD else bytes((value & 255,))
        )
    return None
