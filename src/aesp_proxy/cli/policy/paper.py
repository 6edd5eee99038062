"""Lines with marks on standard output: in colour on a terminal, plain everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final, Protocol

from aesp_proxy.cli.output import printable

_STYLES: Final = {"✓": "green", "✗": "red", "!": "yellow", "·": "dim"}
_INDENT: Final = "  "
_ASCII: Final = {"✓": "+", "✗": "x", "!": "!", "·": "-"}


class Line(Protocol):
    """One line: a mark or none, a text, how deep it stands, whether it is a heading."""

    @property
    def text(self) -> str:
        """The text, as it is known: it may hold anything."""
        ...

    @property
    def mark(self) -> str:
        """One of ✓ ✗ ! · or empty."""
        ...

    @property
    def depth(self) -> int:
        """Steps from the margin."""
        ...

    @property
    def bold(self) -> bool:
        """Whether it stands out."""
        ...


def write_lines(lines: Iterable[Line]) -> None:
    """Write lines to standard output; nothing in them drives the terminal."""
    if sys.stdout.isatty():
        _write_in_colour(lines)
        return
    marks = {mark: mark for mark in _STYLES} if _writes_marks() else _ASCII
    for line in lines:
        sys.stdout.write(_plain(line, marks) + "\n")


def _plain(line: Line, marks: dict[str, str]) -> str:
    mark = f"{marks[line.mark]} " if line.mark else ""
    return _INDENT * line.depth + mark + printable(line.text)


def _writes_marks() -> bool:
    try:
        "✓✗·".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _write_in_colour(lines: Iterable[Line]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines:
        text = Text(_INDENT * line.depth)
        if line.mark:
            text.append(f"{line.mark} ", style=_STYLES[line.mark])
        text.append(printable(line.text), style="bold" if line.bold else "")
        console.print(text)
