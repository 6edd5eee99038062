"""Read git's patches as they stream: the added lines of each hunk, with commit and file.

A hunk is as long as it says, so no line of a file can pass for a header of git's. Lines
may be of any length. Format: git-log(1); git-diff(1), "Combined diff format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Final

from aesp_proxy.cli.scan.leak import Source, file_name
from aesp_proxy.cli.scan.pieces import CHUNK_BYTES
from aesp_proxy.errors import UnavailableError

MESSAGE: Final = "(commit message)"
_READ_BYTES: Final = 64 * 1024
_HEAD_BYTES_MAX: Final = 16 << 20
_COMMIT_FIELDS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The added lines of a hunk; ``chunks`` is read to its end before the next hunk."""

    source: Source
    first_line: int
    chunks: Iterator[bytes]


class PatchReader:
    """Reads one output of git; ``commits`` counts, ``hidden`` is what git did not show."""

    def __init__(self, output: IO[bytes]) -> None:
        self._read = output.readline
        self._source = Source(file="")
        self.commits = 0
        self.hidden: list[str] = []

    def added(self) -> Iterator[Added]:
        """Yield commit messages and added lines, in git's order.

        UnavailableError when the output is not what git writes.
        """
        while line := self._read(_READ_BYTES):
            if line.startswith(b"\0"):
                added = self._commit(line)
            elif line.startswith(b"@@"):
                added = self._hunk(self._rest(line))
            else:
                self._header(self._rest(line))
                continue
            yield added
            for _ in added.chunks:
                pass

    def _rest(self, line: bytes) -> bytes:
        """Return a header whole."""
        while not line.endswith(b"\n") and (more := self._read(_READ_BYTES)):
            line += more
            if len(line) > _HEAD_BYTES_MAX:
                raise _damaged()
        return line

    def _commit(self, line: bytes) -> Added:
        while line.count(b"\0") < _COMMIT_FIELDS:
            more = self._read(_READ_BYTES)
            if not more or len(line) > _HEAD_BYTES_MAX:
                raise _damaged()
            line += more
        _, commit, date, author, email, message, _ = line.split(b"\0", _COMMIT_FIELDS)
        self.commits += 1
        self._source = Source(
            file=MESSAGE,
            commit=file_name(commit),
            author=file_name(author),
            email=file_name(email),
            date=file_name(date),
        )
        steps = range(0, len(message), CHUNK_BYTES)
        chunks = (message[at : at + CHUNK_BYTES] for at in steps)
        return Added(source=self._source, first_line=1, chunks=chunks)

    def _header(self, line: bytes) -> None:
        if line.startswith(b"+++ "):
            name = _path(line[4:].removesuffix(b"\n"))
            self._source = replace(self._source, file=file_name(name))
        elif line.startswith(b"Binary files "):
            self.hidden.append(file_name(line.strip()))

    def _hunk(self, line: bytes) -> Added:
        """Read ``@@ -a,b +c,d @@``, which has an ``@`` and a ``-a,b`` more for each more parent."""
        parents = len(line) - len(line.lstrip(b"@")) - 1
        ranges = line.split(b" ")[1 : parents + 2]
        try:
            counts = [_count(each) for each in ranges]
            first_line = int(ranges[parents].partition(b",")[0])
        except (ValueError, IndexError):
            raise _damaged() from None
        chunks = self._chunks(parents, counts)
        return Added(source=self._source, first_line=first_line, chunks=chunks)

    def _chunks(self, parents: int, counts: list[int]) -> Iterator[bytes]:
        """Yield the added lines; one that a parent has leaves an empty line in its place."""
        parts: list[bytes] = []
        size = 0
        while any(counts):
            line = self._read(_READ_BYTES)
            if line.startswith(b"\\"):  # No newline at end of file
                continue
            new = _take(line[:parents], counts)
            part = line[parents:]
            while True:
                if new:
                    parts.append(part)
                    size += len(part)
                if line.endswith(b"\n"):
                    break
                line = part = self._read(_READ_BYTES)
                if not line:
                    raise _damaged()
                if size > CHUNK_BYTES - _READ_BYTES:
                    yield b"".join(parts)
                    parts, size = [], 0
            if new is None:
                parts.append(b"\n")
                size += 1
            if size > CHUNK_BYTES - _READ_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)


def _take(signs: bytes, counts: list[int]) -> bool | None:
    """Count a line of a hunk: True when no parent has it, None when one does, False when gone."""
    if not signs or signs.strip(b"+- ") or len(signs) != len(counts) - 1:
        raise _damaged()
    gone = b"-" in signs
    for number, sign in enumerate(signs):
        counts[number] -= sign == (0x2D if gone else 0x20)
    counts[-1] -= not gone
    if min(counts) < 0:
        raise _damaged()
    if gone:
        return False
    return True if signs == b"+" * len(signs) else None


def _count(span: bytes) -> int:
    _, comma, count = span[1:].partition(b",")
    return int(count) if comma else 1


def _path(name: bytes) -> bytes:
    """Return the path that git wrote: with ``b/`` before it, quoted where it is odd."""
    if name.startswith(b'"') and name.endswith(b'"'):
        name = name[1:-1].decode("unicode_escape").encode("latin-1")
    else:
        name = name.removesuffix(b"\t")
    return name.removeprefix(b"b/")


def _damaged() -> UnavailableError:
    return UnavailableError("what git wrote cannot be read: it ended early, or is no patch")
