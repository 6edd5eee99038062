"""Fuzz target: every view shows something for any bytes, and archives read alike however cut.

The first bytes choose what is packed, how it is damaged and where it is cut; the rest is
read by every view, and packed by every packer of the standard library and ours.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from functools import partial

import zstandard

from aesp_proxy.decide.secrets.views.packed import KINDS, ChildWatch, Packed, packed_kind
from aesp_proxy.decide.secrets.views.runs import Runs, is_worth, kinds_of, shown
from aesp_proxy.decide.secrets.views.table import VIEWS, interruptions

SHOWN_TIMES_MAX = 16
SHOWN_BYTES_FREE = 4_096


class FindingError(AssertionError):
    """A promise that did not hold."""


class _Ear:
    """A watch that keeps what it sees."""

    def __init__(self) -> None:
        self.seen = b""
        self.is_closed = False

    @property
    def hold_from(self) -> int:
        """Nothing waits."""
        return len(self.seen)

    def see(self, data: bytes) -> tuple[()]:
        """Keep it."""
        self.seen += data
        return ()

    def finish(self) -> tuple[()]:
        """Nothing is found."""
        return ()

    def close(self) -> None:
        """Let go."""
        self.is_closed = True


def _zip(data: bytes, method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.txt", data)
    return file.getvalue()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", partial(gzip.compress, mtime=0)),
    "bzip2": ("bzip2", bz2.compress),
    "xz": ("xz", lzma.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zip deflate": ("zip", partial(_zip, method=zipfile.ZIP_DEFLATED)),
    "zip bzip2": ("zip", partial(_zip, method=zipfile.ZIP_BZIP2)),
    "zip xz": ("zip", partial(_zip, method=zipfile.ZIP_LZMA)),
    "zip stored": ("zip", partial(_zip, method=zipfile.ZIP_STORED)),
}
_NOT_READ = frozenset(("zip xz", "zip stored"))
"""LZMA in ZIP is not the xz format, and what is stored stands in clear."""


def _read(kind: str, parts: list[bytes]) -> tuple[bytes, str]:
    ear = _Ear()
    watch: ChildWatch = ear
    packed = Packed(kind, 0, lambda: watch)
    for part in parts:
        packed.feed(part)
        if not 0 <= packed.hold_from <= sum(map(len, parts)):
            raise FindingError("it holds what is not there")
    packed.finish()
    if packed.is_open or not ear.is_closed:
        raise FindingError("a packed part does not end")
    return ear.seen, packed.problem


def _archives(head: bytes, data: bytes) -> None:
    for name, (kind, pack) in PACKERS.items():
        whole = pack(data)
        if packed_kind(whole) != kind:
            raise FindingError(f"{name} is not known by its first bytes")
        out, problem = _read(kind, [whole])
        if name not in _NOT_READ and (out, problem) != (data, ""):
            raise FindingError(f"{name} is not read to its end")
        broken = bytearray(whole)
        broken[head[0] % len(broken)] ^= head[1] or 1
        cut = head[2] * len(broken) // 256
        at_once = _read(kind, [bytes(broken)])
        if _read(kind, [bytes(broken[:cut]), bytes(broken[cut:])]) != at_once:
            raise FindingError(f"{name} reads otherwise when it is cut")
    for kind in KINDS:
        if KINDS[kind].opens:
            _read(kind, [KINDS[kind].start + data])


def _views(at: int, data: bytes) -> None:
    at %= len(data) + 1
    for view in VIEWS.values():
        texts = [view.show(data)]
        texts += [view.show_at(data, at)] if view.show_at is not None else []
        view.fits(data, at)
        if max(map(len, texts)) > SHOWN_TIMES_MAX * len(data) + SHOWN_BYTES_FREE:
            raise FindingError(f"{view.name} shows far more than there is")
    interruptions(data, at)
    runs = Runs()
    for piece in runs.pieces(data, 0, 0, is_last=True):
        is_worth(piece)
        kinds_of(shown(piece.view, piece.text, short=piece.short), short=piece.short)


def fuzz_one(data: bytes) -> None:
    """Run one input."""
    head, rest = data[:4].ljust(4, b"\0"), data[4:]
    _views(head[3] * 16, rest)
    if head[3] & 1 and rest:
        _archives(head, rest)
