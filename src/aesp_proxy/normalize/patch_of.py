"""The difference that a write makes, as the patch that the guards read.

Standard library only; deterministic.
"""

from __future__ import annotations

import difflib
from typing import Final

_DIFF_LINES_MAX: Final = 20_000


def patch_of(name: str, before: bytes, after: bytes) -> bytes:
    """Return the difference of two contents as a unified diff of one file.

    What holds a NUL is told as a binary patch. More lines than can be compared in
    reasonable time are told as all removed and all added: never fewer than there are.
    """
    shown = name.encode("utf-8", "surrogateescape")
    if b"\0" in before or b"\0" in after:
        return b"Binary files a/%b and b/%b differ\n" % (shown, shown)
    old, new = before.splitlines(), after.splitlines()
    head = b"--- a/%b\n+++ b/%b\n" % (shown, shown)
    if not old or not new:
        return head + _whole(old, new)
    if len(old) + len(new) > _DIFF_LINES_MAX:
        hunk = b"@@ -1,%d +1,%d @@\n" % (len(old), len(new))
        lines = [b"-" + line for line in old] + [b"+" + line for line in new]
        return head + hunk + b"\n".join(lines) + b"\n"
    diff = difflib.diff_bytes(difflib.unified_diff, old, new, shown, shown, lineterm=b"")
    return head + b"".join(line + b"\n" for line in list(diff)[2:])


def _whole(old: list[bytes], new: list[bytes]) -> bytes:
    """Return the hunk of a file that is new or emptied, as ``difflib`` has it, without a search."""
    if not old and not new:
        return b""
    sign, lines = (b"-", old) if old else (b"+", new)
    told = b"1,%d" % len(lines) if len(lines) > 1 else b"1"
    ranges = (told, b"0,0") if old else (b"0,0", told)
    hunk = b"@@ -%b +%b @@\n" % ranges
    return hunk + b"".join(b"%b%b\n" % (sign, line) for line in lines)
