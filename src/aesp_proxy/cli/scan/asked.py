"""What a person asked a scan to do, checked before anything is opened."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import click

STDIN: Final = "-"

_HIDING: Final = (
    "--check", "--graph", "--ignore-", "--line-prefix", "--log-size", "--name-only",
    "--name-status", "--output", "--patch-with-raw", "--raw", "--rotate-to", "--skip-to",
    "--stdin", "--word-diff", "-I", "-R", "-b", "-w", "-z",
)  # fmt: skip
"""Options of git log that hide lines, or write them in another way. It takes their beginnings."""


class Mode(Enum):
    """What is scanned."""

    FILES = "files"
    STDIN = "standard input"
    HISTORY = "history"
    STAGED = "staged changes"


_BEGUN_CHARS_MIN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to scan. ``bytes_max`` 0 is any size; ``ignoring`` leaves out what git ignores."""

    mode: Mode
    paths: tuple[str, ...]
    since: str
    log_options: tuple[str, ...]
    bytes_max: int
    jobs: int
    ignoring: bool

    @property
    def folder(self) -> Path:
        """Return the repository of history and staged changes."""
        return Path(self.paths[0])


def asked(
    paths: Sequence[str],
    *,
    history: bool,
    staged: bool,
    since: str | None,
    log_options: str | None,
    megabytes_max: int,
    jobs: int,
    ignoring: bool,
) -> Asked:
    """Check what goes with what; a usage error else."""
    if history and staged:
        raise click.UsageError("give either --history or --staged")
    if (since is not None or log_options is not None) and not history:
        raise click.UsageError("--since and --log-opts go with --history")
    if since is not None and log_options is not None:
        raise click.UsageError("give either --since or --log-opts")
    mode = _mode(paths, history=history, staged=staged)
    return Asked(
        mode=mode,
        paths=tuple(paths) or (".",),
        since=since or "",
        log_options=_split(log_options or ""),
        bytes_max=megabytes_max * 1_000_000,
        jobs=jobs,
        ignoring=ignoring,
    )


def _mode(paths: Sequence[str], *, history: bool, staged: bool) -> Mode:
    if history or staged:
        if len(paths) > 1 or STDIN in paths:
            raise click.UsageError("--history and --staged take one repository")
        return Mode.HISTORY if history else Mode.STAGED
    if STDIN in paths:
        if len(paths) > 1:
            raise click.UsageError("- is scanned alone")
        return Mode.STDIN
    if not paths:
        raise click.UsageError("name files or folders, or - for standard input")
    return Mode.FILES


def _split(text: str) -> tuple[str, ...]:
    try:
        options = tuple(shlex.split(text))
    except ValueError as error:
        raise click.UsageError(f"--log-opts cannot be read: {error}") from None
    for option in options[: options.index("--") if "--" in options else None]:
        if _hides(option.partition("=")[0]):
            raise click.UsageError(
                f"--log-opts choose commits: {option!r} would change what is read of them"
            )
    return options


def _hides(name: str) -> bool:
    begun = name.startswith("--") and len(name) > _BEGUN_CHARS_MIN
    return any(name.startswith(one) or (begun and one.startswith(name)) for one in _HIDING)
