"""Which object an open file is: its place on the mount that the host sees, and its handle.

A process may mount what it reaches elsewhere, in a namespace of its own, and then the path
of an open file is whatever it has chosen. The kernel's handle of the object, opened by our
own mount of the file system (open_by_handle_at(2), CAP_DAC_READ_SEARCH), gives the place
that it has for everybody. ``O_PATH`` opens nothing, so no event comes of it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

from aesp_proxy.intercept.fanotify.kernel import Handle, Place

_HANDLE_BYTES_MAX: Final = 128
_AT_EMPTY_PATH: Final = 0x1000
_HEAD: Final = struct.Struct("=Ii")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_WITHOUT_FILES: Final = frozenset(
    {
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
        "devtmpfs", "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "securityfs",
        "selinuxfs", "sysfs", "tracefs",
    }
)  # fmt: skip
_DELETED: Final = " (deleted)"


class Mount:
    """A file system as we see it: by a directory on it that was opened before it was marked."""

    def __init__(self, path: str) -> None:
        """Open it; OSError where that is not possible."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self._descriptor).st_dev
        self.file_system = struct.pack("=Q", os.fstatvfs(self._descriptor).f_fsid)
        self.number, _ = identify(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def open_handle(self, handle: Handle) -> int:
        """Return an ``O_PATH`` descriptor of an object; OSError (ESTALE) when it is gone."""
        raw = ctypes.create_string_buffer(
            _HEAD.pack(len(handle.data), handle.kind) + handle.data, _HEAD.size + len(handle.data)
        )
        flags = os.O_PATH | os.O_CLOEXEC
        found = _LIBC.open_by_handle_at(self._descriptor, raw, flags)
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(found)

    def path_of(self, handle: Handle) -> str:
        """Return where an object is; OSError when it is gone."""
        descriptor = self.open_handle(handle)
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def path_at(self, place: Place) -> str:
        """Return a name in a directory as a path; OSError when the directory is gone."""
        directory = self.path_of(place.directory)
        return f"{directory.rstrip('/')}/{os.fsdecode(place.name)}" if place.name else directory


def identify(descriptor: int) -> tuple[int, Handle]:
    """Return the id of the mount by which a file was opened, and its handle; OSError."""
    raw = ctypes.create_string_buffer(_HEAD.size + _HANDLE_BYTES_MAX)
    _HEAD.pack_into(raw, 0, _HANDLE_BYTES_MAX, 0)
    mount = ctypes.c_int()
    flags = _AT_EMPTY_PATH
    if _LIBC.name_to_handle_at(descriptor, b"", raw, ctypes.byref(mount), flags) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    length, kind = _HEAD.unpack_from(raw)
    return mount.value, Handle(kind, raw.raw[_HEAD.size : _HEAD.size + length])


def path_behind(descriptor: int) -> str:
    """Return the path by which a file was opened, for a removed one that it had."""
    return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(_DELETED)


def places_below(trees: Iterable[str], mounts: str) -> list[str]:
    r"""Return where file systems are reached that trees lie on, or that are mounted in them.

    ``mounts`` as proc_pid_mountinfo(5) has them.

    >>> places_below(["/home"], "21 1 8:1 / / rw - ext4 x rw\n22 21 8:2 / /home rw - ext4 y rw")
    ['/home']
    """
    known = [(_unescaped(words[4]), words[2]) for words in map(str.split, mounts.splitlines())
             if len(words) > 4 and _kind(words) not in _WITHOUT_FILES]  # fmt: skip
    found: dict[str, str] = {}
    for tree in trees:
        # The last one that is mounted on a place is the one that is seen.
        around = [each for each in known if _is_below(tree, each[0])]
        if around:
            place, device = max(reversed(around), key=lambda each: len(each[0]))
            found.setdefault(place, device)
        found.update((place, device) for place, device in known if _is_below(place, tree))
    return list(found)


def plain_numbers(own: str, hosts: str) -> frozenset[int]:
    r"""Return the ids of mounts by which a file has the path that it has for us.

    Those that we see, and those of the host, where a service manager gave us a namespace
    of our own; both as proc_pid_mountinfo(5) has them.

    >>> plain_numbers("9 1 8:1 /home /home ro - ext4 x ro", "2 1 8:1 / / rw - ext4 x rw")
    frozenset({9, 2})
    """
    ours = [_View.of(words) for words in map(str.split, own.splitlines()) if len(words) > 4]
    theirs = [_View.of(words) for words in map(str.split, hosts.splitlines()) if len(words) > 4]
    same = {each.number for each in theirs if any(each.is_like(view) for view in ours)}
    return frozenset(same | {view.number for view in ours})


class _View(NamedTuple):
    """A mount: what of a file system is seen, and where."""

    number: int
    device: str
    root: str
    place: str

    @classmethod
    def of(cls, words: list[str]) -> _View:
        return cls(int(words[0]), words[2], _unescaped(words[3]), _unescaped(words[4]))

    def is_like(self, other: _View) -> bool:
        """Whether a file that both show has one path."""
        if self.device != other.device:
            return False
        outer, inner = sorted((self, other), key=lambda view: len(view.root))
        rest = inner.root.removeprefix(outer.root.rstrip("/"))
        if not _is_below(inner.root, outer.root):
            return False
        return inner.place == (outer.place.rstrip("/") + rest).rstrip("/") or (
            inner.place == outer.place and rest in ("", "/")
        )


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above.rstrip('/')}/")


def _kind(words: list[str]) -> str:
    rest = words[words.index("-") + 1 :] if "-" in words else []
    return rest[0] if rest else ""


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
