r"""What a patch adds and deletes, line by line, for whatever tool will apply it.

Read are unified and git diffs, context diffs and the ``*** Update File:`` format. Who
applies the patch is not known, so every doubt counts against it:

- A line that is no header in its place, stands in no hunk or has no sign that its hunk
  knows is an addition; one that is marked as deleted or changed is then a deletion too.
  So a text that is no patch at all is one of additions only.
- patch(1) takes the indentation of a header (blanks, ``X``, ``- ``) off the lines behind
  it: after such a header nothing that begins with these is sure to be context or deleted.
- A header is one by its form and its place: ``---`` and ``+++`` before ``@@``; ``+++ x``
  inside a hunk is the addition of ``++ x``. Hunks of unified diffs are as long as they
  say.
- A line in which some readers see several (a lone CR, form feed, U+2028 and the like) is
  an addition for each of them, with what each would add.
- What follows ``GIT binary patch``, and a file of which only is said that it differs,
  cannot be read: ``binary`` says so, and encoded lines count as additions.
- patch(1) runs ed scripts: behind a line that ed may take for its command every line is
  in doubt, and the lines that the command deletes are counted.

Lines end at LF, or at CR LF. Nothing is decoded: a patch is bytes, NUL among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

import re2


def _regex(expression: bytes) -> re2._Regexp[bytes]:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(expression, options)


_HEADERS = _regex(
    rb"diff --git .*|index [0-9a-f]+\.\.[0-9a-f]+( [0-7]+)?|(old|new) mode [0-7]+"
    rb"|(deleted|new) file mode [0-7]+|(dis)?similarity index [0-9]+%"
    rb"|(rename|copy) (from|to) .*|Index: .*|={67}"
    rb"|\*\*\* (Begin Patch|End Patch|End of File|Delete File: .*|Move to: .*)"
)
_HUNK = _regex(rb"@@ -[0-9]{1,9}(?:,([0-9]{1,9}))? \+[0-9]{1,9}(?:,([0-9]{1,9}))? @@.*")
_LOOSE = _regex(rb"@@( .*)?|\*\*\* (?:Update|Add) File: .*")
_CONTEXT_OLD = _regex(rb"\*\*\* [0-9]+(,[0-9]+)? \*\*\*\*")
_CONTEXT_NEW = _regex(rb"--- [0-9]+(,[0-9]+)? ----")
_CONTEXT_START = _regex(rb"\*{15}.*")
_BINARY = _regex(rb"GIT binary patch|Binary files .* differ|Files .* differ")
_BREAKS = _regex(rb"\r\n?|[\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_ED = _regex(rb"[ \tX]*([0-9]{1,9})(?:,([0-9]{1,9}))?([acdi]|s/.*)")
_INDENT = _regex(rb"[ \tX]*(- )*")
_INDENTS = (b" ", b"\t", b"X", b"- ")
_MARKS = b" \tX+-!<>"
_DELETES = (b"-", b"!", b"<")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLines:
    """How many lines a patch adds and deletes, at the most.

    ``deletions_sure`` are those that stand in a hunk. ``readings`` hold what is added,
    each line with its number in the patch and without line end, as a tool reads it that
    goes by the signs; where a line is in doubt, also as one that takes it whole, and as
    one that takes off whatever it may be indented or marked with.
    """

    additions: int
    deletions: int
    deletions_sure: int
    readings: tuple[tuple[tuple[int, bytes], ...], ...]
    binary: bool


def patch_lines(patch: bytes, *, additions_max: int, deletions_max: int) -> PatchLines:
    """Count the lines of a patch; stop behind the first that is over one of the limits."""
    reader = _Reader(may_break=_BREAKS.search(patch) is not None)
    for number, line, second, third in _with_following(patch):
        reader.read(number, line, second, third)
        if reader.additions > additions_max or reader.deletions > deletions_max:
            break
    return PatchLines(
        additions=reader.additions,
        deletions=reader.deletions,
        deletions_sure=reader.deletions_sure,
        readings=reader.readings(),
        binary=reader.binary,
    )


def _with_following(patch: bytes) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    """Yield each line with its number and the two that follow; one at a time, for memory."""
    lines = _lines(patch)
    first, second = next(lines, None), next(lines, None)
    number = 0
    while first is not None:
        number += 1
        third = next(lines, None)
        yield number, first, second or b"", third or b""
        first, second = second, third


def _lines(patch: bytes) -> Iterator[bytes]:
    start, length = 0, len(patch)
    while start < length:
        end = patch.find(b"\n", start)
        end = length if end < 0 else end
        yield patch[start:end].removesuffix(b"\r")
        start = end + 1


class _Place(Enum):
    OUTSIDE = auto()
    COUNTED = auto()  # a hunk of a unified diff, as long as it says
    LOOSE = auto()  # a hunk without counts, up to the next header
    CONTEXT_OLD = auto()
    CONTEXT_NEW = auto()


_CONTEXT = (_Place.CONTEXT_OLD, _Place.CONTEXT_NEW)


class _Reader:
    """Where in a patch the next line stands, and what was counted before it."""

    __slots__ = (
        "_header_lines", "_indented", "_may_break", "_new", "_old", "_place", "_readings",
        "_script", "_signed", "additions", "binary", "deletions", "deletions_sure",
    )  # fmt: skip

    def __init__(self, *, may_break: bool) -> None:
        self.additions = self.deletions = self.deletions_sure = 0
        self.binary = False
        self._readings: list[list[tuple[int, bytes]]] = [[]]  # one; three from a doubt on
        self._may_break = may_break
        self._place = _Place.OUTSIDE
        self._old = self._new = 0
        self._script = False  # whether the rest may be an ed script
        self._indented = False  # whether a header was seen that patch(1) takes for indented
        self._header_lines = 0  # how many of the next lines belong to a header that was seen
        self._signed = False  # whether the last line stood in a hunk: a "\" may follow it

    def readings(self) -> tuple[tuple[tuple[int, bytes], ...], ...]:
        """Return what is added, in one reading or three."""
        return tuple(tuple(reading) for reading in self._readings)

    def read(self, number: int, line: bytes, second: bytes, third: bytes) -> None:
        if self._may_break and len(pieces := _BREAKS.split(line)) > 1:
            self._broken(number, line, pieces)
            return
        if self._script:
            self._doubt(number, line)
            return
        if self._header_lines:
            self._header_lines -= 1
            return
        self._indented = self._indented or _is_indented_header(line, second)
        signed, self._signed = self._signed, False
        if line.startswith(b"\\ ") and signed:
            return
        if self._in_hunk(number, line) or self._is_header(line, second, third):
            return
        self._doubt(number, line)

    def _in_hunk(self, number: int, line: bytes) -> bool:
        """Count a line whose sign the hunk knows."""
        place = self._place
        if place is _Place.OUTSIDE or (self._indented and line.startswith(_INDENTS)):
            return False
        if place in _CONTEXT:
            self._signed = self._in_context(number, line)
            return self._signed
        sign = line[:1]
        if sign == b"+":
            self._add(number, line[1:])
            self._new -= 1
        elif sign == b"-":
            self._delete()
            self._old -= 1
        elif sign in (b" ", b""):
            self._old -= 1
            self._new -= 1
        else:
            return False
        if place is _Place.COUNTED and self._old <= 0 and self._new <= 0:
            self._place = _Place.OUTSIDE
        self._signed = True
        return True

    def _in_context(self, number: int, line: bytes) -> bool:
        is_new = self._place is _Place.CONTEXT_NEW
        match line[:2]:
            case b"  " | b"":
                return True
            case b"+ " if is_new:
                self._add(number, line[2:])
            case b"! " if is_new:
                self._add(number, line[2:])
            case b"- " | b"! " if not is_new:
                self._delete()
            case _:
                return False
        return True

    def _is_header(self, line: bytes, second: bytes, third: bytes) -> bool:
        """Take a line that opens a file or a hunk, in the place where it does."""
        if (hunk := _HUNK.fullmatch(line)) is not None:
            old, new = (1 if count is None else int(count) for count in hunk.groups())
            self._old, self._new = old, new
            self._place = _Place.COUNTED if old or new else _Place.OUTSIDE
        elif _LOOSE.fullmatch(line) is not None:
            self._place = _Place.LOOSE
        elif self._place in _CONTEXT and _CONTEXT_NEW.fullmatch(line) is not None:
            self._place = _Place.CONTEXT_NEW
        elif _CONTEXT_START.fullmatch(line) and _CONTEXT_OLD.fullmatch(second) is not None:
            self._place = _Place.CONTEXT_OLD
            self._header_lines = 1
        elif _opens_file(line, second, third):
            self._place = _Place.OUTSIDE
            self._header_lines = 1
        elif _HEADERS.fullmatch(line) is not None:
            self._place = _Place.OUTSIDE
        else:
            self.binary = self.binary or _BINARY.fullmatch(line) is not None
            return False
        return True

    def _doubt(self, number: int, line: bytes) -> None:
        """Count a line that nothing explains."""
        self.additions += 1
        bare = line.lstrip(b" \tX")
        self.deletions += bare.startswith(_DELETES) or self._deleted_by_script(line)
        by_sign, whole, unmarked = self._in_doubt()
        by_sign.append((number, _without_sign(line)))
        whole.append((number, line))
        unmarked.append((number, bare.lstrip(_MARKS)))

    def _deleted_by_script(self, line: bytes) -> int:
        command = _ED.fullmatch(line)
        if command is None:
            return 0
        self._script = True
        first, last, letter = command.groups()
        return max(int(last or first) - int(first) + 1, 0) if letter in (b"c", b"d") else 0

    def _broken(self, number: int, line: bytes, pieces: list[bytes]) -> None:
        """Count a line that is several to some: as it is, and each piece by its own sign."""
        self._header_lines = 0
        by_sign, whole, unmarked = self._in_doubt()
        if not self._in_hunk(number, line):
            whole.append((number, line))
        for piece in pieces:
            self.additions += 1
            self.deletions += piece.startswith(b"-")
            by_sign.append((number, _without_sign(piece)))
            unmarked.append((number, piece.lstrip(_MARKS)))

    def _in_doubt(self) -> list[list[tuple[int, bytes]]]:
        if len(self._readings) == 1:
            self._readings = [self._readings[0], list(self._readings[0]), list(self._readings[0])]
        return self._readings

    def _add(self, number: int, text: bytes) -> None:
        self.additions += 1
        for reading in self._readings:
            reading.append((number, text))

    def _delete(self) -> None:
        self.deletions += 1
        self.deletions_sure += 1


def _is_indented_header(line: bytes, second: bytes) -> bool:
    if not line.startswith(_INDENTS):
        return False
    first, following = _outdented(line), _outdented(second)
    if first.startswith((b"@@ -", b"*" * 15)):
        return True
    return (first[:4], following[:4]) in ((b"--- ", b"+++ "), (b"*** ", b"--- "))


def _outdented(line: bytes) -> bytes:
    found = _INDENT.match(line)
    return line if found is None else line[found.end() :]


def _without_sign(line: bytes) -> bytes:
    if line.startswith(b"> "):
        return line[2:]
    return line[1:] if line[:1] in (b"+", b"-", b" ") else line


def _opens_file(line: bytes, second: bytes, third: bytes) -> bool:
    """Tell whether two lines name the old and the new file of the hunk that follows them."""
    if line.startswith(b"--- ") and second.startswith(b"+++ "):
        return third.startswith(b"@@ ") or third == b"@@"
    if line.startswith(b"*** ") and second.startswith(b"--- "):
        return _CONTEXT_START.fullmatch(third) is not None
    return False
