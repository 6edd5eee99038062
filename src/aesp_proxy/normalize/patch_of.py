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
    if len(old) + len(new) > _DIFF_LINES_MAX:
        hunk = b"@@ -1,%d +1,%d @@\n" % (len(old), len(new))
        lines = [b"-" + line for line in old] + [b"+" + line for line in new]
        return head + hunk + b"\n".join(lines) + b"\n"
    diff = difflib.diff_bytes(difflib.unified_diff, old, new, shown, shown, lineterm=b"")
    return head + b"".join(line + b"\n" for line in list(diff)[2:])
