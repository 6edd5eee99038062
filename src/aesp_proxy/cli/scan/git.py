"""Ask git, of a repository that is not trusted to say what git runs.

Rules:

- Nothing that a repository or its attributes configure is run or hides a line: no
  external diff, text conversion, file system monitor, replacement object, and every
  file is text.
- Nothing is fetched. What git cannot tell is an UnavailableError with its own words.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final

from aesp_proxy.errors import InputError, UnavailableError

_CONFIG: Final = (
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.untrackedCache=false",
    "diff.suppressBlankEmpty=false",
    "log.showRoot=true",
    "log.showSignature=false",
    "protocol.allow=never",
)
_PATCH: Final = (
    "--patch", "--unified=0", "--inter-hunk-context=0", "--text", "--full-index",
    "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative",
    "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
_FORMAT: Final = "--format=format:%x00%H%x00%aI%x00%an%x00%ae%x00%B%x00"
_READ_BYTES: Final = 1 << 20
_WORDS_BYTES_MAX: Final = 4_096


def _command(folder: Path, *arguments: str) -> list[str]:
    settings = [part for setting in _CONFIG for part in ("-c", setting)]
    return ["git", "-C", os.fspath(folder), "--no-pager", *settings, *arguments]


def _environment() -> dict[str, str]:
    """Return ours, in which a hook's GIT_INDEX_FILE stays: it says what is staged."""
    drop = {"GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_TRACE", "GIT_PAGER"}
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    return kept | {
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


@contextmanager
def _running(folder: Path, *arguments: str) -> Iterator[IO[bytes]]:
    """Run git and give its output; UnavailableError when it is not there, or fails."""
    with os.fdopen(os.memfd_create("git"), "w+b") as words:
        try:
            process = subprocess.Popen(
                _command(folder, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                env=_environment(),
                bufsize=_READ_BYTES,
            )
        except OSError as error:
            raise UnavailableError(f"git cannot be run: {error.strerror}") from error
        with process:
            output = process.stdout
            if output is None:
                raise UnavailableError("git has no output")
            try:
                yield output
            except BaseException:
                process.kill()
                raise
            output.close()
        if process.returncode:
            raise UnavailableError(f"git {arguments[0]} failed: {_words(words)}", where=str(folder))


def _words(file: BinaryIO | IO[bytes]) -> str:
    file.seek(0)
    lines = file.read(_WORDS_BYTES_MAX).decode("utf-8", "backslashreplace").splitlines()
    return lines[0].removeprefix("fatal: ") if lines else "it does not say why"


def listed(folder: Path) -> list[bytes]:
    """Return the files below ``folder`` that git tracks, or would if asked to, as paths from it.

    A repository in it is one path that ends in ``/``, a submodule one that is a folder.
    """
    with _running(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard") as output:
        names = output.read().split(b"\0")
    return list(dict.fromkeys(name for name in names if name))


def ignores(folder: Path) -> bool:
    """Tell whether git ignores ``folder`` itself."""
    try:
        with _running(folder, "check-ignore", "--quiet", ".") as output:
            output.read()
    except UnavailableError:
        return False
    return True


def top_of(folder: Path) -> Path:
    """Return the top folder of the work tree; ``folder`` itself in a bare repository."""
    with _running(folder, "rev-parse", "--show-cdup") as output:
        up = output.read().removesuffix(b"\n")
    return folder / os.fsdecode(up)


def is_shallow(folder: Path) -> bool:
    """Tell whether older commits are not there."""
    with _running(folder, "rev-parse", "--is-shallow-repository") as output:
        return output.read().strip() == b"true"


def commit_of(folder: Path, revision: str) -> str:
    """Return the hash of a commit that a person named; InputError when there is none."""
    try:
        with _running(
            folder, "rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}"
        ) as output:
            return output.read().decode("ascii").strip()
    except UnavailableError:
        raise InputError(f"{revision!r} is no commit here", where=str(folder)) from None


def commit_count(folder: Path, since: str, options: list[str]) -> int:
    """Return how many commits ``history`` gives; 0 when git cannot say so of the options."""
    try:
        with _running(folder, "rev-list", "--count", *_which(since, options)) as output:
            return int(output.read())
    except (UnavailableError, ValueError):
        return 0


def _which(since: str, options: list[str]) -> list[str]:
    return options or ["--all", *([f"^{since}"] if since else [])]


@contextmanager
def history(folder: Path, since: str, options: list[str]) -> Iterator[IO[bytes]]:
    """Give the patches of all commits, or of those that are not reachable from ``since``.

    ``options`` are git log's own and stand for "all". Merges show what no parent has.
    """
    which = _which(since, options)
    paths = which.index("--") if "--" in which else len(which)
    with _running(  # ours last: of two that contradict each other git takes the second
        folder, "log", *which[:paths], *_PATCH, "--cc", "--no-notes", "--no-mailmap",
        "--encoding=UTF-8", _FORMAT, *which[paths:],
    ) as output:  # fmt: skip
        yield output


@contextmanager
def staged(folder: Path) -> Iterator[IO[bytes]]:
    """Give the patch of what is staged."""
    with _running(folder, "diff", "--cached", *_PATCH) as output:
        yield output
