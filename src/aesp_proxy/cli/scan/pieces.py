"""Scan bytes that come in chunks, of any length, and say in which line a secret stands.

Rules:

- Memory is bounded by one piece, whatever the length: pieces overlap, and a secret
  belongs to the piece in whose own part it begins, so it is told once and whole.
- Where the scanner cuts a piece short because there is too much in it, its halves are
  scanned; only a piece of ``DENSE_BYTES`` that is still too much is told as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from aesp_proxy.cli.scan.leak import Leak, Source
from aesp_proxy.cli.scan.rules import Spot
from aesp_proxy.decide.secrets.occurrence import Occurrence
from aesp_proxy.decide.secrets.rule import TOO_MANY
from aesp_proxy.model.decision import Severity

OVERLAP_BYTES = 16 * 1024
"""Seen on both sides of a piece's own part; longer than any secret that is confirmed."""

CHUNK_BYTES = (1 << 20) - 2 * OVERLAP_BYTES
DENSE_BYTES = 32 * 1024
_HALVES_OVERLAP_BYTES = 6 * 1024
_COMMENT_BYTES = 1_000
_ALLOWS = (b"gitleaks:allow", b"aesp-proxy:allow")
_CONTINUATION = bytes(range(0x80, 0xC0))


def leaks_in(
    spot: Spot, source: Source, chunks: Iterable[bytes], *, first_line: int = 1
) -> Iterator[Leak]:
    """Yield the leaks in ``chunks`` in ascending order; ``first_line`` is the number of the first.

    No chunk is longer than ``CHUNK_BYTES``. UnavailableError when the engine fails.
    """
    piece = _Piece(source, first_line)
    held = b""
    for chunk in chunks:
        if held:
            yield from piece.leaks(spot, held, last=False)
        held = piece.extend(held, chunk)
    yield from piece.leaks(spot, held, last=True)


def too_many(last: Leak) -> Leak:
    """Return the leak that says, in the place of ``last``, that there are more than are told."""
    return replace(
        last, rule=TOO_MANY, severity=Severity.CRITICAL, masked="", entropy=0.0, value=""
    )


class _Piece:
    """The piece at hand: its offset, its own part, and the line that it begins in."""

    __slots__ = ("_base", "_line", "_line_start", "_own_from", "_own_to", "_source")

    def __init__(self, source: Source, first_line: int) -> None:
        self._source = source
        self._base = self._own_from = self._own_to = 0
        self._line = first_line
        self._line_start = 0

    def extend(self, data: bytes, chunk: bytes) -> bytes:
        """Drop what no later secret needs of ``data``, and return the next piece."""
        drop = max(0, self._own_to - OVERLAP_BYTES - self._base)
        if drop:
            self._line += data.count(b"\n", 0, drop)
            newline = data.rfind(b"\n", 0, drop)
            if newline >= 0:
                self._line_start = self._base + newline + 1
            self._base += drop
        self._own_from = self._own_to
        return data[drop:] + chunk

    def leaks(self, spot: Spot, data: bytes, *, last: bool) -> Iterator[Leak]:
        """Yield the leaks that begin in the own part of the piece."""
        end = self._base + len(data)
        self._own_to = end if last else max(self._own_from, end - OVERLAP_BYTES)
        line, at = self._line, 0
        for one in _occurrences(spot, data, self._source):
            if not self._own_from <= self._base + one.start < self._own_to:
                continue
            line += data.count(b"\n", at, one.start)
            at = one.start
            yield self._leak(one, data, line)

    def _leak(self, one: Occurrence, data: bytes, line: int) -> Leak:
        if one.start == one.end:
            return _of_the_name(one, self._source)
        last = max(one.start, one.end - 1)
        start_line_at, end_line_at = _line_start(data, one.start), _line_start(data, last)
        before = self._line_start - self._base if start_line_at == 0 else 0
        end_before = self._line_start - self._base if end_line_at == 0 else 0
        return Leak(
            source=self._source,
            rule=one.rule,
            severity=one.severity,
            start_line=line,
            end_line=line + data.count(b"\n", one.start, last),
            start_column=one.start - start_line_at - min(0, before) + 1,
            end_column=last - end_line_at - min(0, end_before) + 1,
            chars=(
                _chars(data[start_line_at : one.start]) - min(0, before) + 1,
                _chars(data[end_line_at : one.end]) - min(0, end_before) + 1,
            ),
            offset=self._base + one.start,
            length=one.end - one.start,
            masked=one.masked,
            entropy=one.entropy,
            value=one.fingerprint,
            via=one.via,
            allowed=_is_allowed(data, one.start, one.end),
        )


def _of_the_name(one: Occurrence, source: Source) -> Leak:
    """Return what is said of a file by its name: it stands in no line."""
    return Leak(
        source=source,
        rule=one.rule,
        severity=one.severity,
        start_line=0,
        end_line=0,
        start_column=0,
        end_column=0,
        chars=(0, 0),
        offset=0,
        length=0,
        masked="",
        entropy=0.0,
        value=one.fingerprint,
    )


def _line_start(data: bytes, at: int) -> int:
    return data.rfind(b"\n", 0, at) + 1


def _chars(data: bytes) -> int:
    """Return how many code points UTF-8 has; of other bytes, how many begin one."""
    return len(data) if data.isascii() else len(data.translate(None, _CONTINUATION))


def _is_allowed(data: bytes, start: int, end: int) -> bool:
    """Tell whether a comment on the secret's lines, and near it, lets it be."""
    first = max(_line_start(data, start), start - _COMMENT_BYTES)
    newline = data.find(b"\n", end)
    last = min(len(data) if newline < 0 else newline, end + _COMMENT_BYTES)
    around = data[first:last]
    return any(word in around for word in _ALLOWS)


def _occurrences(spot: Spot, data: bytes, source: Source) -> list[Occurrence]:
    found, cut = spot(data, source)
    if not cut:
        return list(found)
    if len(data) <= DENSE_BYTES:
        return [*found, _too_many(len(data))]
    middle = len(data) // 2
    left = _occurrences(spot, data[: middle + _HALVES_OVERLAP_BYTES], source)
    shift = middle - _HALVES_OVERLAP_BYTES
    right = [_moved(one, shift) for one in _occurrences(spot, data[shift:], source)]
    return [
        *(one for one in left if one.start < middle),
        *(one for one in right if one.start >= middle),
    ]


def _moved(one: Occurrence, by: int) -> Occurrence:
    return replace(one, start=one.start + by, end=one.end + by)


def _too_many(length: int) -> Occurrence:
    return Occurrence(
        rule=TOO_MANY,
        severity=Severity.CRITICAL,
        start=length - 1,
        end=length,
        masked="",
        fingerprint="",
        entropy=0.0,
    )
