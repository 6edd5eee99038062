"""Find the object that a path means to the process that named it, and hold it.

The path was read once, from memory that its process may be changing, and is looked up
here, by us: what is decided about and what is opened is the object that is held. It is
held by a descriptor that gives no access (O_PATH, open(2)) and is opened from that
(``/proc/self/fd``), so that a name which changes meanwhile changes nothing.

A path without links is looked up by the kernel in one call (openat2(2), without links). Any
other is walked name by name, and each link on the way is noted, as a policy may forbid it.
In a procfs ``self`` is who asks, and what is another process's is not reached.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final, Protocol

from aesp_proxy.intercept.notify.calls import AT_FDCWD
from aesp_proxy.intercept.notify.kernel import (
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from aesp_proxy.intercept.notify.naming import name_of
from aesp_proxy.intercept.notify.processes import ROOT_INODE, Processes

_HELD: Final = os.O_PATH | os.O_CLOEXEC
_LINKS_MAX: Final = 40  # path_resolution(7)
_SCOPED: Final = RESOLVE_BENEATH | RESOLVE_IN_ROOT
_KNOWN: Final = _SCOPED | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_DELETED: Final = " (deleted)"


class Asker(Protocol):
    """Who names a path."""

    @property
    def thread(self) -> int:
        """The thread."""

    def check(self) -> None:
        """Raise OSError when it is gone, and its number perhaps another's."""


@dataclass(slots=True, kw_only=True)
class Found:
    """An object that is held. ``path`` is its name now, after all links.

    ``named`` is the name as it was given, ``links`` the links on the way, all absolute.
    ``has_name`` is False for what has none (any more): pipes, memory, removed files.
    """

    descriptor: int
    status: os.stat_result
    path: str
    named: str
    links: tuple[str, ...] = ()
    has_name: bool = True

    @property
    def handle(self) -> str:
        """The name by which the very object is opened."""
        return f"/proc/self/fd/{self.descriptor}"

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.status.st_mode)

    def close(self) -> None:
        """Let it go."""
        os.close(self.descriptor)


@dataclass(slots=True, kw_only=True)
class Place:
    """A name in a directory that is held; there may be something there or not."""

    descriptor: int
    name: bytes
    path: str
    named: str
    links: tuple[str, ...] = ()

    def close(self) -> None:
        """Let the directory go."""
        os.close(self.descriptor)


class Resolver:
    """Looks names up for the processes of one agent, which share a root.

    ``root`` is a descriptor of it, taken over.
    """

    def __init__(self, root: int, processes: Processes) -> None:
        self._root = root
        self._processes = processes
        status = os.fstat(root)
        self._root_object = status.st_dev, status.st_ino
        self._root_path = os.readlink(f"/proc/self/fd/{root}").rstrip("/")  # noqa: PTH115

    def find(
        self, asker: Asker, at: int, path: bytes, *, follow: bool = True, resolve: int = 0
    ) -> Found:
        """Hold the object that a path means; OSError as open(2) has it.

        ``at`` is a descriptor of the thread's, or AT_FDCWD.
        """
        if not path:
            raise FileNotFoundError(errno.ENOENT, "an empty path")
        start = self._start(asker, at, b"" if resolve & _SCOPED else path)
        try:
            held = self._without_links(start, path, 0 if follow else os.O_NOFOLLOW, resolve)
            if held is not None:
                return held
            walk = self._walk(asker, start, resolve)
            walk.go(path, follow=follow)
            return self._of_walk(walk, start, path)
        finally:
            self._leave(start)

    def object(self, asker: Asker, at: int) -> Found:
        """Hold what a descriptor of a thread's is of."""
        held = self._start(asker, at, b"")
        return self._found(held, os.fstat(held))

    def place(self, asker: Asker, at: int, path: bytes, *, resolve: int = 0) -> Place:
        """Hold the directory of a path's last name, which is not followed."""
        if not path:
            raise FileNotFoundError(errno.ENOENT, "an empty path")
        trimmed = path.rstrip(b"/")
        before, _, name = trimmed.rpartition(b"/")
        slashes = path[len(trimmed) :]
        parent = before + b"/" if before or path[:1] == b"/" else b"."
        found = self.find(asker, at, parent, resolve=resolve)
        base = found.path.rstrip("/")
        named = found.named.rstrip("/")
        word = os.fsdecode(name or b".")
        return Place(
            descriptor=found.descriptor,
            name=(name or b".") + slashes,
            path=f"{base}/{word}",
            named=f"{named}/{word}",
            links=found.links,
        )

    def beyond(self, asker: Asker, place: Place) -> Found | Place:
        """Follow the link that stands at a place: to an object, or to a place without one."""
        walk = self._walk(asker, place.descriptor, 0)
        walk.missing_passes = True
        walk.go(place.name, follow=True)
        links = (*place.links, *walk.links)
        if walk.missing:
            path = f"{self._name(walk.held).rstrip('/')}/{os.fsdecode(walk.missing)}"
            return Place(
                descriptor=walk.taken(),
                name=walk.missing,
                path=path,
                named=place.named,
                links=links,
            )
        found = self._of_walk(walk, place.descriptor, place.name)
        found.named, found.links = place.named, links
        return found

    # where to begin ---------------------------------------------------------------

    def _start(self, asker: Asker, at: int, path: bytes) -> int:
        if path[:1] == b"/":
            asker.check()
            return self._root
        name = "cwd" if at == AT_FDCWD else f"fd/{at}"
        try:
            start = os.open(f"/proc/{asker.thread}/{name}", _HELD)
        except FileNotFoundError as error:
            raise OSError(errno.EBADF, "no such descriptor") from error
        try:
            asker.check()
        except OSError:
            os.close(start)
            raise
        return start

    def _leave(self, start: int) -> None:
        if start != self._root:
            os.close(start)

    # the kernel's way ---------------------------------------------------------------

    def _without_links(self, start: int, path: bytes, flags: int, resolve: int) -> Found | None:
        """Look a path up in one call; None when it has links, or ends in a procfs."""
        if resolve & RESOLVE_CACHED:
            raise BlockingIOError(errno.EAGAIN, "not without looking")
        if resolve & ~_KNOWN:
            raise OSError(errno.EINVAL, "an unknown way to resolve")
        scoped = resolve & _SCOPED
        wanted = resolve | RESOLVE_NO_MAGICLINKS
        if not scoped:
            wanted |= RESOLVE_NO_SYMLINKS | (RESOLVE_IN_ROOT if path[:1] == b"/" else 0)
        try:
            held = openat2(start, path, flags | os.O_PATH, resolve=wanted)
        except OSError as error:
            is_final = scoped or resolve & RESOLVE_NO_SYMLINKS
            if error.errno in (errno.ELOOP, errno.EAGAIN) and not is_final:
                return None
            raise
        status = os.fstat(held)
        if not self._processes.has(held, status.st_dev):
            return self._found(held, status, start, path)
        os.close(held)
        if scoped:
            raise OSError(errno.EXDEV, "a scope in a procfs")
        return None

    def _found(self, held: int, status: os.stat_result, start: int = -1, way: bytes = b"") -> Found:
        """Say what is held; lets it go when that cannot be said.

        ``way`` led to it from ``start``, without a link.
        """
        try:
            path = name_of(held, start, way)
        except OSError:
            os.close(held)
            raise
        links: tuple[str, ...] = ()
        has_name = path[:1] == "/"
        if path.endswith(_DELETED):
            # One name of several was removed, or it is called so: both are asked about.
            has_name = has_name and status.st_nlink > 0
            links = (path,) if has_name else ()
            path = path[: -len(_DELETED)]
        path = self._inside(path)
        return Found(
            descriptor=held, status=status, path=path, named=path, links=links, has_name=has_name
        )

    def _name(self, held: int) -> str:
        return self._inside(name_of(held))

    def _inside(self, path: str) -> str:
        """Return a path as it is from the agent's root."""
        root = self._root_path
        return path[len(root) :] or "/" if root and path.startswith(root) else path

    # name by name -------------------------------------------------------------------

    def _walk(self, asker: Asker, start: int, resolve: int) -> _Walk:
        if resolve & RESOLVE_NO_XDEV:
            raise OSError(errno.EXDEV, "a link, and no way to another file system")
        return _Walk(self, asker.thread, start, magic=not resolve & RESOLVE_NO_MAGICLINKS)

    def _of_walk(self, walk: _Walk, start: int, path: bytes) -> Found:
        held = walk.taken()
        found = self._found(held, os.fstat(held))
        base = "/" if path[:1] == b"/" else self._name(start)
        found.named = os.path.normpath(f"{base}/{os.fsdecode(path)}").replace("//", "/", 1)
        found.links = (*found.links, *walk.links)
        return found


class _Walk:
    """One walk from a directory along the names of a path; holds where it is."""

    def __init__(self, resolver: Resolver, thread: int, start: int, *, magic: bool) -> None:
        self._resolver = resolver
        self._processes = resolver._processes  # noqa: SLF001 - a part of it
        self._thread = thread
        self._magic = magic
        self.held = os.dup(start)
        self.links: list[str] = []
        self.missing = b""
        self.missing_passes = False

    def taken(self) -> int:
        """Give away what is held."""
        held, self.held = self.held, -1
        return held

    def go(self, path: bytes, *, follow: bool) -> None:
        """Walk; OSError, and nothing is held, when the path leads nowhere."""
        try:
            self._go(path, follow=follow)
        except BaseException:
            os.close(self.held)
            raise

    def _go(self, path: bytes, *, follow: bool) -> None:
        names = list(reversed(self._names(path)))
        self._leap(names)
        while names:
            name = names.pop()
            if name in (b"", b"."):
                if not stat.S_ISDIR(os.fstat(self.held).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "a file on the way")
                continue
            if name == b"..":
                self._up()
                continue
            is_last = not names
            try:
                step = self._step(name)
            except FileNotFoundError:
                if is_last and self.missing_passes:
                    self.missing = name
                    return
                raise
            if step is not None and (follow or not is_last):
                names += reversed(self._names(self._followed(name, step)))
                self._leap(names)
            elif step is not None:
                self._stand(step)

    def _leap(self, names: list[bytes]) -> None:
        """Go to the directory of the last name in one call, where no link is on the way.

        Whatever stands against it, the steps say.
        """
        if len(names) < 2 or b".." in names:
            return
        try:
            path = b"/".join(reversed(names[1:]))
            held = openat2(self.held, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)
        except OSError:
            return
        if self._processes.has(held, os.fstat(held).st_dev):
            os.close(held)
            return
        self._stand(held)
        del names[1:]

    def _names(self, path: bytes) -> list[bytes]:
        if path[:1] == b"/":
            self._stand(os.dup(self._resolver._root))  # noqa: SLF001
        # One slash at the end says that it has to be a directory, many say no more.
        names = [name for name in path.split(b"/") if name]
        return [*names, b"."] if path[-1:] == b"/" else names

    def _stand(self, held: int) -> None:
        os.close(self.held)
        self.held = held

    def _up(self) -> None:
        status = os.fstat(self.held)
        if (status.st_dev, status.st_ino) != self._resolver._root_object:  # noqa: SLF001
            self._stand(os.open("..", _HELD, dir_fd=self.held))

    def _step(self, name: bytes) -> int | None:
        """Go to a name; return a descriptor of it when it is a link, which is not gone to."""
        here = os.fstat(self.held)
        if self._processes.has(self.held, here.st_dev):
            name = self._in_procfs(name, here)
        held = os.open(name, _HELD | os.O_NOFOLLOW, dir_fd=self.held)
        try:
            status = os.fstat(held)
            if self._processes.has(held, status.st_dev):
                path = self._resolver._name(held)  # noqa: SLF001
                self._processes.refuse_foreign(path, status.st_dev)
        except BaseException:
            os.close(held)
            raise
        if stat.S_ISLNK(status.st_mode):
            return held
        self._stand(held)
        return None

    def _in_procfs(self, name: bytes, here: os.stat_result) -> bytes:
        """Return the name that means to us what ``self`` means to who asks."""
        if here.st_ino == ROOT_INODE and name in (b"self", b"thread-self"):
            return self._processes.words_for(name, self._thread, here.st_dev)
        return name

    def _followed(self, name: bytes, link: int) -> bytes:
        """Return the text of a link, or go where one jumps to and return nothing."""
        try:
            path = self._resolver._name(link)  # noqa: SLF001
            status = os.fstat(link)
            self.links.append(path)
            if len(self.links) > _LINKS_MAX:
                raise OSError(errno.ELOOP, "too many links")
            in_procfs = self._processes.has(link, status.st_dev)
            if in_procfs and self._processes.is_link_of_process(path):
                if not self._magic:
                    raise OSError(errno.ELOOP, "a link that jumps")
                self._stand(os.open(name, _HELD, dir_fd=self.held))
                return b""
            text = os.fsencode(os.readlink("", dir_fd=link))
            if not text:
                raise FileNotFoundError(errno.ENOENT, "an empty link")
            return text
        finally:
            os.close(link)
