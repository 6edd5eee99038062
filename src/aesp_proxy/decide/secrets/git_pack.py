"""Read a pack of git: objects deflated one behind the other, some as changes of others.

Rules:

- What comes out is what the pack says anew: objects as they are, of changes what they
  insert, with what stands around it where the object that is changed came before.
- Memory is bounded: only small objects are remembered to be changed, the last ones.
- What is changed may be with the receiver alone (``git push`` sends thin packs): there only
  what is inserted can be told.

Source: gitformat-pack(5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from aesp_proxy.decide.secrets.codings import DamagedError, Zlib, has_zlib_head

PACK_START = b"PACK\0\0\0"
_HEAD_BYTES = 12
_VERSIONS = (2, 3)
_OBJECT_HEAD_BYTES_MAX = 64
_WHOLE_KINDS = (1, 2, 3, 4)
_CHANGE_BY_OFFSET = 6
_CHANGE_BY_NAME = 7
_NAME_BYTES = (20, 32)
_KEPT_BYTES_EACH = 1 << 16
_KEPT_BYTES = 1 << 21
_KEPT_BYTES_MORE = 256
"""What an object takes beside its bytes."""
_AROUND_BYTES = 64
"""What of a copied part is shown beside what is inserted: the name or prefix of a value."""
_BETWEEN = b"\n"


class GitPack:
    """One pack. Once it has ``ended``, ``unused`` is its check sum and what follows."""

    def __init__(self) -> None:
        self._waiting = b""
        self._at = 0
        self._left = -1
        self._object: _Object | None = None
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self.ended = False
        self.unused = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take ``data`` and yield what objects say; DamagedError."""
        self._waiting += data
        if self._left < 0 and not self._begin():
            return
        while self._left:
            if self._object is None:
                self._object = self._next()
            if self._object is None:
                return
            before = len(self._waiting)
            yield from self._object.pieces(self._waiting)
            self._waiting = self._object.unused
            self._at += before - len(self._waiting)
            if not self._object.ended:
                return
            self._keep(self._object)
            self._object = None
            self._left -= 1
        self.ended, self.unused = True, self._waiting

    def _begin(self) -> bool:
        if len(self._waiting) < _HEAD_BYTES:
            return False
        head = self._waiting[:_HEAD_BYTES]
        if not head.startswith(PACK_START) or head[7] not in _VERSIONS:
            raise DamagedError
        self._left = int.from_bytes(head[8:], "big")
        self._waiting = self._waiting[_HEAD_BYTES:]
        self._at = _HEAD_BYTES
        return True

    def _next(self) -> _Object | None:
        """Read the head of the next object, None while it is not there."""
        head = self._waiting[:_OBJECT_HEAD_BYTES_MAX]
        try:
            kind, back, size = _object_head(head)
        except IndexError:
            if len(head) == _OBJECT_HEAD_BYTES_MAX:
                raise DamagedError from None
            return None
        start = self._at
        self._waiting = self._waiting[size:]
        self._at += size
        base = self._kept.get(start - back) if back else None
        return _Object(start, None if kind in _WHOLE_KINDS else _Change(base))

    def _keep(self, one: _Object) -> None:
        if one.whole is None:
            return
        self._kept[one.start] = bytes(one.whole)
        self._kept_bytes += len(one.whole) + _KEPT_BYTES_MORE
        while self._kept_bytes > _KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest) + _KEPT_BYTES_MORE


def _object_head(data: bytes) -> tuple[int, int, int]:
    """Return kind, how far back what is changed begins (0: not said), and the head's size.

    IndexError while it is not there as a whole.
    """
    kind = data[0] >> 4 & 7
    at = 1
    while data[at - 1] & 0x80:
        at += 1
    back = 0
    if kind == _CHANGE_BY_OFFSET:
        back = data[at] & 0x7F
        while data[at] & 0x80:
            at += 1
            back = (back + 1) << 7 | data[at] & 0x7F
        at += 1
    elif kind == _CHANGE_BY_NAME:
        short, long = _NAME_BYTES
        _ = data[at + long + 1]
        at += short if has_zlib_head(data[at + short : at + short + 2]) else long
    elif kind not in _WHOLE_KINDS:
        raise DamagedError
    _ = data[at]
    return kind, back, at


class _Object:
    """One object. ``whole`` is it where it is small and known, None else."""

    def __init__(self, start: int, change: _Change | None) -> None:
        self.start = start
        self._change = change
        self._inflate = Zlib()
        self._own: bytearray | None = bytearray()
        self.unused = b""

    @property
    def ended(self) -> bool:
        return self._inflate.ended

    @property
    def whole(self) -> bytearray | None:
        return self._own if self._change is None else self._change.whole

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for piece in self._inflate.pieces(data):
            if self._change is not None:
                yield self._change.read(piece)
                continue
            self._own = _longer(self._own, piece)
            yield piece
        self.unused = self._inflate.unused if self.ended else b""
        if self.ended:
            yield _BETWEEN


class _Change:
    """A delta, read instruction by instruction; ``whole`` is what it makes of a known base."""

    def __init__(self, base: bytes | None) -> None:
        self._base = base
        self._waiting = b""
        self._sizes_left = 2
        self._before = b""
        self._after_insert = False
        self.whole: bytearray | None = None if base is None else bytearray()

    def read(self, data: bytes) -> bytes:
        """Return what the next instructions say anew."""
        text = self._waiting + data
        out: list[bytes] = []
        at = 0
        while at < len(text):
            end = self._end(text, at)
            if end > len(text):
                break
            if self._sizes_left:
                self._sizes_left -= text[at] < 0x80
            elif text[at] & 0x80:
                out.append(self._copy(text, at))
            else:
                out += (self._before, text[at + 1 : end])
                self.whole = _longer(self.whole, text[at + 1 : end])
                self._before, self._after_insert = b"", True
            at = end
        self._waiting = text[at:]
        return b"".join(out)

    def _end(self, text: bytes, at: int) -> int:
        """Return where the instruction at ``at`` ends."""
        code = text[at]
        if self._sizes_left:
            return at + 1
        if code & 0x80:
            return at + 1 + (code & 0x7F).bit_count()
        if not code:
            raise DamagedError
        return at + 1 + code

    def _copy(self, text: bytes, at: int) -> bytes:
        """Return what to show of what is copied: what stands behind an insertion."""
        numbers = iter(text[at + 1 : at + 8])
        code = text[at]
        value = sum(next(numbers) << 8 * bit for bit in range(7) if code >> bit & 1)
        start, size = value & 0xFFFFFFFF, value >> 32 or 0x10000
        copied = b"" if self._base is None else self._base[start : start + size]
        self.whole = _longer(self.whole, copied)
        after, self._after_insert = self._after_insert, False
        if after and len(copied) <= _AROUND_BYTES:
            return copied or _BETWEEN
        self._before = copied[-_AROUND_BYTES:]
        return (copied[:_AROUND_BYTES] if after else b"") + _BETWEEN


def _longer(whole: bytearray | None, piece: bytes) -> bytearray | None:
    """Return ``whole`` with ``piece`` behind it, None over what is remembered."""
    if whole is None or len(whole) + len(piece) > _KEPT_BYTES_EACH:
        return None
    whole += piece
    return whole
