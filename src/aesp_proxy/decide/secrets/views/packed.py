"""Look into what is packed inside other bytes: files that were compressed, members of archives.

Rules:

- A packed stream is known by its first bytes and read to its end, however long it is;
  memory does not grow with it.
- What it inflates to is watched like a body, one view deeper.
- What is damaged is no such stream: what came out before was looked at. What may not be
  read further, over a cap or in an archive that cannot be opened, is a problem.

Sources: RFC 1952, 8878, the xz and bzip2 formats, PKWARE's APPNOTE for ZIP members.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aesp_proxy.decide.secrets.codings import inflates
from aesp_proxy.decide.secrets.git_pack import PACK_START
from aesp_proxy.decide.secrets.inflate import Inflater
from aesp_proxy.decide.secrets.reference import Candidate

INFLATED_BYTES_MAX = 64 << 20
INFLATE_RATIO_MAX = 1_100
"""Deflate makes at most 1,032 of one: a blank page of a document does."""
GIT_BYTES_MAX = 1 << 30
"""A pack is a whole history: as much as a body may inflate to."""
HELD_BYTES_MAX = 1 << 16
WINDOW_BYTES = 1_100
_PIECE_BYTES = 2_048
HEAD_BYTES = 64
GIT = "git pack"
_PICTURE = b"IDAT"
_ZIP_HEAD_BYTES = 30
_ZIP_NAMES_BYTES_MAX = 4_096
_LISTINGS = frozenset(("uuencode", "dump"))
_ZIP_METHODS = {0: "", 8: "raw deflate", 12: "bzip2", 93: "zstd", 95: "xz"}
_ZIP_METHODS_NOT_READ = frozenset((1, 6, 9, 14, 96, 97, 98, 99))


@dataclass(frozen=True, slots=True, kw_only=True)
class Magic:
    """The first bytes of what is packed; ``kind`` names it, ``opens`` tells if it can be read.

    ``behind`` is an expression for what must follow ``start``, where that alone says little;
    ``is_wide``: bytes above 0x7f follow soon.
    """

    kind: str
    start: bytes
    behind: bytes = b""
    opens: bool = True
    is_wide: bool = False

    def begin(self, text: bytes, end: int) -> int:
        """Return where in ``text`` it begins, of which what it is known by ends at ``end``."""
        return text.rfind(self.start, 0, end) if self.behind else end - len(self.start)


MAGICS = (
    Magic(kind="gzip", start=b"\x1f\x8b\x08"),
    Magic(kind="zip", start=b"PK\x03\x04"),
    Magic(kind="zstd", start=b"\x28\xb5\x2f\xfd"),
    *(Magic(kind="bzip2", start=b"BZh%d1AY&SY" % level) for level in range(1, 10)),
    Magic(kind="xz", start=b"\xfd7zXZ\x00"),
    Magic(kind=GIT, start=PACK_START),
    Magic(kind="7z", start=b"7z\xbc\xaf\x27\x1c", opens=False),
    Magic(kind="rar", start=b"Rar!\x1a\x07", opens=False),
    Magic(kind="lzop", start=b"\x89LZO\0\r\n\x1a\n", opens=False),
    Magic(kind="snappy", start=b"\xff\x06\0\0sNaPpY", opens=False),
    Magic(kind="cab", start=b"MSCF\0\0\0\0", opens=False),
)


def _one_of(fits: Callable[[int], bool]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % byte for byte in range(256) if fits(byte)) + b"]"


_BLOCKS = _one_of(lambda byte: byte & 7 in (2, 3) or (byte & 7 in (4, 5) and byte >> 3 < 30))
"""How a compressed block begins (RFC 1951 section 3.2.3)."""
_LZ4 = _one_of(lambda byte: byte >> 6 == 1 and not byte & 2) + b"[@P`p]"
"""Version and size of the blocks of a frame (LZ4 Frame Format Description)."""
_WITH_DICTIONARY = _one_of(lambda byte: bool(byte & 3) and not byte & 8)
"""A frame header's descriptor that names a dictionary (RFC 8878 section 3.1.1.1.1)."""
_DUMPED = (
    rb"(?:: [0-9a-f]{4} [0-9a-f]|  ?[0-9a-f]{2} [0-9a-f]{2} "
    rb"| {1,4}[0-9a-f]{3,6} | {3}[!-~] {2,3}[!-~])"
)
"""The first groups of xxd, of hexdump -C and bytes of od, of words and octal numbers, of od -c."""
LOOSE = (
    Magic(kind="lz4", start=b'\x04"M\x18', behind=_LZ4, opens=False),
    Magic(kind="zlib", start=b"x", behind=rb"[\x01\x9c\xda]" + _BLOCKS, is_wide=True),
    Magic(kind="lzma", start=b"]\0\0", behind=rb"[\x00-\x80][\x00-\x04]\xff{8}"),
    Magic(kind="uuencode", start=b"begin ", behind=rb"[0-7]{3,4} [!-~]"),
    Magic(kind="dump", start=b"0000000", behind=_DUMPED),
    Magic(
        kind="zstd with a dictionary",
        start=b"\x28\xb5\x2f\xfd",
        behind=_WITH_DICTIONARY,
        opens=False,
    ),
)
"""What is not known by one text; in base64 and hex only by what else stands there."""
KINDS = {magic.kind: magic for magic in (*MAGICS, *LOOSE)}


class ChildWatch(Protocol):
    """A watch over what a packed stream inflates to."""

    @property
    def hold_from(self) -> int:
        """The offset from which its bytes still wait."""
        ...

    def see(self, data: bytes) -> Sequence[Candidate]:
        """Return what becomes known with ``data``."""
        ...

    def finish(self) -> Sequence[Candidate]:
        """Return what only its end decides."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class Packed:
    """One packed stream that begins at ``start`` of the bytes around it.

    ``open`` is true while it takes more. ``hold_from`` is the offset around it from which
    bytes must stay: what they inflate to is not a window behind.
    """

    __slots__ = (
        "_head",
        "_inflater",
        "_marks",
        "_taken",
        "_watch",
        "_yielded",
        "is_open",
        "kind",
        "problem",
        "start",
    )

    def __init__(self, kind: str, start: int, open_watch: Callable[[], ChildWatch]) -> None:
        self.kind = kind
        self.start = start
        self.problem = ""
        self.is_open = True
        self._head = b""
        self._inflater = None if kind == "zip" else _inflater(kind)
        self._watch = open_watch()
        self._taken = 0
        self._yielded = 0
        self._marks: deque[tuple[int, int]] = deque()

    @property
    def hold_from(self) -> int:
        """The offset around it of the first byte that must stay."""
        behind = min(self._yielded - WINDOW_BYTES, self._watch.hold_from)
        while self._marks and self._marks[0][1] <= behind:
            self._marks.popleft()
        return self.start + (self._marks[0][0] if self._marks else self._taken)

    def has_read(self, offset: int) -> bool:
        """Tell whether a byte around it is one of those that it is made of, as far as it knows."""
        inflater = self._inflater
        if self.is_open or inflater is None or not inflater.ended:
            return self.is_open
        return offset < self.start + self._taken - len(inflater.unused)

    def feed(self, data: bytes) -> list[Candidate]:
        """Take the next bytes; return what becomes known."""
        found: list[Candidate] = []
        for at in range(0, len(data), _PIECE_BYTES):
            if not self.is_open:
                break
            piece = data[at : at + _PIECE_BYTES]
            self._marks.append((self._taken, self._yielded))
            self._taken += len(piece)
            found += self._take(piece)
        if self.is_open and self.start + self._taken - self.hold_from > HELD_BYTES_MAX:
            self._refuse("a packed part of it carries too little content")
        return found

    def finish(self) -> list[Candidate]:
        """End it; return what only its end decides."""
        if not self.is_open:
            return []
        self.is_open = False
        found: list[Candidate] = []
        if self._inflater is not None and self.kind in _LISTINGS:
            for content in self._inflater.feed(b"\n"):  # the last line ends here
                found += self._outward(self._watch.see(content))
        found += self._outward(self._watch.finish())
        self._watch.close()
        return found

    def _take(self, piece: bytes) -> list[Candidate]:
        if self._inflater is None:
            self._head += piece
            piece = self._member()
            if self._inflater is None:
                return []
        found: list[Candidate] = []
        for content in self._inflater.feed(piece):
            self._yielded += len(content)
            found += self._outward(self._watch.see(content))
        problem = self._inflater.problem
        if "inflates" in problem:
            self._refuse(problem.replace("the compressed body", "a packed part of it"))
        elif problem or (self._inflater.ended and self._inflater.unused):
            found += self.finish()
        return found

    def _member(self) -> bytes:
        """Read the head of a ZIP member; return what follows it, and choose how to read that."""
        head = self._head
        if len(head) < _ZIP_HEAD_BYTES:
            return b""
        flags, method = (int.from_bytes(head[at : at + 2], "little") for at in (6, 8))
        names = sum(int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
        is_known = method in _ZIP_METHODS or method in _ZIP_METHODS_NOT_READ
        if names > _ZIP_NAMES_BYTES_MAX or not is_known:
            self.finish()  # four bytes that happen to stand there
            return b""
        if flags & 1 or method not in _ZIP_METHODS:
            self._refuse("a member of a ZIP file in it is encrypted or packed in a way not read")
            return b""
        end = _ZIP_HEAD_BYTES + names
        if len(head) < end:
            return b""
        self._head = b""
        if not _ZIP_METHODS[method]:
            self.finish()  # stored: it stands in clear
            return b""
        self._inflater = _inflater(_ZIP_METHODS[method])
        return head[end:]

    def close(self) -> None:
        """Let it go; nothing more is told."""
        self.is_open = False
        self._watch.close()

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        self.close()

    def _outward(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        end = self.start + self._taken
        return [
            replace(
                one,
                start=self.start,
                end=end,
                begin=self.start,
                via=f"{self.kind} > {one.via}" if one.via else self.kind,
            )
            for one in candidates
        ]


def _inflater(kind: str) -> Inflater:
    bytes_max = GIT_BYTES_MAX if kind == GIT else INFLATED_BYTES_MAX
    return Inflater(kind, bytes_max=bytes_max, ratio_max=INFLATE_RATIO_MAX)


def may_begin(kind: str, before: bytes, head: bytes) -> bool:
    """Tell whether ``head`` may begin what is packed so; the first bytes of zlib say little.

    The points of a PNG picture are left alone: no text, and fifty times what was sent.
    """
    if kind != "zlib":
        return True
    return not before.endswith(_PICTURE) and inflates(head)


def packed_kind(data: bytes) -> str:
    """Return as what ``data`` is packed from its first byte on, empty for nothing known."""
    for magic in MAGICS:
        if data.startswith(magic.start):
            return magic.kind
    return ""
