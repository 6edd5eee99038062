"""Change for a process what it may change: names, links, modes, owners, attributes.

Names are changed in directories that are held, so that nobody can slip another one under.
Every change of a name by the agent passes here, one at a time: while one is decided and
done, no other is under way.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from aesp_proxy.intercept.notify.asking import Asking
from aesp_proxy.intercept.notify.calls import (
    AT_EMPTY_PATH,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
)
from aesp_proxy.intercept.notify.held import Held
from aesp_proxy.intercept.notify.kernel import renameat2
from aesp_proxy.intercept.notify.processes import mask_of
from aesp_proxy.intercept.notify.resolve import Found, Place, Resolver
from aesp_proxy.model.event import FileOperation

_RENAME_EXCHANGE: Final = 2
_ATTRIBUTE_BYTES_MAX: Final = 65_536  # XATTR_SIZE_MAX


class Changing:
    """Answers the calls that change; ``entries_max`` names of a moved tree are looked at."""

    def __init__(self, resolver: Resolver, asking: Asking, *, entries_max: int) -> None:
        self._resolver = resolver
        self._asking = asking
        self._entries_max = entries_max

    # names ----------------------------------------------------------------------------

    def rename(self, held: Held) -> None:
        """Answer rename, renameat and renameat2."""
        old = self._resolver.place(held, held.at, held.path)
        try:
            new = self._resolver.place(held, held.at2, held.path2)
            try:
                self._rename(held, old, new)
            finally:
                new.close()
        finally:
            old.close()

    def _rename(self, held: Held, old: Place, new: Place) -> None:
        status = _status(old)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "nothing to rename")
        swaps = bool(held.flags & _RENAME_EXCHANGE)
        self._asking.entry(
            FileOperation.RENAME, old, held.actor, is_directory=stat.S_ISDIR(status.st_mode)
        )
        self._put(held, old, new, status)
        if swaps and (other := _status(new)) is not None:
            self._asking.entry(
                FileOperation.RENAME, new, held.actor, is_directory=stat.S_ISDIR(other.st_mode)
            )
            self._put(held, new, old, other)
        renameat2(old.descriptor, old.name, new.descriptor, new.name, held.flags)

    def _put(self, held: Held, old: Place, new: Place, status: os.stat_result) -> None:
        """Decide on what stands at ``old`` taking the place ``new``."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            found = self._at(old)
            try:
                self._asking.putting(new, self._before(new), found, held.actor)
            finally:
                found.close()
        elif kind == stat.S_IFDIR:
            self._asking.entry(FileOperation.CREATE, new, held.actor, is_directory=True)
            self._move_tree(held, old, new)
        else:
            text = os.readlink(old.name, dir_fd=old.descriptor) if kind == stat.S_IFLNK else b""
            leads_to = _leads_to(new, text) if text else ""
            self._asking.entry(FileOperation.CREATE, new, held.actor, leads_to=leads_to)

    def _move_tree(self, held: Held, old: Place, new: Place) -> None:
        """Decide on what a directory brings along, names that would mean something else."""
        for count, (below, entry) in enumerate(_entries(old)):
            if count >= self._entries_max:
                what = f"a directory of more than {self._entries_max} names is renamed"
                self._asking.refuse_unsupported(old.path, what, held.actor)
            paths = f"{old.path}/{below}", f"{new.path}/{below}"
            content = _is_file(entry) and self._asking.decides_by_content(paths[1])
            self._asking.moving(*paths, held.actor, entry.path if content else "")

    def _at(self, place: Place) -> Found:
        descriptor = os.open(
            place.name.rstrip(b"/"),
            os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=place.descriptor,
        )
        return Found(
            descriptor=descriptor,
            status=os.fstat(descriptor),
            path=place.path,
            named=place.named,
            links=place.links,
        )

    def _before(self, place: Place) -> bytes | None:
        """Return what a file has now that would be replaced, None where there is none."""
        status = _status(place)
        if status is None:
            return None
        if not stat.S_ISREG(status.st_mode):
            return b""
        found = self._at(place)
        try:
            return self._asking.content(found.handle, found.status.st_size) or b""
        except PermissionError:
            # One that its owner cannot read: nothing of it can be compared.
            return b""
        finally:
            found.close()

    def link(self, held: Held) -> None:
        """Answer link and linkat."""
        path = held.path
        if not path and held.flags & AT_EMPTY_PATH:
            found = self._resolver.object(held, held.at)
        else:
            follow = bool(held.flags & AT_SYMLINK_FOLLOW)
            found = self._resolver.find(held, held.at, path, follow=follow)
        try:
            new = self._resolver.place(held, held.at2, held.path2)
            try:
                self._link(held, found, new)
            finally:
                new.close()
        finally:
            found.close()

    def _link(self, held: Held, found: Found, new: Place) -> None:
        if _status(new) is not None:
            raise FileExistsError(errno.EEXIST, "it is there")
        if stat.S_ISREG(found.status.st_mode):
            # Who has another name for it can write to it by that one.
            self._asking.opening(found, held.actor, reads=False, writes=True)
            self._asking.in_place(new.named, new.path, held.actor)
            self._asking.putting(new, None, found, held.actor)
        else:
            is_link = stat.S_ISLNK(found.status.st_mode)
            text = os.readlink("", dir_fd=found.descriptor) if is_link else ""
            leads_to = _leads_to(new, os.fsencode(text)) if text else ""
            self._asking.entry(FileOperation.CREATE, new, held.actor, leads_to=leads_to)
        os.link(found.handle, new.name, dst_dir_fd=new.descriptor, follow_symlinks=True)

    def symlink(self, held: Held) -> None:
        """Answer symlink and symlinkat: decided by where it is and by where it leads."""
        text = held.extra_string(0)
        place = self._resolver.place(held, held.at, held.path)
        try:
            if _status(place) is not None:
                raise FileExistsError(errno.EEXIST, "it is there")
            leads_to = _leads_to(place, text)
            self._asking.entry(FileOperation.CREATE, place, held.actor, leads_to=leads_to)
            os.symlink(text, place.name, dir_fd=place.descriptor)
        finally:
            place.close()

    def unlink(self, held: Held) -> None:
        """Answer unlink, rmdir and unlinkat."""
        if held.flags & ~AT_REMOVEDIR:
            raise OSError(errno.EINVAL, "unknown flags")
        is_directory = bool(held.flags & AT_REMOVEDIR)
        place = self._resolver.place(held, held.at, held.path)
        try:
            if _status(place) is None:
                raise FileNotFoundError(errno.ENOENT, "nothing to remove")
            self._asking.entry(FileOperation.DELETE, place, held.actor, is_directory=is_directory)
            remove = os.rmdir if is_directory else os.unlink
            remove(place.name, dir_fd=place.descriptor)
        finally:
            place.close()

    def mkdir(self, held: Held) -> None:
        """Answer mkdir and mkdirat."""
        self._make(held, 0)

    def mknod(self, held: Held) -> None:
        """Answer mknod and mknodat; the kernel makes no devices for who has no privilege."""
        self._make(held, held.extra_int(0) & 0xFFFF)

    def _make(self, held: Held, special: int) -> None:
        place = self._resolver.place(held, held.at, held.path)
        try:
            if _status(place) is not None:
                raise FileExistsError(errno.EEXIST, "it is there")
            is_directory = held.call.kind == "mkdir"
            self._asking.entry(FileOperation.CREATE, place, held.actor, is_directory=is_directory)
            if not is_directory:
                self._asking.in_place(place.named, place.path, held.actor)
            with mask_of(held.thread):
                if is_directory:
                    os.mkdir(place.name, held.extra_int(0) & 0o7777, dir_fd=place.descriptor)
                else:
                    device = held.extra_int(1) & 0xFFFFFFFF
                    os.mknod(place.name, special, device, dir_fd=place.descriptor)
        finally:
            place.close()

    # objects --------------------------------------------------------------------------

    def truncate(self, held: Held) -> None:
        """Answer truncate."""
        found = self._object(held)
        try:
            self._asking.opening(found, held.actor, reads=False, writes=True)
            os.truncate(found.handle, held.extra_long(0))
        finally:
            found.close()

    def chmod(self, held: Held) -> None:
        """Answer chmod and its like."""
        found = self._changed(held)
        try:
            os.chmod(found.handle, held.extra_int(0) & 0o7777)  # noqa: PTH101
        finally:
            found.close()

    def chown(self, held: Held) -> None:
        """Answer chown and its like."""
        found = self._changed(held)
        try:
            os.chown(found.handle, held.extra_int(0), held.extra_int(1))
        finally:
            found.close()

    def set_attribute(self, held: Held) -> None:
        """Answer setxattr and its like."""
        size = held.extra_long(2)
        if not 0 <= size <= _ATTRIBUTE_BYTES_MAX:
            raise OSError(errno.E2BIG, "a large attribute")
        name, value = held.extra_string(0), held.extra_bytes(1, size)
        found = self._changed(held)
        try:
            os.setxattr(found.handle, name, value, held.extra_int(3))
        finally:
            found.close()

    def remove_attribute(self, held: Held) -> None:
        """Answer removexattr and its like."""
        name = held.extra_string(0)
        found = self._changed(held)
        try:
            os.removexattr(found.handle, name)
        finally:
            found.close()

    def _changed(self, held: Held) -> Found:
        """Hold the object of a call, once it is decided that it may be changed."""
        found = self._object(held)
        try:
            self._asking.changing(FileOperation.WRITE, found, held.actor)
        except BaseException:
            found.close()
            raise
        return found

    def _object(self, held: Held) -> Found:
        if held.call.path is None:
            return self._resolver.object(held, held.at)
        path = held.path
        if not path and held.flags & AT_EMPTY_PATH:
            return self._resolver.object(held, held.at)
        follow = not held.flags & AT_SYMLINK_NOFOLLOW
        return self._resolver.find(held, held.at, path, follow=follow)


def _status(place: Place) -> os.stat_result | None:
    try:
        return os.stat(place.name, dir_fd=place.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _leads_to(place: Place, text: bytes) -> str:
    """Return where a link at a place leads, as far as its text says."""
    return os.path.normpath(os.path.join(os.path.dirname(place.path), os.fsdecode(text)))  # noqa: PTH118, PTH120


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _entries(place: Place) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield what is below a directory, named from it."""
    root = f"/proc/self/fd/{place.descriptor}/{os.fsdecode(place.name)}".rstrip("/")
    unseen = [""]
    while unseen:
        base = unseen.pop()
        try:
            with os.scandir(f"{root}/{base}") as entries:
                for entry in entries:
                    below = f"{base}{entry.name}"
                    yield below, entry
                    if entry.is_dir(follow_symlinks=False):
                        unseen.append(f"{below}/")
        except PermissionError:
            # What the agent cannot read here it cannot read there either.
            continue
