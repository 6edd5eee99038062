"""What goes to the terminal: one-line errors, notices, and nothing that could drive it.

Values from records and peers may hold terminal escapes; everything written here
has its control characters escaped. No traceback is shown: one that escapes all nets
goes to a file, and a line says where. Neither holds an exception's own text, which may quote
a secret that was read: types and places only, and lines of our program.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

PROGRAM: Final = "aesp-proxy"
_LINE_CHARS_MAX: Final = 2000


def printable(text: str) -> str:
    r"""Return ``text`` in one line with control, bidirectional and unpaired characters escaped.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(
        character
        if character == " " or (character.isprintable() and not character.isspace())
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text[:_LINE_CHARS_MAX]
    )


def mend_streams() -> None:
    """Open /dev/null for a standard stream that was closed before we were started.

    Python has None in its place then, and the next socket would take its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for ever
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def line(text: str) -> None:
    """Write one line to standard error; a closed standard error is nobody's error."""
    try:
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def error_line(text: str) -> None:
    """Write ``aesp-proxy: TEXT`` to standard error."""
    line(f"{PROGRAM}: {text}")


def write_crash(error: BaseException, state_dir: Path) -> Path | None:
    """Write a traceback for the developers under ``state_dir``; return where, if anywhere."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    text = "\n".join(_traces(error))
    for directory in (state_dir / "crash", Path(tempfile.gettempdir()) / f"{PROGRAM}-crash"):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = directory / name
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            continue
        return place
    return None


def _traces(error: BaseException) -> Iterator[str]:
    """Yield types and places of an exception and of what led to it, without their texts."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield f"{type(cause).__name__} (its text is left out: it may quote what was read)"
        yield "".join(traceback.format_tb(cause.__traceback__))
        cause = cause.__cause__ or cause.__context__
