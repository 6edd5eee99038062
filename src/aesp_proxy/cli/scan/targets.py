"""Find the files to scan: those named, and in folders those that git does not ignore.

Rules:

- Symbolic links are followed where a person names one, and nowhere else.
- ``.git`` is skipped, and special files with a note.
- In a repository git itself says what it ignores. Elsewhere, or where git cannot, the
  ``.gitignore`` files that are met decide, by the same rules.
- A folder that a person names is scanned also when git ignores it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.base import GitIgnorePatternError

from aesp_proxy.cli.scan import git
from aesp_proxy.errors import InputError, UnavailableError

_GIT: Final = ".git"
_IGNORE_BYTES_MAX: Final = 1 << 20

Note = Callable[[str, str], None]
"""Takes a path and why it is not scanned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A file to scan. ``named`` says that a person named it: then a link is followed."""

    path: str
    named: bool = False


def targets_of(path: str, *, ignoring: bool, skipped: Note, unreadable: Note) -> Iterator[Target]:
    """Yield the files at and below ``path``, in order of their names.

    ``skipped`` is told what is left out on purpose, ``unreadable`` what should not have
    been. InputError when there is nothing at ``path``.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise InputError(f"cannot be scanned: {reason}", where=path) from None
    if not stat.S_ISDIR(mode):
        yield Target(path=path, named=True)
        return
    walk = _Walk(skipped, unreadable)
    if ignoring and not git.ignores(Path(path)):
        yield from walk.repository(path)
    else:
        yield from walk.folder(path, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ignore:
    """A ``.gitignore`` file; it decides below ``folder``."""

    folder: str
    spec: GitIgnoreSpec


_Ignores = tuple[_Ignore, ...]


class _Walk:
    def __init__(self, skipped: Note, unreadable: Note) -> None:
        self._skipped = skipped
        self._unreadable = unreadable

    def repository(self, folder: str) -> Iterator[Target]:
        """Yield what git lists below ``folder``; where it cannot, what no ``.gitignore`` names."""
        try:
            names = sorted(git.listed(Path(folder)))
        except UnavailableError:
            yield from self.folder(folder, ())
            return
        for name in names:
            path = f"{folder}/{os.fsdecode(name).removesuffix('/')}"
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                continue  # deleted in the work tree, and still tracked
            except OSError as error:
                self._unreadable(path, error.strerror or "cannot be seen")
                continue
            if stat.S_ISDIR(mode):  # a submodule, or a repository of its own
                yield from self._inside(path)
            else:
                yield from self._file(path, mode)

    def _inside(self, folder: str) -> Iterator[Target]:
        """Yield what lies in a folder that git names as one: without its own ``.git``, by itself.

        Git would answer for the repository around it there, and name the folder again.
        """
        if os.path.lexists(f"{folder}/{_GIT}"):
            yield from self.repository(folder)
            return
        found = False
        for target in self.folder(folder, ()):
            found = True
            yield target
        if not found:
            self._skipped(folder, "a submodule that is not checked out")

    def folder(self, folder: str, specs: _Ignores | None) -> Iterator[Target]:
        """Yield what lies below ``folder``; ``specs`` are from above, None ignores nothing."""
        stack = [self._entries(folder, specs)]
        while stack:
            for entry, above in stack[-1]:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(self._entries(entry.path, above))
                    break
                try:
                    mode = entry.stat(follow_symlinks=False).st_mode
                except OSError as error:
                    self._unreadable(entry.path, error.strerror or "cannot be seen")
                    continue
                yield from self._file(entry.path, mode)
            else:
                stack.pop()

    def _entries(
        self, folder: str, specs: _Ignores | None
    ) -> Iterator[tuple[os.DirEntry[str], _Ignores | None]]:
        """Yield what in one folder is not ignored, with what decides below it."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self._unreadable(folder, error.strerror or "cannot be listed")
            return
        if specs is not None:
            own = _ignore_file(folder)
            specs = (own, *specs) if own is not None else specs
        for entry in entries:
            if entry.name == _GIT:
                continue
            if not (specs and _ignored(entry, specs)):
                yield entry, specs

    def _file(self, path: str, mode: int) -> Iterator[Target]:
        if stat.S_ISREG(mode):
            yield Target(path=path)
        elif not stat.S_ISLNK(mode):
            self._skipped(path, "not a regular file")


def _ignore_file(folder: str) -> _Ignore | None:
    try:
        with Path(folder, ".gitignore").open("rb") as file:
            text = os.fsdecode(file.read(_IGNORE_BYTES_MAX))
    except OSError:
        return None
    # RE2, not Python's re: a pattern of a stranger's file costs linear time.
    spec = GitIgnoreSpec.from_lines(filter(_is_pattern, text.splitlines()), backend="re2")
    return _Ignore(folder=folder, spec=spec)


def _is_pattern(line: str) -> bool:
    """Tell whether git would take a line; what it does not, it passes over."""
    try:
        GitIgnoreSpec.from_lines([line], backend="re2")
    except GitIgnorePatternError:
        return False
    return True


def _ignored(entry: os.DirEntry[str], specs: _Ignores) -> bool:
    """Ask the nearest file first: the first that says anything of ``entry`` decides."""
    for each in specs:
        name = entry.path.removeprefix(each.folder).lstrip("/")
        if entry.is_dir(follow_symlinks=False):
            name += "/"
        include = each.spec.check_file(name).include
        if include is not None:
            return include
    return False
