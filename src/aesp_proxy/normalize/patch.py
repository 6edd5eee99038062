"""Which files a patch names inside: a patch announced for one file must be for that file.

Read are the headers that patch(1), git-apply(1) and the ``*** Update File:`` format act
on. Content that looks like such a header is taken for one: a doubt, so the patch is
refused. Names are compared as a tail of the announced path, since patches name files
from the root of a repository that is not known here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from itertools import pairwise

_HEADERS = (
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
    "Index: ",
    "*** Add File: ",
    "*** Update File: ",
    "*** Delete File: ",
    "*** Move to: ",
)
_GIT = "diff --git "
_PAIRS = {"--- ": "+++ ", "*** ": "--- "}
_NOTHING = "/dev/null"


def other_file(patch: str, path: str) -> str | None:
    """Return the first file that a patch names and that is not ``path``; None for none.

    ``path`` is absolute and normalised.
    """
    # patch(1) reads indented patches too, and ends lines at line feeds only.
    lines = [line.strip(" \t\r") for line in patch.split("\n")]
    return next((name for name in _names(lines) if not _is(name, path)), None)


def _names(lines: list[str]) -> Iterator[str]:
    for line, following in pairwise([*lines, ""]):
        for start in _HEADERS:
            if line.startswith(start):
                yield line.removeprefix(start)
        if line.startswith(_GIT):
            yield _last_of(line.removeprefix(_GIT))
        second = _PAIRS.get(line[:4])
        if second is not None and following.startswith(second):
            yield line[4:].partition("\t")[0]
            yield following[4:].partition("\t")[0]


def _last_of(names: str) -> str:
    """Return the second name of ``diff --git``; the first is the same or has its own header."""
    if names.endswith('"'):
        return names[names.rfind('"', 0, -1) :]
    _, separator, name = names.rpartition(" b/")
    return name if separator else names.rpartition(" ")[2]


def _is(name: str, path: str) -> bool:
    name = _unquoted(name.strip())
    if name == _NOTHING:
        return True
    if not name or "\x00" in name:
        return False
    if name.startswith("/"):
        return "/" + posixpath.normpath(name).lstrip("/") == path
    prefix, slash, rest = name.partition("/")
    tails = [name, rest] if slash and len(prefix) == 1 else [name]
    return any(_is_tail(posixpath.normpath(tail), path) for tail in tails if tail)


def _is_tail(tail: str, path: str) -> bool:
    return not tail.startswith("..") and path.endswith("/" + tail)


def _unquoted(name: str) -> str:
    """Undo git's C quoting; what cannot be undone stays quoted and is nobody's name."""
    if not (name.startswith('"') and name.endswith('"') and len(name) > 1):
        return name
    try:
        raw = name[1:-1].encode("latin-1").decode("unicode_escape")
        return raw.encode("latin-1").decode("utf-8")
    except (UnicodeError, ValueError):
        return name
